/** Helpers of the guard's tests: a fleet whose web1 gets the system that a test wants, and what became of its host. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect } from "vitest";
import { start, until } from "./faults.ts";
import {
  cli,
  fleet,
  type HostSettings,
  markNixos,
  mend,
  mustRun,
  restart,
  run,
  set,
  ssh,
  sshConfig,
  trySsh,
} from "./hosts.ts";

/** The host that is web1. */
export const host = "pop1";

/** One deployment: the new system (its version is `new`), flags of the runtime's call, health checks, and go-task's words. */
export type Deployment = {
  system?: HostSettings;
  flags?: string;
  checks?: Record<string, string>[];
  args?: string[];
  env?: Record<string, string>;
};

export type GuardFleet = Awaited<ReturnType<typeof guardFleet>>;

/** ssh's options of a run that notices a dead line at once. */
const hasty = `-F ${sshConfig} -o ServerAliveInterval=1 -o ServerAliveCountMax=2 -o ConnectTimeout=2`;

async function guardFleet() {
  const secrets = { files: { greeting: null, "api token": null, "tls/key.pem": null } };
  const place = await fleet({ hosts: { web1: { lollypops: { tasks: ["deploy-flake", "rebuild"], secrets } } } });
  const plain = await cli([], { cwd: place.dir });
  expect([plain.exitCode, plain.stderr]).toEqual([0, ""]);

  let count = 0;

  /** Starts a deployment, and goes on. */
  async function begin({ system = {}, flags = "", checks = [], args = [], env = {} }: Deployment = {}) {
    const units = { "hello.service": null, ...system.units };
    const settings = { hosts: { web1: { version: "new", ...system, units } } };
    const taskfile = withFlags(plain.stdout, `--confirm-timeout 20 ${flags}`, checks);
    await place.change(settings, { "Taskfile.yml": taskfile, version: `${count++}` }); // a flake that is not there yet
    return again({ args, env });
  }
  /** Starts the same once more. */
  function again({ args = [], env = {} }: Deployment = {}) {
    return start(place.dir, ["deploy", ...args, "--", "web1"], { LP_REMOTE_SSH_OPTS: hasty, ...env });
  }
  /** Deploys, and tells what came of it. */
  const deploy = async (deployment: Deployment = {}) => ended(await begin(deployment));
  /** A host right after its installation: it runs, boots and has `0`, in generation 1. */
  async function renew(): Promise<void> {
    await mend(1);
    if ((await trySsh(host, "true")).exitCode !== 0) await restart(1);
    await ssh(host, letGo);
    await markNixos(host, place.dir, "web1");
  }
  return { dir: place.dir, begin, again, deploy, renew };
}

/** The fleet of a test file. */
export let made: GuardFleet;

/** Before the tests of a file: a fleet; before each, a host right after its installation. */
export function prepare(): void {
  beforeAll(async () => {
    made = await guardFleet();
  });
  beforeEach(() => made.renew());
  afterAll(() => made.renew());
}

// ---- what most tests end with: systems as `state` tells them, and the report
export const old = "0, 0, 0, 1";
export const kept = "new, new, new, 1 2";
export const deployed = "1 of 1 hosts deployed";
export const ends = (status: number, report: string, state: string) => ({ status, report, state });

/** Deploys; how the step ended, the report, and the systems that run, boot and are the profile's. */
export async function outcome(deployment: Deployment = {}) {
  const { status, report, output } = await made.deploy(deployment);
  return { status, report, state: await state(), output };
}

/** The Taskfile with these words more in web1's call of `rebuild`. */
function withFlags(text: string, flags: string, checks: Record<string, string>[]): string {
  const words = checks.flatMap((check) => Object.entries(check).map(([key, value]) => `${key}=${quoted(value)}`));
  const call = /^( *- &web1-rebuild) (.*)$/m;
  expect(text).toMatch(call);
  return text.replace(call, (_, key, line) => `${key} >-\n        ${[line, flags, "--", ...words].join(" ")}`);
}
const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** What came of a run: all it printed, how the step ended, and what the report says; a system is told by its version, as <new>. */
export async function ended(running: ReturnType<typeof start>) {
  await running.child;
  const output = running.said().replaceAll(/\/nix\/store\/[a-z0-9]{32}-nixos-system-web1-([^\s/;:,)]+)/g, "<$1>");
  const status = Number(output.match(/exit status (\d+)/)?.[1] ?? 0);
  const report = output.match(/^ {2}(web1: .*)/m)?.[1] ?? output.match(/^(\d of 1 .*)/m)?.[1] ?? "";
  return { output, status, report };
}

/** The systems that run, boot and are the profile's, and all generations, as in `new, new, new, 1 2`. */
export async function state(at = host, name = "web1"): Promise<string> {
  const version = (path: string) => `readlink -f ${path} | sed "s/.*-nixos-system-${name}-//"`;
  const entry = '/boot/loader/entries/"$(sed -n "s/^default //p" /boot/loader/loader.conf)"';
  const lines = await ssh(
    at,
    `${version("/run/current-system")}; sed -n "s|^options init=.*-nixos-system-${name}-\\(.*\\)/init|\\1|p" ${entry}
     ${version("/nix/var/nix/profiles/system")}; cd /nix/var/nix/profiles; echo system-*-link | sed "s/system-//g; s/-link//g"`,
  );
  return lines.trim().split("\n").join(", ");
}

