// `run`: generates, then hands over to the real go-task.
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { constants, homedir, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { ExecaError, execa } from "execa";
import { nixError, usageError } from "./errors.ts";
import { Relay } from "./signals.ts";

const oldest = [3, 51, 1] as const;

/** The go-task program on PATH (`task`, or `go-task` on some distributions). Throws nixError if none will do. */
export async function findTask(): Promise<string> {
  const seen: string[] = [];
  for (const program of ["task", "go-task"]) {
    const version = await versionOf(program);
    if (version === undefined) continue;
    if (isEnough(version)) return program;
    seen.push(`${program} is ${version}`);
  }
  const hint = "install go-task 3.51.1 or later (https://taskfile.dev/installation)";
  if (seen.length === 0) throw nixError("go-task was not found on PATH, neither as task nor as go-task", { hint });
  throw nixError(`go-task is too old: ${seen.join(", ")}`, { hint });
}

/** The version of a go-task; a program of another kind under this name (Taskwarrior) has none. */
async function versionOf(program: string): Promise<string | undefined> {
  try {
    const help = await execa(program, ["--help"], { all: true, reject: false, stdin: "ignore", timeout: 10_000 });
    if (help.failed && help.exitCode === undefined) return undefined;
    if (!help.all.includes("Taskfile")) return undefined;
    const { stdout } = await execa(program, ["--version"], { stdin: "ignore", timeout: 10_000 });
    return stdout.match(/\d+\.\d+\.\d+/)?.[0];
  } catch (error) {
    if (error instanceof ExecaError) return undefined;
    throw error;
  }
}

function isEnough(version: string): boolean {
  const numbers = version.split(".").map(Number);
  const index = oldest.findIndex((number, at) => numbers[at] !== number);
  return index === -1 || (numbers[index] ?? 0) > (oldest[index] ?? 0);
}

/** A flake's path made absolute: the Taskfile of `run` is elsewhere, and would be asked beside it. */
export function fromHere(reference: string): string {
  const [, path, rest = ""] = reference.match(/^(\.{1,2}(?:\/[^?#]*)?)(.*)$/s) ?? [];
  return path === undefined ? reference : resolve(path) + rest;
}

/**
 * Runs go-task on a Taskfile that is not on disk otherwise, in this terminal and process group, and waits for it. All that it
 * starts is told what signals we get. Returns its exit code, or 128 + the number of the signal that we got.
 */
export async function runTask(program: string, taskfile: string, args: readonly string[]): Promise<number> {
  const relay = new Relay();
  try {
    const code = await withFile(taskfile, (file) =>
      relay.got === undefined ? follow(relay, program, ["-d", ".", "-t", file, ...ownFlags(args), ...args]) : 1,
    );
    return relay.got === undefined ? code : 128 + constants.signals[relay.got];
  } finally {
    await relay.end();
  }
}

async function withFile<T>(taskfile: string, use: (file: string) => T): Promise<Awaited<T>> {
  const directory = await mkdtemp(join(tmpdir(), "lollypops-gen-")).catch((cause) => {
    const why = { ENOENT: "there is no such directory", EACCES: "that is not allowed" }[cause.code as string];
    throw usageError(`cannot write the Taskfile in ${tmpdir()} (TMPDIR): ${why ?? cause.message}`, { cause });
  });
  try {
    const file = join(directory, "Taskfile.yml");
    await writeFile(file, taskfile, { mode: 0o600 });
    return await use(file);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function follow(relay: Relay, program: string, args: readonly string[]): Promise<number> {
  const child = execa(program, args, { stdio: "inherit", reject: false });
  relay.follow(child.pid);
  const { exitCode } = await child;
  relay.follow(undefined);
  return exitCode ?? 1;
}

/** Ten hosts at a time, unless the user has said how many; and a dry run shows the calls, which are silent otherwise. */
function ownFlags(args: readonly string[]): string[] {
  const ends = args.indexOf("--");
  const flags = ends === -1 ? args : args.slice(0, ends);
  const has = (flag: RegExp) => flags.some((arg) => flag.test(arg));
  const limited =
    has(/^(-[a-zA-Z]*C.*|--concurrency(=.*)?)$/) || process.env["TASK_CONCURRENCY"] || settingsOfTask().some(limits);
  return [...(limited ? [] : ["-C", "10"]), ...(has(/^(-[a-zA-Z]*n[a-zA-Z]*|--dry)$/) ? ["-v"] : [])];
}

/** The files that go-task takes its own settings from: of this directory, those above, the home directory, and the XDG one. */
function settingsOfTask(): string[] {
  const above: string[] = [];
  for (let up = process.cwd(); above.at(-1) !== up; up = dirname(up)) above.push(up);
  const here = [...above, homedir()].flatMap((place) =>
    [".taskrc.yml", ".taskrc.yaml"].map((name) => join(place, name)),
  );
  const xdg = process.env["XDG_CONFIG_HOME"];
  return [...here, ...(xdg ? ["taskrc.yml", "taskrc.yaml"].map((name) => join(xdg, "task", name)) : [])];
}

function limits(file: string): boolean {
  try {
    return /^concurrency:/m.test(readFileSync(file, "utf8"));
  } catch {
    return false;
  }
}
