/** Helpers of the tests of what goes wrong on a real host: Taskfiles of secrets alone, deployments that stop half-way, leftovers. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { expect } from "vitest";
import { cli, ssh, sshConfig, task, temporaryDirectory } from "./hosts.ts";

/** What a secret is: `content` is what it holds (else words of its name), unless a command of its own tells it. */
export type Secret = { path: string; content?: string; cmd?: string; [option: string]: unknown };
type Host = { deployment: object; files: Record<string, Secret>; tasks?: string[]; extraTasks?: object };

/** The host that faults happen on, and where its secrets go. */
export const host = "pop1";
export const dir = "/srv/secrets";
export const asRoot = { ssh: { host, user: "root" } };

/** A directory with a Taskfile that brings web1 these secrets. */
export async function taskfile(files: Record<string, Secret>, deployment: object = asRoot): Promise<string> {
  return taskfileOf({ web1: { deployment, files } });
}

/** The same of several hosts. */
export async function taskfileOf(hosts: Record<string, Host>): Promise<string> {
  const cwd = temporaryDirectory();
  const entries = Object.entries(hosts).map(([name, { files, ...rest }]) => {
    mkdirSync(join(cwd, name));
    const secrets = Object.entries(files).map(([key, secret]) => [key, withCommand(cwd, `${name}/${key}`, secret)]);
    return [name, { ...rest, secrets: { files: Object.fromEntries(secrets) } }];
  });
  const input = JSON.stringify({ schema: 1, hosts: Object.fromEntries(entries) });
  const { stdout, stderr, exitCode } = await cli(["--from", "-"], { cwd, input });
  expect([stderr, exitCode]).toEqual(["", 0]);
  writeFileSync(join(cwd, "Taskfile.yml"), stdout);
  return cwd;
}

function withCommand(cwd: string, file: string, { content, ...secret }: Secret): object {
  if (secret.cmd !== undefined) return secret;
  writeFileSync(join(cwd, file), content ?? `content of ${file.slice(file.indexOf("/") + 1)}\n`);
  return { ...secret, cmd: `cat '${file}'` };
}

/** Deploys the secrets of web1; what it said, and how the step ended. */
export async function deploy(cwd: string, env: Record<string, string> = {}, args = ["web1:deploy-secrets"]) {
  const { stdout, stderr, exitCode } = await task(args, { cwd, env });
  const status = Number(stderr.match(/exit status (\d+)/)?.[1] ?? exitCode);
  return { output: stdout + stderr, status };
}

/** ssh's options of a run, beyond those that reach the hosts. */
export const withConfig = (options: string) => ({ LP_REMOTE_SSH_OPTS: `-F ${sshConfig} ${options}` });

let count = 0;
/**
 * Starts a command in a process group of its own, which goes on while the test does things to it; `processes` tells which of
 * all that it has started are there, `kill` ends them.
 */