/** Nothing of ours stays behind on the host: in /run, as a unit, as a root of the garbage collector; nor a lock or a half-done activation. */
export async function expectNothingLeft(at = host): Promise<void> {
  await until("the unit is gone", async () => !(await units(at)).includes("nixos-rebuild"));
  expect(await ssh(at, leftovers)).toBe("");
  expect(await units(at)).toBe("");
}
const units = (at = host) => ssh(at, "systemctl list-units --all --plain --no-legend 'lollypops-*' 'nixos-rebuild-*'");
const leftovers = `ls -Ad /run/lollypops /run/lollypops/* /nix/var/nix/gcroots/lollypops-* /run/nixos/*-list 2>/dev/null
  [ ! -e /run/nixos/switch-to-configuration.lock ] || flock -n /run/nixos/switch-to-configuration.lock true || echo locked
  [ ! -d /run/systemd/system/ssh.service.d ] || echo sshd; ip route show type blackhole`;

/** Where nobody came back for the result, it goes by a timer; this does not wait for it. */
export async function expectTimerTidies(): Promise<void> {
  await until(
    "there is a result",
    async () => (await ssh(host, "cat /run/lollypops/*/result 2>/dev/null || :")) !== "",
  );
  await until("the unit is gone", async () => !(await units()).includes("nixos-rebuild"));
  await ssh(
    host,
    "for t in $(systemctl list-units --plain --no-legend 'lollypops-*.timer' | cut -d' ' -f1); do systemctl start ${t%.timer}.service; systemctl stop $t; done",
  );
  await expectNothingLeft();
}

// ---- units of a new system that do harm, and undo it when an old one stops them
const unit = (begin: string, end: string) =>
  `[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '${begin}'\nExecStop=/bin/sh -c '${end}'\n`;

const address = (last: number) => `10.${90 + Number(set)}.0.${last}`;
const become = (last: number) => `ip addr flush dev eth0; ip addr add ${address(last)}/24 dev eth0`;
const dropIn = "/run/systemd/system/ssh.service.d";

export const harm = {
  blocks: unit(`ip route replace blackhole ${address(1)}/32`, `ip route del blackhole ${address(1)}/32`),
  /** As `pop1-moved` of ssh's configuration. */
  moves: unit(become(111), become(11)),
  stopsSshd: unit("systemctl stop ssh", "systemctl start ssh"),
  sshdOnPort2222: unit(
    `mkdir -p ${dropIn}; printf "[Service]\\nExecStart=\\nExecStart=/usr/sbin/sshd -D -p 2222\\n" >${dropIn}/port.conf; systemctl daemon-reload; systemctl restart ssh`,
    `rm -r ${dropIn}; systemctl daemon-reload; systemctl restart ssh`,
  ),
};

// ---- what waits, on the host, until `letGo`
const lock = "/run/nixos/switch-to-configuration.lock";
const stop = "mkdir -p /run/standin && touch /run/standin/hang";
/** The activation, where it would activate. */
export const holdActivation = async (at = host) => {
  await ssh(at, stop);
};
export const activationHeld = (at = host) =>
  until("the activation has begun", async () => {
    return (await ssh(at, `[ -e ${lock} ] && ! flock -n ${lock} true && echo held || :`)) !== "";
  });
/** A program of nix, where it is called with this word. */
export async function holdNix(program: string, word: string, at = host): Promise<void> {
  const text = `#!/bin/sh
case " $* " in *" ${word} "*) while [ -e /run/standin/hang ]; do touch /run/standin/held; sleep 0.1; done ;; esac
exec /usr/bin/${program} "$@"`;
  const place = `/usr/local/bin/${program}`;
  await ssh(at, `${stop}; rm -f /run/standin/held; cat >${place}; chmod 755 ${place}`, { input: `${text}\n` });
}
export const nixHeld = (at = host) =>
  until("nix is called", async () => (await ssh(at, "ls /run/standin")).includes("held"));
export const letGo = "rm -f /run/standin/* /usr/local/bin/nix*";

/** Runs shell text on the host past its network, whatever it exits with. */
export async function inside(command: string): Promise<string> {
  const { stdout } = await run("pgrep", ["-P", readFileSync(join(disk, "pid"), "utf8").trim()]);
  return (await run("nsenter", ["-t", stdout.trim(), "-m", "-p", "sh", "-c", command])).stdout;
}

/** The host's disk takes nothing more until `freeDisk`. */
export async function fillDisk(): Promise<void> {
  const { stdout } = await mustRun("df", ["--output=used", "-k", disk]);
  await mustRun("mount", ["-o", `remount,size=${stdout.split("\n")[1]?.trim()}k`, disk]);
}
export async function freeDisk(): Promise<void> {
  await mustRun("mount", ["-o", "remount,size=2g", disk]);
}
const disk = join(sshConfig, `../${host}`);
