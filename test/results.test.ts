/** LOLLYPOPS_RESULTS: one JSON line for each host, whatever the message holds, from each shell. */
import { chmodSync, mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { temporaryDirectory } from "./hosts.ts";
import { type CallOptions, call, type Shell, shellDirectory, shells, sparePath } from "./runtime.ts";

const controls = [...shells.map((shell) => ({ shell, spare: false })), { shell: "busybox" as Shell, spare: true }];

describe.each(controls)("$shell as sh, only busybox: $spare", ({ shell, spare }) => {
  let path: CallOptions;
  let cwd: string;
  beforeAll(async () => {
    path = spare ? { only: await sparePath(shell, ["nix"]) } : { path: await shellDirectory(shell) };
    cwd = temporaryDirectory();
    writeFileSync(join(cwd, "ssh"), `#!/bin/sh\nread -r x\nexec cat '${cwd}/words'\n`);
    chmodSync(join(cwd, "ssh"), 0o755);
  });

  /** What stands in the results when a host's last words were these. */
  async function resultOf(words: Buffer | string, file = mkdtempSync(join(cwd, "in-"))) {
    writeFileSync(join(cwd, "words"), words);
    const env = { XDG_RUNTIME_DIR: mkdtempSync(join(cwd, "run-")) };
    const variables = { TASK: "web1:status", LOLLYPOPS_RESULTS: join(file, "results") };
    const words_ = ["rebuild", "--host", "web1", "--to", "web1", "--ssh", join(cwd, "ssh"), "--flake", "/nowhere"];
    const { stderr, exitCode } = await call(words_, { ...path, cwd, env, variables });
    return { stderr, exitCode, file: join(file, "results") };
  }
  const message = async (words: Buffer | string) => {
    const { file } = await resultOf(words);
    const text = readFileSync(file);
    expect(text.every((byte) => byte === 10 || (byte > 31 && byte < 127))).toBe(true);
    const lines = text.toString().split("\n");
    expect(lines).toHaveLength(2);
    return JSON.parse(lines[0] ?? "").message.replace(/ \(exit 0\)$/, "");
  };

  test.each(["plain", 'a "b" \\c /d', "é ß 中 😀 \u{10ffff}", "x\u00a0 \u2028", "%s %% {{.X}} $x `y`", "\ufffd"])(
    "%j arrives as it is",
    async (words) => {
      expect(await message(`${words}\n`)).toBe(words);
    },
  );

  test("what is no text is neutralised", async () => {
    const bytes = [0x61, 0xff, 0xc3, 0x62, 0xc0, 0x80, 0xed, 0xa0, 0x80, 0xe4, 0xb8, 0x1b, 0x63, 0x07, 0xf0, 0x9f];
    const bad = "\ufffd";
    expect(await message(Buffer.from([...bytes, 10]))).toBe(
      `a${bad}${bad}b${bad.repeat(2)}${bad.repeat(3)}${bad.repeat(2)}c${bad.repeat(2)}`,
    );
  });

  test("UTF-8's own control characters, which a terminal obeys, are left out", async () => {
    expect(await message("a\u009b2Jb\u0085\n")).toBe("a2Jb");
  });

  test("only the user can read it; lines are added; one that cannot be written is told, and changes nothing else", async () => {
    const { file } = await resultOf("one\n");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    await resultOf("two\n", join(file, ".."));
    expect(readFileSync(file, "utf8").match(/"message":"[a-z]+/g)).toEqual(['"message":"one', '"message":"two']);
    expect(await resultOf("one\n", "/nowhere")).toMatchObject({
      stderr: "web1: status failed: one (exit 0)\nlollypops: web1: cannot write LOLLYPOPS_RESULTS, /nowhere/results\n",
      exitCode: 1,
    });
  });
});
