/**
 * Helpers of the tests: run things here and on the test hosts (which boot-hosts.ts has booted), and make those NixOS stand-ins.
 * Nothing is ever skipped: what is missing throws a sentence that says what to do.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll } from "vitest";

/** What a command did; its output is exact, final newline included. */
export type Result = { stdout: string; stderr: string; exitCode: number };

/** Where a command runs, and what it gets; `undefined` takes a variable away. */
export type RunOptions = { cwd?: string; env?: Record<string, string | undefined>; input?: string };

/** What `fixtures/fleet` takes for a host, laid over what it has; null takes a secret or a unit away. */
export type HostSettings = {
  lollypops?: Record<string, unknown>;
  version?: string;
  units?: Record<string, string | null>;
  wanted?: string[];
  snippet?: string;
  dry?: string;
  check?: string;
  kernelKiB?: number;
  initInterface?: string;
  specialisation?: Record<string, HostSettings>;
};

/** The whole of `settings.json`; a host that is null is left out. */
export type Settings = { all?: HostSettings; hosts?: Record<string, HostSettings | null> };

/** A git repository of its own with the flake of `fixtures/fleet`. */
export type Fleet = { dir: string; change: (settings: Settings, files?: Record<string, string>) => Promise<void> };

/** The checkout. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

export const set = process.env["TESTHOSTS_SET"] ?? "0"; // worker-hosts.ts has chosen it
const state = set === "0" ? "/run/testhosts" : `/run/testhosts-${set}`;

/** `ssh -F sshConfig root@pop1` reaches the first host. */
export const sshConfig = join(state, "ssh_config");

/** The hosts that are up, and what `fixtures/fleet` calls them. */
export const fleetHosts = { pop1: "web1", pop2: "web2", pop3: "db1" } as const;

/** Throws when a program is not on PATH. */
async function requireTool(name: string): Promise<void> {
  const { exitCode } = await run("sh", ["-c", 'command -v "$1"', "sh", name]);
  if (exitCode !== 0)
    throw new Error(`${name} is not on PATH: \`npm test\` sets up what the tests need (test/setup.sh)`);
}

/** Runs a program; its exit code is for the caller to judge. */
export async function run(command: string, args: string[], options: RunOptions = {}): Promise<Result> {
  const { stdout, stderr, exitCode, signal, originalMessage } = await execa(command, args, {
    cwd: options.cwd ?? root,
    env: options.env ?? {},
    ...(options.input === undefined ? { stdin: "ignore" as const } : { input: options.input }),
    reject: false,
    stripFinalNewline: false,
  });
  if (exitCode === undefined && !signal) throw new Error(`${command} did not start: ${originalMessage}`);
  return { stdout, stderr, exitCode: exitCode ?? 128 };
}

/** The same, and throws with all output unless it exits with 0. */
export async function mustRun(command: string, args: string[], options: RunOptions = {}): Promise<Result> {
  const result = await run(command, args, options);
  if (result.exitCode === 0) return result;
  throw new Error(`${[command, ...args].join(" ")}: exit ${result.exitCode}\n${result.stdout}${result.stderr}`);
}

/** Runs the built program, with ssh options that reach the test hosts. */
export async function cli(args: string[], options: RunOptions = {}): Promise<Result> {
  checkBuild();
  return run(process.execPath, [join(root, "dist/cli.js"), ...args], withHosts(options));
}

/** Runs the real go-task, with ssh options that reach the test hosts. */
export async function task(args: string[], options: RunOptions = {}): Promise<Result> {
  await requireTool("task");
  return run("task", args, withHosts(options));
}

/** Runs a command (shell text) on a host, as root or `{ user: "ops" }`, whatever its exit code. */
export async function trySsh(
  host: string,
  command: string,
  options: RunOptions & { user?: string } = {},
): Promise<Result> {
  return run("ssh", ["-F", sshConfig, `${options.user ?? "root"}@${host}`, command], options);
}

/** The same, returns what it printed, and throws unless it exits with 0. */
export async function ssh(
  host: string,
  command: string,
  options: RunOptions & { user?: string } = {},
): Promise<string> {
  const { stdout, stderr, exitCode } = await trySsh(host, command, options);
  if (exitCode !== 0) throw new Error(`on ${host}: ${command}: exit ${exitCode}\n${stdout}${stderr}`);
  return stdout;
}

