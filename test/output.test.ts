import { execFileSync, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AppError } from "../src/errors.ts";
import { checkFiles, difference, marker, withConcurrency, writeIfChanged } from "../src/output.ts";

const ours = (body: string) => `# ${marker}\n${body}\n`;
let directory: string;
const path = (name: string) => join(directory, name);
const read = (name: string) => fs.readFileSync(path(name), "utf8");

beforeEach(() => {
  directory = fs.mkdtempSync(join(tmpdir(), "lollypops-output-"));
});
afterEach(() => fs.rmSync(directory, { recursive: true, force: true }));

async function errorOf(promise: Promise<unknown>): Promise<AppError> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (error instanceof AppError) return error;
  throw new Error(`not refused: ${error}`);
}

/** root may write anywhere. */
async function asNobody<T>(run: () => Promise<T>): Promise<T> {
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(65534);
  try {
    return await run();
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
}

const write = async (file: string, text: string, options = {}) =>
  (await writeIfChanged([{ file, text }], options)).length > 0 ? "written" : "unchanged";
const check = (file: string, text: string) => checkFiles([{ file, text }], `lollypops-gen -o ${file}`);

const canMount = spawnSync("unshare", ["--mount", "true"]).status === 0;

describe("writeIfChanged", () => {
  test("writes a new file, and nothing beside it", async () => {
    expect(await write(path("T.yml"), ours("a"))).toBe("written");
    expect(read("T.yml")).toBe(ours("a"));
    expect(fs.readdirSync(directory)).toEqual(["T.yml"]);
    expect(fs.statSync(path("T.yml")).mode & 0o777).toBe(0o666 & ~process.umask());
  });

  test("leaves an equal file alone", async () => {
    fs.writeFileSync(path("T.yml"), ours("a"));
    const before = fs.statSync(path("T.yml"));
    expect(await write(path("T.yml"), ours("a"))).toBe("unchanged");
    expect(fs.statSync(path("T.yml"))).toMatchObject({ ino: before.ino, mtimeMs: before.mtimeMs });
  });

  test("replaces our own file and keeps its mode", async () => {
    fs.writeFileSync(path("T.yml"), ours("a"));
    fs.chmodSync(path("T.yml"), 0o604);
    expect(await write(path("T.yml"), ours("b"))).toBe("written");
    expect(read("T.yml")).toBe(ours("b"));
    expect(fs.statSync(path("T.yml")).mode & 0o777).toBe(0o604);
  });

  test("takes an empty file for ours", async () => {
    fs.writeFileSync(path("T.yml"), "");
    expect(await write(path("T.yml"), ours("a"))).toBe("written");
  });

  test("refuses a file of someone else unless forced", async () => {
    fs.writeFileSync(path("T.yml"), `version: '3'\n\n\n\n\n# ${marker}\n`);
    const error = await errorOf(write(path("T.yml"), ours("a")));
    expect([error.exitCode, error.message]).toEqual([
      2,
      `${path("T.yml")} exists and was not written by lollypops-gen; --force replaces it`,
    ]);
    expect(await write(path("T.yml"), ours("a"), { force: true })).toBe("written");
    expect(read("T.yml")).toBe(ours("a"));
  });

  test.each(["there", "missing"])("follows links to a file that is %s", async (state) => {
    fs.mkdirSync(path("real"));
    fs.symlinkSync("real", path("linked"));
    fs.symlinkSync("one", path("real/two"));
    fs.symlinkSync("../T.yml", path("real/one"));
    if (state === "there") fs.writeFileSync(path("T.yml"), ours("a"));
    expect(await write(path("linked/two"), ours("b"))).toBe("written");
    expect(read("T.yml")).toBe(ours("b"));
    expect(fs.lstatSync(path("real/two")).isSymbolicLink()).toBe(true);
    expect(fs.readdirSync(directory)).toEqual(["T.yml", "linked", "real"]);
  });

  test("tells what is in the way, and leaves nothing behind", async () => {
    fs.mkdirSync(path("dir"));
    fs.writeFileSync(path("file"), "");
    fs.symlinkSync("loop", path("loop"));
    execFileSync("mkfifo", [path("pipe")]);
    const long = "x".repeat(300);
    const messages: [string, string][] = [
      ["dir", `${path("dir")} is a directory`],
      ["pipe", `${path("pipe")} is not a plain file`],
      ["none/T.yml", `cannot write ${path("none/T.yml")}: there is no directory ${path("none")}`],
      ["file/T.yml", `cannot write ${path("file/T.yml")}: ${path("file")} is not a directory`],
      ["loop", `cannot write ${path("loop")}: symbolic links lead in a circle`],
      [long, `cannot write ${path(long)}: the name is too long`],
    ];
    const before = fs.readdirSync(directory);
    for (const [name, message] of messages) {
      const error = await errorOf(write(path(name), ours("a"), { force: true }));
      expect([error.exitCode, error.message]).toEqual([2, message]);
    }
    expect(fs.readdirSync(directory)).toEqual(before);
    expect(fs.lstatSync(path("pipe")).isFIFO()).toBe(true);
  });

  test("no permission: one sentence", async () => {
    fs.chmodSync(directory, 0o555);
    const error = await asNobody(() => errorOf(write(path("T.yml"), ours("a"))));
    expect([error.exitCode, error.message]).toEqual([2, `cannot write ${path("T.yml")}: permission denied`]);
  });

  test.runIf(canMount)("no space: one sentence, and the old file stays", async () => {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=16k", "tmpfs", directory]);
    try {
      fs.writeFileSync(path("T.yml"), ours("a"));
      const error = await errorOf(write(path("T.yml"), ours("b".repeat(100_000))));
      expect(error.message).toBe(`cannot write ${path("T.yml")}: no space left on the device`);
      expect([fs.readdirSync(directory), read("T.yml")]).toEqual([["T.yml"], ours("a")]);
    } finally {
      execFileSync("umount", [directory]);
    }
  });
});

describe("several files", () => {
  const both = (body: string, limit: number) => withConcurrency({ file: path("T.yml"), text: ours(body) }, limit);
  const foreign = "concurrency: 3\n";

  test("are written where they changed, the second beside the first", async () => {
    const [taskfile, config] = [path("T.yml"), path(".taskrc.yml")];
    expect(await writeIfChanged(both("a", 5))).toEqual([taskfile, config]);
    expect(read(".taskrc.yml")).toMatch(/^# Generated by lollypops-gen .*\nconcurrency: 5\n$/);
    expect(await writeIfChanged(both("a", 5))).toEqual([]);
    expect(await writeIfChanged(both("a", 6))).toEqual([config]);
    expect(await writeIfChanged(both("b", 6))).toEqual([taskfile]);
  });

  test.each(["T.yml", ".taskrc.yml"])("%s of someone else: neither is written", async (name) => {
    fs.writeFileSync(path(name), foreign);
    const error = await errorOf(writeIfChanged(both("a", 5)));
    expect([error.exitCode, error.message]).toEqual([
      2,
      `${path(name)} exists and was not written by lollypops-gen; --force replaces it`,
    ]);
    expect([fs.readdirSync(directory), read(name)]).toEqual([[name], foreign]);
    expect(await writeIfChanged(both("a", 5), { force: true })).toHaveLength(2);
  });

  test("what is wrong is told of both", async () => {
    await writeIfChanged(both("a", 5));
    await checkFiles(both("a", 5), "x");
    const error = await errorOf(checkFiles(both("b", 6), "x"));
    expect([error.exitCode, error.hint]).toEqual([5, "bring them up to date with: x"]);
    expect(error.message).toMatch(
      /T\.yml is out of date:\n[\s\S]*-a\n\+b\n[\s\S]*\.taskrc\.yml is out of date:\n[\s\S]*\+concurrency: 6/,
    );
    fs.rmSync(path(".taskrc.yml"));
    const missing = await errorOf(checkFiles(both("a", 5), "x"));
    expect(missing.message).toBe(`${path(".taskrc.yml")} does not exist`);
  });

  test("the first cannot be the second", () => {
    expect(() => withConcurrency({ file: path(".taskrc.yml"), text: "" }, 5)).toThrow("beside the Taskfile");
  });
});

describe("checkFiles", () => {
  test("an equal file passes", async () => {
    fs.writeFileSync(path("T.yml"), ours("a"));
    await check(path("T.yml"), ours("a"));
  });

  test("a difference is shown", async () => {
    fs.writeFileSync(path("T.yml"), ours("a"));
    const error = await errorOf(check(path("T.yml"), ours("b")));
    expect([error.exitCode, error.message]).toEqual([
      5,
      `${path("T.yml")} is out of date:\n@@ line 1 @@\n # ${marker}\n-a\n+b\n `,
    ]);
    expect(error.hint).toBe(`bring it up to date with: lollypops-gen -o ${path("T.yml")}`);
  });

  test("a missing file is a difference, a directory wrong usage", async () => {
    const missing = await errorOf(check(path("T.yml"), "x"));
    expect([missing.exitCode, missing.message]).toEqual([5, `${path("T.yml")} does not exist`]);
    const wrong = await errorOf(check(directory, "x"));
    expect([wrong.exitCode, wrong.message]).toEqual([2, `${directory} is a directory`]);
  });
});

describe("difference", () => {
  const lines = (...list: (string | number)[]) => list.join("\n");
  const count = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

  test.each([
    ["equal", "a\nb", "a\nb", ""],
    ["changed", lines(...count(1, 9)), lines(1, 2, 3, 4, "x", 6, 7, 8, 9), "@@ line 3 @@\n 3\n 4\n-5\n+x\n 6\n 7"],
    ["added at the start", "a", "x\na", "@@ line 1 @@\n+x\n a"],
    ["removed at the end", "a\nb", "a", "@@ line 1 @@\n a\n-b"],
    ["repeated", "a\na", "a\na\na", "@@ line 1 @@\n a\n a\n+a"],
    [
      "two places",
      lines(...count(1, 20)),
      lines(1, "x", ...count(3, 18), 20),
      "@@ line 1 @@\n 1\n-2\n+x\n 3\n 4\n@@ line 17 @@\n 17\n 18\n-19\n 20",
    ],
  ])("%s", (_, before, after, expected) => expect(difference(before, after)).toBe(expected));

  test("is cut after 40 lines, and quick on large texts that have nothing in common", () => {
    const shown = difference(lines(...count(1, 30_000)), lines(...count(40_001, 70_000))).split("\n");
    expect([shown.length, shown[1], shown[40]]).toEqual([41, "-1", "… 59961 more lines"]);
  });
});
