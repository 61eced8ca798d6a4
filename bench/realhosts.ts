// The hosts that test/testhosts boots, for what is measured on real ones, and commands that reach them.
import { execFileSync, type StdioOptions } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { BenchHost } from "./hosts.ts";
import { type Command, median } from "./measure.ts";
import { line, time } from "./print.ts";

const testhosts = resolve("test/testhosts");
const cli = resolve("dist/cli.js");
const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const ignore = () => {};

/** Eight of them, called `web1` to `web8` here. */
export const names = Array.from({ length: 8 }, (_, index) => `web${index + 1}`);
export const addressOf = (name: string) => name.replace("web", "pop");

/** What is measured, or why not. */
export type OnHosts = { readonly title: string; readonly measure: (sshConfig: string) => void | Promise<void> };

/** Boots the hosts, measures and takes them down. */
export async function onHosts({ title, measure }: OnHosts): Promise<void> {
  if (process.env["LOLLYPOPS_NO_HOSTS"] === "1") {
    line(title, "not measured: the hosts need root on Linux");
    return;
  }
  // The command that runs gets the signal as well, and fails: then the hosts are taken down.
  for (const signal of signals) process.on(signal, ignore);
  try {
    await measure(bootHosts());
  } finally {
    if (process.env["LOLLYPOPS_KEEP_HOSTS"] !== "1") execFileSync(testhosts, ["down"], { stdio: "pipe" });
    for (const signal of signals) process.off(signal, ignore);
  }
}

/** Where ssh's configuration for the hosts is, which are up then. */
function bootHosts(): string {
  process.env["TESTHOSTS_SET"] ??= "9"; // test/setup.sh picks a free one
  execFileSync(testhosts, ["up", String(names.length)], { stdio: "pipe" });
  const settings = execFileSync(testhosts, ["env"], { encoding: "utf8" });
  return /^SSH_CONFIG=(.*)$/m.exec(settings)?.[1] ?? "";
}

/** Shell commands at the same time; fails if one of them does. */
export function sideBySide(cwd: string, [first = "", ...others]: readonly string[]): Command {
  if (others.length === 0) return { argv: ["sh", "-c", first], cwd };
  const start = 'pids=; for command; do sh -c "$command" & pids="$pids $!"; done';
  return { argv: ["sh", "-c", `${start}; for pid in $pids; do wait $pid || exit; done`, "sh", first, ...others], cwd };
}

/** A shell command that runs one on a host. */
export const ssh = (options: readonly string[], address: string, command: string) =>
  `ssh ${options.map(quote).join(" ")} root@${address} ${quote(command)}`;

export const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

export function write(path: string, text: string | Buffer): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** A directory with this program's Taskfile for the hosts. */
export function writeTaskfile(directory: string, hosts: Readonly<Record<string, BenchHost>>, flake = "."): void {
  write(join(directory, "hosts.json"), JSON.stringify(hosts));
  const argv = [cli, "--from", "hosts.json", "--flake", flake];
  write(join(directory, "Taskfile.yml"), execFileSync(process.execPath, argv, { cwd: directory, maxBuffer: 1 << 28 }));
}

/** What a program prints. */
export function run([program = "", ...args]: readonly string[], cwd = ".", env: NodeJS.ProcessEnv = {}): string {
  const stdio: StdioOptions = ["ignore", "pipe", "pipe"];
  return execFileSync(program, args, {
    cwd,
    env: { ...process.env, ...env },
    encoding: "utf8",
    stdio,
    maxBuffer: 1 << 28,
  });
}

export const typical = (times: readonly number[]) => time(median(times));