/** So many hosts are up, on this worker's set; more than three stay up for the next test file, which does not mind. */
export async function bootHosts(count: number): Promise<void> {
  await testhosts("up", String(count));
}

/** Host I stops answering, mid-connection too. */
export async function cut(host: number): Promise<void> {
  await testhosts("cut", String(host));
}

/** Host I answers again. */
export async function mend(host: number): Promise<void> {
  await testhosts("mend", String(host));
}

/** The power of host I goes off and on again. */
export async function restart(host: number): Promise<void> {
  await testhosts("restart", String(host));
}

/** Makes a host what it is right after NixOS was installed on it as host `name` of the flake in `dir`. */
export async function markNixos(host: string, dir: string, name: string): Promise<void> {
  await mustRun(join(root, "test/nixos/mark-nixos"), [host, dir, name], { env: { TESTHOSTS_SET: set } });
}

/** The same for all of a fleet's hosts that are called as in `fixtures/fleet`. */
export async function markFleet(fleet: Fleet): Promise<void> {
  await Promise.all(Object.entries(fleetHosts).map(([host, name]) => markNixos(host, fleet.dir, name)));
}

const flakes = ["--extra-experimental-features", "nix-command flakes"];

/** Builds, on a host, the system of host `name` of the flake in `dir`, and returns its path: what a rebuild would activate. */
export async function buildSystem(host: string, dir: string, name: string): Promise<string> {
  const { stdout } = await mustRun("nix", [...flakes, "flake", "prefetch", "--json", dir]);
  const source = JSON.parse(stdout).storePath;
  const env = { NIX_SSHOPTS: `-F ${sshConfig}` };
  await mustRun("nix", [...flakes, "copy", "--to", `ssh://root@${host}`, source], { env });
  const attribute = `${source}#nixosConfigurations.${name}.config.system.build.toplevel`;
  return (await ssh(host, `nix build --quiet --no-link --print-out-paths '${attribute}'`)).trim();
}

/** A fresh copy of `fixtures/fleet` with these settings, and files written over its own (`{ version: "2\n" }`), committed. */
export async function fleet(settings: Settings = {}, files: Record<string, string> = {}): Promise<Fleet> {
  const dir = temporaryDirectory();
  const commit = () => mustRun(join(root, "test/fleet"), [dir]);
  await commit();
  const machine = JSON.parse(readFileSync(join(dir, "settings.json"), "utf8"));
  const change: Fleet["change"] = async (next, more = {}) => {
    writeFileSync(join(dir, "settings.json"), JSON.stringify({ ...machine, ...next }, null, 2));
    for (const [name, text] of Object.entries(more)) writeFileSync(join(dir, name), text);
    await commit();
  };
  await change(settings, files);
  return { dir, change };
}

/** An empty directory that goes when the test file is done, unless LOLLYPOPS_KEEP_HOSTS=1 asks to keep things for a look. */
export function temporaryDirectory(): string {
  temporary.push(mkdtempSync(join(tmpdir(), "lollypops-test-")));
  return temporary.at(-1) as string;
}

const temporary: string[] = [];

afterAll(() => {
  if (process.env["LOLLYPOPS_KEEP_HOSTS"] === "1") return;
  for (const dir of temporary) rmSync(dir, { recursive: true, force: true });
});

async function testhosts(...args: string[]): Promise<void> {
  await mustRun(join(root, "test/testhosts"), args, { env: { TESTHOSTS_SET: set } });
}

function withHosts(options: RunOptions): RunOptions {
  return { ...options, env: { LP_REMOTE_SSH_OPTS: `-F ${sshConfig}`, NO_COLOR: "1", ...options.env } };
}

/** A stale build would test something else than what is in `src`. */
function checkBuild(): void {
  const built = join(root, "dist/cli.js");
  if (!existsSync(built)) throw new Error("dist/cli.js is missing: npm run build");
  const age = statSync(built).mtimeMs;
  const sources = readdirSync(join(root, "src"), { recursive: true, withFileTypes: true });
  const newer = sources.find((entry) => entry.isFile() && statSync(join(entry.parentPath, entry.name)).mtimeMs > age);
  if (newer) throw new Error(`src/${newer.name} is newer than dist/cli.js: npm run build`);
}