export function launch(
  command: string,
  args: string[],
  { cwd, env, stdin = "ignore" }: { cwd: string; env: Record<string, string | undefined>; stdin?: "ignore" | "pipe" },
) {
  const marker = `LOLLYPOPS_TEST=${process.pid}.${++count}`;
  const [name = "", value = ""] = marker.split("=");
  const given = { ...withConfig(""), NO_COLOR: "1", [name]: value, ...env };
  const child = execa(command, args, { cwd, env: given, all: true, reject: false, detached: true, stdin });
  let said = "";
  child.all?.on("data", (data) => {
    said += data;
  });
  const processes = () => processesWith(marker);
  return { child, said: () => said, processes, kill: () => killAll(processes) };
}
/** All of these, and what they start meanwhile, end at once. */
async function killAll(processes: () => { pid: number }[]): Promise<void> {
  while (processes().length > 0) {
    for (const { pid } of processes()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {} // it ended meanwhile
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
/** A run that goes on. */
export type Running = ReturnType<typeof launch>;

/** A go-task, the same way. */
export const start = (cwd: string, args: string[], env: Record<string, string> = {}) =>
  launch("task", args, { cwd, env });

/** The processes here that have this in their environment. */
function processesWith(marker: string): { pid: number; name: string; parent: number }[] {
  return readdirSync("/proc").flatMap((entry) => {
    try {
      if (!/^\d+$/.test(entry) || !readFileSync(`/proc/${entry}/environ`, "latin1").split("\0").includes(marker))
        return [];
      const [, name = "", rest = ""] = readFileSync(`/proc/${entry}/stat`, "latin1").match(/\((.*)\) (.*)/s) ?? [];
      return rest.startsWith("Z") ? [] : [{ pid: Number(entry), name, parent: Number(rest.split(" ")[1]) }];
    } catch {
      return []; // it ended meanwhile
    }
  });
}

/** Until `done` is so; a minute is far more than it takes. */
export async function until(what: string, done: () => Promise<boolean> | boolean): Promise<void> {
  for (let left = 300; left > 0; left--) {
    if (await done()) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`after a minute still not so: ${what}`);
}

/** An executable file with this shell text. */
export function script(text: string): string {
  const file = join(temporaryDirectory(), "script");
  writeFileSync(file, `#!/bin/sh\n${text}\n`);
  chmodSync(file, 0o755);
  return file;
}

/** Makes a program of the host wait where it is called for the `nth` time with `having` in its words; `held` waits for that, `letGo` ends it. */
export async function hold(program: string, nth: number, having = ""): Promise<void> {
  const waiting = `#!/bin/sh
case "$*" in *'${having}'*) ;; *) exec /run/hold/real "$@" ;; esac
echo >>/run/hold/calls
if [ $(wc -l </run/hold/calls) = ${nth} ]; then : >/run/hold/at; while [ ! -e /run/hold/go ]; do sleep 0.1; done; fi
exec /run/hold/real "$@"`;
  const place = `/usr/bin/${program}`;
  await ssh(
    host,
    `rm -rf /run/hold; mkdir -p /run/hold && cp -p ${place} /run/hold/real && cat >/run/hold/${program} && chmod 755 /run/hold/${program} && mount --bind /run/hold/${program} ${place}`,
    { input: `${waiting}\n` },
  );
}
export const held = () => until("it is held", async () => (await ssh(host, "ls /run/hold")).includes("at\n"));
export async function letGo(): Promise<void> {
  await ssh(host, `[ ! -e /run/hold ] || : >/run/hold/go; ${restore}`);
}
const restore = "findmnt -rno TARGET | grep ^/usr/bin/ | xargs -r umount -l"; // it may be running

/** The host's processes that some login has left, its own apart. */
export const remoteProcesses = (at = host) => ssh(at, listProcesses);
const listProcesses =
  'own=$(cat /proc/self/cgroup); for p in /proc/[0-9]*; do case $(cat $p/cgroup 2>/dev/null) in "$own") ;; *session-*) tr "\\0" " " <$p/cmdline; echo;; esac; done';

/** A host that no deployment of secrets has touched. */
export async function emptyDir(): Promise<void> {
  const wipe = `${restore}; rm -rf /srv/* /run/hold /run/lollypops /var/lib/lollypops; mkdir -p ${dir}`;
  await ssh(host, `umount ${dir}/* /var/lib/lollypops 2>/dev/null; ${wipe}`);
}

/** What no deployment leaves behind, be it done or failed: files, values in memory, and processes. */
export async function expectNothingLeft(at = host): Promise<void> {
  if (at === host) await letGo();
  let files = "";
  await until("no process is left", async () => {
    const [processes, ...rest] = (await ssh(at, `${listProcesses}; echo ---; ${listFiles}`)).split("---\n");
    files = rest.join();
    return processes === "";
  });
  expect(files).toBe("");
}
const listFiles = `find / \\( -path /proc -o -path /sys -o -path /nix \\) -prune -o -name '.lollypops.*' -print
  ls -d /run/lollypops/* /run/lollypops /nix/var/nix/gcroots/lollypops-* 2>/dev/null
  ls /var/lib/lollypops 2>/dev/null | grep -vx secrets || :`;
