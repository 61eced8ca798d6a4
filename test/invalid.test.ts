/**
 * What users get wrong: each folder of fixtures/invalid/ is a directory where the built program runs with the arguments of
 * case.json, and stderr.txt is all it says. `npm run golden` is the only way to change these files.
 */
import { spawnSync } from "node:child_process";
import { closeSync, cpSync, openSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { cli, root, temporaryDirectory } from "./hosts.ts";
import { oldTask } from "./old-task.ts";

/** `path` replaces PATH; `before` are arguments of a run that must succeed first; `stdout` and `stdin` are files. */
type Case = {
  args: string[];
  exit: number;
  path?: "nothing" | "go-task 3.45.5";
  before?: string[];
  stdin?: string;
  stdout?: string;
};

const fixtures = join(root, "fixtures/invalid");
const read = (directory: string) =>
  readdirSync(directory, { recursive: true, encoding: "utf8" })
    .sort()
    .map((file) => join(directory, file))
    .map((file) => [file, statSync(file).isFile() ? readFileSync(file, "utf8") : ""]);

async function pathOf(given: Case["path"], directory: string): Promise<Record<string, string>> {
  if (given === undefined) return {};
  return { PATH: given === "nothing" ? join(directory, "bin") : await oldTask(given.replace("go-task ", "")) };
}

/** As cli() does, with files for the standard streams. */
async function runCase({ args, stdin, stdout, path }: Case, cwd: string) {
  const env = await pathOf(path, cwd);
  if (stdout === undefined)
    return cli(args, { cwd, env, input: stdin === undefined ? "" : readFileSync(join(cwd, stdin), "utf8") });
  const stdio = ["ignore", openSync(join(cwd, stdout), "w"), "pipe"] as const;
  const { status, stderr } = spawnSync(process.execPath, [join(root, "dist/cli.js"), ...args], {
    cwd,
    env: { ...process.env, ...env },
    stdio: [...stdio],
    encoding: "utf8",
  });
  closeSync(stdio[1]);
  return { exitCode: status, stdout: readFileSync(join(cwd, stdout), "utf8"), stderr };
}

/** What differs from one machine, or one runtime, to the next. */
const settled = (text: string, directory: string) =>
  text
    .replaceAll(directory, "DIRECTORY")
    .replaceAll(/LOLLYPOPS_[0-9a-f]{6}/g, "LOLLYPOPS_000000")
    .replaceAll(/\/nix\/store\/[0-9a-z]{32}-/g, "/nix/store/…-");

test.each(readdirSync(fixtures))("%s", async (name) => {
  const directory = join(temporaryDirectory(), name);
  cpSync(join(fixtures, name), directory, { recursive: true });
  const invalid: Case = JSON.parse(readFileSync(join(directory, "case.json"), "utf8"));
  for (const file of ["case.json", "stderr.txt"]) rmSync(join(directory, file), { force: true });
  if (invalid.before) expect((await cli(invalid.before, { cwd: directory })).exitCode).toBe(0);
  const before = read(directory);
  const { exitCode, stdout, stderr } = await runCase(invalid, directory);
  await expect(settled(stderr, directory)).toMatchFileSnapshot(join(fixtures, name, "stderr.txt"));
  expect(exitCode).toBe(invalid.exit);
  if (exitCode !== 0) expect(stdout).toBe("");
  expect(read(directory).filter(([file]) => !file?.endsWith(`/${invalid.stdout}`))).toEqual(before);
});
