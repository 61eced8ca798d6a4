/** What goes wrong between here and a real host: nothing is left half done, and the step says what happened. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { deploy, dir, emptyDir, host, script, taskfile, until, withConfig } from "./faults.ts";
import {
  cli,
  cut,
  type Fleet,
  fleet,
  markNixos,
  mend,
  mustRun,
  type Result,
  ssh,
  sshConfig,
  task,
  temporaryDirectory,
  trySsh,
} from "./hosts.ts";

describe("the connection", () => {
  beforeEach(emptyDir);
  const files = { a: { path: `${dir}/a` } };

  test("the host's key is another: refused, with the words of ssh", async () => {
    const dirOfKey = temporaryDirectory();
    await mustRun("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dirOfKey, "key")]);
    const [kind, key] = readFileSync(join(dirOfKey, "key.pub"), "utf8").split(" ");
    const address = (await mustRun("ssh", ["-G", "-F", sshConfig, host])).stdout.match(/^hostname (.*)$/m)?.[1];
    writeFileSync(join(dirOfKey, "known_hosts"), `${host},${address} ${kind} ${key}\n`);
    const other = withConfig(`-o UserKnownHostsFile=${dirOfKey}/known_hosts`);
    const { output, status } = await deploy(await taskfile(files), other);
    expect(output).toContain("REMOTE HOST IDENTIFICATION HAS CHANGED");
    expect(output).toMatch(/web1: deploy-secrets unreachable: Host key verification failed/);
    expect(status).toBe(4);
  });

  test("no answer: 4, and unreachable in the report", async () => {
    const cwd = await taskfile(files);
    expect(await deploy(cwd, withConfig("-p 1"))).toMatchObject({ status: 4 });
    const { stdout, exitCode } = await task(["all:deploy-secrets"], { cwd, env: withConfig("-p 1") });
    expect(stdout).toContain("0 of 1 hosts with deploy-secrets done; NOT done:\n");
    expect(stdout).toMatch(/ {2}web1: unreachable at deploy-secrets: ssh: connect to host .*: Connection refused/);
    expect(exitCode).toBe(201);
  });
});

describe("activation", () => {
  let made: Fleet;
  const env = { LP_REMOTE_SSH_OPTS: `-F ${sshConfig}`, NO_COLOR: "1" };

  beforeAll(async () => {
    made = await fleet({ all: { lollypops: { secrets: { files: { greeting: { cmd: "echo hello" } } } } } });
    await markNixos(host, made.dir, "web1");
    const { stdout } = await cli([], { cwd: made.dir });
    writeFileSync(join(made.dir, "Taskfile.yml"), stdout);
    for (const step of ["deploy-flake", "deploy-secrets"])
      expect(await task([`web1:${step}`], { cwd: made.dir })).toMatchObject({ exitCode: 0 });
  });
  afterEach(async () => {
    await mend(1);
    await go();
    await until("the unit has ended", async () => (await unit()) !== "active\n");
    expect(await ssh(host, "ls -d /nix/var/nix/gcroots/lollypops-* 2>/dev/null || :")).toBe("");
  });

  const current = () => ssh(host, "readlink -f /run/current-system");
  const unit = () => ssh(host, "systemctl is-active nixos-rebuild-switch-to-configuration || :");
  const hold = () => ssh(host, "mkdir -p /run/standin && touch /run/standin/hang");
  const go = () => ssh(host, "rm -f /run/standin/hang");
  const locked =
    "[ -e /run/nixos/switch-to-configuration.lock ] && ! flock -n /run/nixos/switch-to-configuration.lock true";
  const held = () => until("the activation has begun", async () => (await trySsh(host, locked)).exitCode === 0);

  const expectSwitched = ({ stdout, exitCode }: Result) =>
    expect([stdout.match(/rebuild: [a-z]+/)?.[0], exitCode]).toEqual(["rebuild: switched", 0]);

  /** A rebuild that goes on while the test does things to it, in a process group of its own. */
  function rebuild(args: string[], more: Record<string, string> = {}) {
    const program = "task";
    const child = execa(program, ["web1:rebuild", ...args], {
      cwd: made.dir,
      env: { ...env, ...more },
      all: true,
      reject: false,
      detached: true,
      stdin: "ignore",
    });
    let said = "";
    child.all?.on("data", (data) => {
      said += data;
    });
    return { child, said: () => said };
  }

  test("the control machine dies: the activation goes on, and the next run finds it done", async () => {
    await hold();
    const before = await current();
    const { child } = rebuild([]);
    await held();
    process.kill(-(child.pid as number), "SIGKILL");
    await child;
    expect(await current()).toBe(before);
    await go();
    await until("the new system runs", async () => (await current()) !== before);
    await until("the unit has ended", async () => (await unit()) !== "active\n");
    const again = await task(["web1:rebuild"], { cwd: made.dir });
    expect(again.stdout).toContain("rebuild: unchanged, /nix/store/");
    expect(await ssh(host, "readlink -f /nix/var/nix/profiles/system")).toBe(await current());

    // What is left in memory goes with the next activation, once nobody can come back for it.
    const left = (await ssh(host, "ls -d /run/lollypops/*")).trim();
    await ssh(
      host,
      `touch -d '2 hours ago' ${left}; ln -s ${(await current()).trim()} /nix/var/nix/gcroots/lollypops-0123`,
    );
    expect(await task(["web1:rebuild", "REBUILD_ACTION=test"], { cwd: made.dir })).toMatchObject({ exitCode: 0 });
    expect(await ssh(host, "ls -d /run/lollypops 2>/dev/null || :")).toBe("");
  });

  test("ssh is killed: the step finds it again, and tells how it ended", async () => {
    const pid = join(temporaryDirectory(), "pid");
    const command = script(`echo $$ >${pid}.new; mv ${pid}.new ${pid}; exec ssh "$@"`);
    await hold();
    const { child, said } = rebuild(["REBUILD_ACTION=test"], { LP_REMOTE_COMMAND: command });
    await held();
    process.kill(Number(readFileSync(pid, "utf8")), "SIGKILL");
    await until("it says so", () => said().includes("the connection was lost; the activation goes on"));
    await go();
    expect(await child).toMatchObject({ exitCode: 0 });
    expect(said()).toMatch(/rebuild: \/nix\/store\/[^ ]* runs until the next boot|rebuild: .*runs until the next boot/);
    expect(existsSync(pid)).toBe(true);
  });

  test("the target is cut off and comes back: the same", async () => {
    const options = "-o ServerAliveInterval=1 -o ServerAliveCountMax=1 -o ConnectTimeout=1";
    await hold();
    const { child, said } = rebuild(["REBUILD_ACTION=test"], withConfig(options));
    await held();
    await cut(1);
    await until("it says so", () => said().includes("the connection was lost; the activation goes on"));
    await mend(1);
    await go();
    expect(await child).toMatchObject({ exitCode: 0 });
    expect(said()).toContain("runs until the next boot");
  });

  test("another one is started meanwhile: the second is told, and the first is left alone", async () => {
    await hold();
    const first = rebuild(["REBUILD_ACTION=test"]);
    await held();
    const second = await task(["web1:rebuild", "REBUILD_ACTION=test"], { cwd: made.dir });
    expect(second.stdout + second.stderr).toMatch(/web1: rebuild failed: .*does another one run\?/);
    expect(second.exitCode).toBe(201);
    await go();
    expect(await first.child).toMatchObject({ exitCode: 0 });
  });

  test("not as root and without sudo", async () => {
    const { stdout, stderr } = await task(["web1:rebuild", "LP_REMOTE_USER=ops"], { cwd: made.dir });
    expect(stdout + stderr).toContain(
      "web1: rebuild failed: activating needs root: set deployment.sudo.enable, or deploy as root",
    );
  });

  test("the activation dies without a word: unknown, and the next one does not take it for done", async () => {
    await hold();
    const { child, said } = rebuild(["REBUILD_ACTION=test"]);
    await held();
    await ssh(host, "systemctl kill --signal=KILL nixos-rebuild-switch-to-configuration");
    await child;
    expect(said()).toContain("web1: rebuild unknown: the activation ended without a word; running: /nix/store/");
    expect(said()).toContain("exit status 5");
    await go();
    expectSwitched(await task(["web1:rebuild"], { cwd: made.dir }));
  });
});
