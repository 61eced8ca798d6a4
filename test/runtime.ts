/** Helpers of the runtime's tests: PATHs with one shell as `sh`, and calls of a verb as a step of the Taskfile makes them. */
import { mkdirSync, symlinkSync } from "node:fs";
import { delimiter, join } from "node:path";
import { readTemplates } from "../src/templates.ts";
import { mustRun, type Result, run, temporaryDirectory } from "./hosts.ts";

/** What stands as `sh` on the control machine: Debian's, macOS's, Alpine's. */
export const shells = ["dash", "bash", "busybox"] as const;
export type Shell = (typeof shells)[number];

/** Every program that the control side may use beyond ssh, nix and task; `sh` comes on top. */
const utilities = [
  ..."awk base64 cat chmod date dd grep id mkdir mkfifo mv od printf rm rmdir sed sleep sort tr uname".split(" "),
  "ps", // where there is no /proc
] as const;

/** The shell runtime as it stands in a Taskfile. */
export const { runtime } = await readTemplates();

/** A directory that makes `shell` the `sh` of a PATH. */
export async function shellDirectory(shell: Shell): Promise<string> {
  return linked({ sh: await find(shell) });
}

/** A whole PATH without anything of GNU: busybox for the utilities, and these programs of this machine. */
export async function sparePath(shell: Shell, programs: readonly string[]): Promise<string> {
  const busybox = await find("busybox");
  const links = Object.fromEntries(utilities.map((name) => [name, busybox]));
  for (const name of programs) links[name] = await find(name);
  return linked({ ...links, sh: await find(shell) });
}

/** The place of a program on this machine's PATH. */
async function find(program: string): Promise<string> {
  return (await mustRun("sh", ["-c", 'command -v "$1"', "sh", program])).stdout.trim();
}

function linked(links: Readonly<Record<string, string>>): string {
  const dir = join(temporaryDirectory(), "bin");
  mkdirSync(dir);
  for (const [name, target] of Object.entries(links)) symlinkSync(target, join(dir, name));
  return dir;
}

/** `variables` are those of the run (`task x NAME=value`), `path` goes before PATH, or `only` is all of it; `text` is another runtime. */
export type CallOptions = {
  path?: string;
  only?: string;
  text?: string;
  variables?: Readonly<Record<string, string>>;
  cwd?: string;
  env?: Record<string, string | undefined>;
  input?: string;
};

/** Calls a verb with the words of a step. This process stands for go-task: what it calls with one `env.XDG_RUNTIME_DIR` is a run. */
export async function call(words: readonly string[], options: CallOptions): Promise<Result> {
  const { hash, text, targets, settings } = runtime;
  const set = settings.map((name) => `${name}=${options.variables?.[name] ?? ""}\n`).join("");
  const path = options.only ?? [options.path, process.env["PATH"]].join(delimiter);
  return run("sh", ["-c", `eval\${IFS}"\${LOLLYPOPS_SH_${hash}-false}"`, "lollypops", ...words], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.input === undefined ? {} : { input: options.input }),
    env: {
      ...options.env,
      PATH: path,
      [`LOLLYPOPS_SH_${hash}`]: options.text ?? text,
      [`LOLLYPOPS_TARGET_${hash}`]: targets,
      [`LOLLYPOPS_SET_${hash}`]: set,
    },
  });
}
