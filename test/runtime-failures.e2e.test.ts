/** What goes wrong between here and a real host: nothing is left half done, and the step says what happened. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
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

const host = "pop1";
const asRoot = { host, user: "root" };
const withConfig = (options: string) => ({ LP_REMOTE_SSH_OPTS: `-F ${sshConfig} ${options}` });

/** Until `done` is so; a minute is far more than it takes. */
async function until(what: string, done: () => Promise<boolean> | boolean): Promise<void> {
  for (let left = 300; left > 0; left--) {
    if (await done()) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`after a minute still not so: ${what}`);
}

function script(text: string): string {
  const file = join(temporaryDirectory(), "script");
  writeFileSync(file, `#!/bin/sh\n${text}\n`);
  chmodSync(file, 0o755);
  return file;
}

describe("secrets", () => {
  type Files = Record<string, { path: string; content?: string; owner?: string; mode?: string }>;
  const dir = "/srv/secrets";

  /** A directory with a Taskfile that brings these to the host; content is what a file beside it holds. */
  async function taskfile(files: Files, deployment: object = { ssh: asRoot }): Promise<string> {
    const cwd = temporaryDirectory();
    mkdirSync(join(cwd, "contents"));
    const secrets = Object.entries(files).map(([name, { content = `content of ${name}\n`, ...rest }]) => {
      writeFileSync(join(cwd, "contents", name), content);
      return [name, { ...rest, cmd: `cat contents/${name}` }];
    });
    const input = { schema: 1, hosts: { web1: { deployment, secrets: { files: Object.fromEntries(secrets) } } } };
    const { stdout, stderr, exitCode } = await cli(["--from", "-"], { cwd, input: JSON.stringify(input) });
    expect([stderr, exitCode]).toEqual(["", 0]);
    writeFileSync(join(cwd, "Taskfile.yml"), stdout);
    return cwd;
  }
  /** Deploys; what it said, and how it ended. */
  async function deploy(cwd: string, env: Record<string, string> = {}) {
    const { stdout, stderr, exitCode } = await task(["web1:deploy-secrets"], { cwd, env });
    const status = Number(stderr.match(/exit status (\d+)/)?.[1] ?? exitCode);
    return { output: stdout + stderr, status };
  }
  const look = () => ssh(host, `cd ${dir} && find . -printf '%P %u:%g %m %i %s\\n' | sort`);
  const leftovers = () =>
    ssh(
      host,
      "find / -xdev -name '.lollypops.*'; find /srv -name '.lollypops.*'; ls -d /run/lollypops 2>/dev/null || :",
    );

  beforeAll(async () => {
    await ssh(host, "rm -rf /run/lollypops");
  });
  beforeEach(async () => {
    await ssh(host, `umount ${dir}/* 2>/dev/null; rm -rf /srv/*; mkdir -p ${dir}`);
  });
  afterEach(async () => {
    expect(await leftovers()).toBe("");
  });

  test("ssh is killed in mid-stream: the old ones stay whole, and the next run brings the new", async () => {
    const old = await taskfile({ a: { path: `${dir}/a` }, big: { path: `${dir}/big` } });
    expect(await deploy(old)).toMatchObject({ status: 0 });
    const before = await look();
    const big = "0123456789abcdef".repeat(1 << 16);
    const cwd = await taskfile({ a: { path: `${dir}/a`, content: "new" }, big: { path: `${dir}/big`, content: big } });
    const killer = script('{ dd bs=1 count=100000 2>/dev/null; kill -9 "$PPID"; } | busybox nc "$1" "$2"');
    const killed = await deploy(cwd, withConfig(`-o 'ProxyCommand=${killer} %h %p'`));
    expect(killed.output).toMatch(/web1: deploy-secrets failed: (the connection ended early: )?Killed/);
    expect(killed.status).toBe(1);
    expect(await look()).toBe(before);
    expect((await deploy(cwd)).output).toContain("2 changed, 0 unchanged");
    expect(await ssh(host, `cat ${dir}/a; wc -c <${dir}/big`)).toBe(`new${big.length}\n`);
  });

  test("the disk is full: nothing is changed anywhere", async () => {
    await ssh(host, `mkdir ${dir}/full && mount -t tmpfs -o size=200k tmpfs ${dir}/full`);
    const paths = { a: { path: `${dir}/full/a` }, other: { path: `${dir}/other` } };
    expect(await deploy(await taskfile(paths))).toMatchObject({ status: 0 });
    const before = await look();
    const more = { a: { ...paths.a, content: "new" }, other: { ...paths.other, content: "new" } };
    const cwd = await taskfile({ ...more, b: { path: `${dir}/full/b`, content: "x".repeat(300_000) } });
    const { output, status } = await deploy(cwd);
    expect(output).toMatch(/web1: deploy-secrets failed: no room in \/srv\/secrets\/full/);
    expect(status).toBe(1);
    expect(await look()).toBe(before);
    await ssh(host, `umount ${dir}/full`);
  });

  test.each([
    ["a directory", "mkdir b", "b: /srv/secrets/b is a directory"],
    [
      "a mount point",
      "touch b; mount --bind /etc/hostname b",
      "b: /srv/secrets/b is a mount point; set the path to its source",
    ],
  ])("%s stands where the file should be", async (_, command, words) => {
    await ssh(host, `cd ${dir} && ${command}`);
    const before = await look();
    const { output, status } = await deploy(await taskfile({ a: { path: `${dir}/a` }, b: { path: `${dir}/b` } }));
    expect(output).toContain(`web1: deploy-secrets failed: ${words}`);
    expect(status).toBe(1);
    expect(await look()).toBe(before);
    await ssh(host, `umount ${dir}/b 2>/dev/null || :`);
  });

  test.each([
    ["a symbolic link is among the parents", "ln -s /var/tmp l", "a symbolic link is among the parents"],
    ["a dangling one", "ln -s /nowhere l", "a symbolic link is among the parents"],
    [
      "a parent belongs to somebody else",
      "mkdir -p l/d; chown games l",
      "a parent directory can be changed by others than root",
    ],
    [
      "anybody may write to a parent",
      "mkdir -p l/d; chmod 777 l",
      "a parent directory can be changed by others than root",
    ],
    ["a file stands among the parents", "touch l", "cannot make its directory /srv/secrets/l/d"],
  ])("%s: refused", async (_, command, words) => {
    await ssh(host, `cd ${dir} && ${command}`);
    const before = await look();
    const { output, status } = await deploy(await taskfile({ a: { path: `${dir}/a` }, b: { path: `${dir}/l/d/b` } }));
    expect(output).toMatch(/web1: deploy-secrets failed: b: /);
    if (!words.startsWith("cannot")) expect(output).toContain(words);
    expect(status).toBe(1);
    expect(await look()).toBe(before);
  });

  test("a symbolic link at the place is replaced, and what it leads to is left alone", async () => {
    await ssh(host, `echo mine >/srv/mine; ln -s /srv/mine ${dir}/a; ln -s /nowhere ${dir}/b; ln -s /etc ${dir}/c`);
    const paths = Object.fromEntries(["a", "b", "c"].map((name) => [name, { path: `${dir}/${name}` }]));
    expect((await deploy(await taskfile(paths))).output).toContain("3 changed, 0 unchanged");
    expect(await ssh(host, `find ${dir} -type l; cat /srv/mine ${dir}/a ${dir}/c`)).toBe(
      "mine\ncontent of a\ncontent of c\n",
    );
  });

  test("its owner does not exist yet: only root can read it, until the owner is there", async () => {
    const cwd = await taskfile({ a: { path: `${dir}/a`, owner: "latecomer", mode: "0444" }, b: { path: `${dir}/b` } });
    const first = await deploy(cwd);
    expect(first.output).toContain("a: latecomer does not exist yet; only root can read it until a rebuild changes that");
    expect(first.status).toBe(0);
    const stat = () => ssh(host, `stat -c '%U:%G %a' ${dir}/a`);
    expect(await stat()).toBe("root:root 400\n");
    await ssh(host, "useradd latecomer");
    try {
      expect((await deploy(cwd)).output).toContain("1 changed, 1 unchanged");
      expect(await stat()).toBe("latecomer:latecomer 444\n");
    } finally {
      await ssh(host, "userdel latecomer");
    }
  });

  test("not as root and without sudo", async () => {
    const { output, status } = await deploy(
      await taskfile({ a: { path: `${dir}/a` } }, { ssh: { host, user: "ops" } }),
    );
    expect(output).toContain(
      "web1: deploy-secrets failed: writing secrets needs root: set deployment.sudo.enable, or deploy as root",
    );
    expect(status).toBe(1);
  });

  test("sudo refuses, or is not there", async () => {
    const cwd = await taskfile({ a: { path: `${dir}/a` } }, { ssh: { host, user: "ops" }, sudo: { enable: true } });
    await ssh(host, "mv /etc/sudoers.d/ops /root/sudoers-ops");
    try {
      const refused = await deploy(cwd);
      expect(refused.output).toMatch(/web1: deploy-secrets failed: sudo: a password is required/);
      expect(refused.status).toBe(1);
    } finally {
      await ssh(host, "mv /root/sudoers-ops /etc/sudoers.d/ops");
    }
    const missing = await deploy(cwd, { LP_REMOTE_SUDO_COMMAND: "no-sudo-here" });
    expect(missing.output).toMatch(/web1: deploy-secrets failed: .*no-sudo-here: command not found/);
    expect(missing.status).toBe(1);
  });

  test("the host's key is another: refused, with the words of ssh", async () => {
    const cwd = await taskfile({ a: { path: `${dir}/a` } });
    const dirOfKey = temporaryDirectory();
    await mustRun("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dirOfKey, "key")]);
    const [kind, key] = readFileSync(join(dirOfKey, "key.pub"), "utf8").split(" ");
    const address = (await mustRun("ssh", ["-G", "-F", sshConfig, host])).stdout.match(/^hostname (.*)$/m)?.[1];
    writeFileSync(join(dirOfKey, "known_hosts"), `${host},${address} ${kind} ${key}\n`);
    const { output, status } = await deploy(cwd, withConfig(`-o UserKnownHostsFile=${dirOfKey}/known_hosts`));
    expect(output).toContain("REMOTE HOST IDENTIFICATION HAS CHANGED");
    expect(output).toMatch(/web1: deploy-secrets unreachable: Host key verification failed/);
    expect(status).toBe(4);
  });

  test("no answer: 4, and unreachable in the report", async () => {
    const cwd = await taskfile({ a: { path: `${dir}/a` } });
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
