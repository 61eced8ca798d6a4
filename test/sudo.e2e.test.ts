/** A host where nobody logs in as root: sudo with a password and without one, under every login shell. */
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { asRoot, deploy, expectNothingLeft, host, taskfile, taskfileOf } from "./faults.ts";
import { cli, fleet, markNixos, mustRun, run, ssh, sshConfig, task, temporaryDirectory } from "./hosts.ts";

const password = `word-of-ops2 $w '"\\%s; `.trimEnd();
const looksLikeIt = "word-of-op[s]2"; // does not match itself
const asOps2 = (command: string, name = host) => ({
  ssh: { host: name, user: "ops2" },
  sudo: { enable: true, "password-command": command },
});
const file = join(temporaryDirectory(), "password");
const tells = `cat '${file}'`;
const secret = "not a \0 line\nof text";

/** What sudo lets ops2 do on all hosts. */
const sudoers = (text: string, name = host) =>
  ssh(name, "install -m 440 /dev/stdin /etc/sudoers.d/ops2", { input: `${text}\n` });
const asking = "ops2 ALL=(ALL) ALL";

async function addOps2(name: string): Promise<void> {
  const add = `id ops2 >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --groups nix-users ops2
chpasswd; rm -rf /home/ops2/.ssh; cp -Rp /home/ops/.ssh /home/ops2; chown -R ops2: /home/ops2; loginctl enable-linger ops2`;
  await ssh(name, add, { input: `ops2:${password}\n` });
  await sudoers(asking, name);
}
/** How often sudo was given a wrong password. */
const failures = async (name = host) =>
  Number(
    await ssh(
      name,
      "journalctl -q --sync; journalctl -q -o cat _COMM=sudo | grep -c 'auth.*authentication failure' || :",
    ),
  );
const logins = async () =>
  Number(await ssh(host, "journalctl -q --sync; journalctl -q -o cat | grep -c 'Accepted publickey for ops2' || :"));

beforeAll(async () => {
  writeFileSync(file, `${password}\n`);
  await Promise.all([addOps2("pop1"), addOps2("pop2")]);
});
beforeEach(async () => {
  await ssh(host, "rm -rf /srv/* /var/lib/lollypops/* /run/sudo/ts/*");
  await sudoers(asking);
});

/** Brings one secret as ops2; what was said, and what is on the host then. */
async function bring(command = tells) {
  const cwd = await taskfile({ a: { path: "/srv/a", cmd: "printf 'not a \\0 line\\nof text'" } }, asOps2(command));
  const { output, status } = await deploy(cwd);
  return { output, status, there: await ssh(host, "cat /srv/a 2>/dev/null || :") };
}

describe("the password of sudo", () => {
  const good = { status: 0, there: secret };
  it.each([
    ["is asked for each time", "Defaults timestamp_timeout=0"],
    ["is remembered for the whole machine", "Defaults timestamp_type=global"],
    ["may be tried once", "Defaults passwd_tries=1"],
    ["comes after a lecture", "Defaults lecture=always, timestamp_timeout=0"],
    ["is that of a terminal of its own", "Defaults use_pty"],
  ])("%s", async (_, defaults) => {
    await sudoers(`${asking}\n${defaults}`);
    const before = await failures();
    expect(await bring()).toMatchObject(good);
    expect(await failures()).toBe(before);
  });

  it("is needed for nothing but sh", async () => {
    await sudoers("ops2 ALL=(root) /usr/bin/sh");
    expect(await bring()).toMatchObject(good);
  });

  it.each([
    ["not needed at all", "ops2 ALL=(ALL) NOPASSWD: ALL", ":"],
    ["remembered from before", `${asking}\nDefaults timestamp_type=global`, "cat | sudo -S -p '' -v"],
  ])("is %s: it is no part of the secret", async (_, text, before) => {
    await sudoers(text);
    await ssh(host, before, { user: "ops2", input: `${password}\n` });
    expect(await bring()).toMatchObject(good);
    expect(await bring("echo wrong")).toMatchObject(good);
  });

  it("is wrong: one try, and no program of ours is run", async () => {
    const before = await failures();
    const { output, status, there } = await bring("echo wrong");
    expect(output).toMatch(/web1: deploy-secrets failed: sudo did not take the password; nothing was sent: /);
    expect([status, there]).toEqual([1, ""]);
    expect(await failures()).toBe(before + 1);
    const asked = await ssh(host, "journalctl -q -o cat _COMM=sudo | grep COMMAND= | tail -1");
    expect(asked).toMatch(/1 incorrect password attempt .* COMMAND=\/usr\/bin\/sh -c :\n$/);
    await expectNothingLeft();
  });

  it.each([
    ["fails", "echo no; exit 3", "ended with exit 3"],
    ["prints nothing", ":", "printed nothing"],
    ["prints two lines", "echo one; echo two", "printed more than one line"],
  ])("has a command that %s: nobody logs in", async (_, command, words) => {
    const before = await logins();
    const { output, status } = await bring(command);
    expect(output).toContain(
      `web1: deploy-secrets failed: deployment.sudo.password-command ${words}; nothing was sent\n`,
    );
    expect(status).toBe(1);
    expect(await logins()).toBe(before);
  });

  it("is not tried on a second host of the run once one refused it", async () => {
    const files = { a: { path: "/srv/a" } };
    const cwd = await taskfileOf({
      web1: { deployment: asOps2("echo wrong"), files },
      web2: { deployment: asOps2("echo wrong", "pop2"), files },
    });
    const before = (await failures()) + (await failures("pop2"));
    const { stdout, exitCode } = await task(["-C", "1", "all:deploy-secrets"], { cwd });
    expect(stdout).toContain("0 of 2 hosts with deploy-secrets done; NOT done: 2 failed");
    expect(stdout).toMatch(/: failed at deploy-secrets: sudo did not take the password/);
    expect(stdout).toMatch(
      /: failed at deploy-secrets: sudo refused this password on another host of this run; it is not tried again/,
    );
    expect(exitCode).toBe(201);
    expect((await failures()) + (await failures("pop2"))).toBe(before + 1);
  });
});

describe("without a password", () => {
  const asOps = { ssh: { host, user: "ops" } };

  it("and without sudo, only root writes secrets", async () => {
    const { output, status } = await deploy(await taskfile({ a: { path: "/srv/a" } }, asOps));
    expect(output).toContain(
      "web1: deploy-secrets failed: writing secrets needs root: set deployment.sudo.enable, or deploy as root",
    );
    expect(status).toBe(1);
  });

  it.each([
    ["asks for one", {}, /: sudo: a password is required/],
    ["is not there", { LP_REMOTE_SUDO_COMMAND: "no-sudo-here" }, /.*no-sudo-here: command not found/],
  ])("sudo %s: nothing is written", async (_, env, words) => {
    const cwd = await taskfile({ a: { path: "/srv/a" } }, { ssh: { host, user: "ops2" }, sudo: { enable: true } });
    const { output, status } = await deploy(cwd, env);
    expect(output).toMatch(new RegExp(`web1: deploy-secrets failed${words.source}`));
    expect(status).toBe(1);
    expect(await ssh(host, "ls -A /srv")).toBe("");
  });
});

describe("a whole deployment with a password", () => {
  /** Notes what the processes of this machine show, which are also those of the hosts, until the file `stop` is there. */
  const watch = (stop: string) =>
    `while [ ! -e ${stop} ]; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; done 2>/dev/null | tr '\\0' '\\n' | grep -aoE '${looksLikeIt}|^sud[o]$|^LOLLYPOPS_SE[T]' | sort -u`;

  it.each([
    ["the host evaluates", false],
    ["this machine evaluates", true],
  ])("%s: it works, and the password is nowhere", async (_, here) => {
    const made = await fleet();
    await markNixos(host, made.dir, "web1");
    const deployment = { ...asOps2(tells), "local-evaluation": here };
    await made.change({ hosts: { web1: { lollypops: { deployment } }, web2: null, db1: null } });
    writeFileSync(join(made.dir, "Taskfile.yml"), (await cli([], { cwd: made.dir })).stdout);
    const own = temporaryDirectory();
    const stop = join(own, "stop");
    await ssh(host, "rm -rf /var/src; touch /srv/begin");
    const seen = run("sh", ["-c", watch(stop)]);
    const env = { XDG_RUNTIME_DIR: own, TMPDIR: own, XDG_CACHE_HOME: own };
    const { stdout, stderr, exitCode } = await task(["-v", "web1"], { cwd: made.dir, env });
    const again = await task(["web1"], { cwd: made.dir, env });
    writeFileSync(stop, "");

    expect(stdout).toMatch(
      /deploy-flake: \/var\/src\/lollypops\/flake -> .*deploy-secrets: 3 changed, .*rebuild: switched to/s,
    );
    expect([exitCode, again.exitCode]).toEqual([0, 0]);
    expect(again.stdout).toContain("rebuild: unchanged");
    expect(stdout + stderr + again.stdout + again.stderr).not.toMatch(looksLikeIt);
    expect((await seen).stdout).toBe("LOLLYPOPS_SET\nsudo\n");
    expect((await run("grep", ["-rl", looksLikeIt, own, made.dir])).stdout).toBe("");
    const files = `find / -xdev -newer /srv/begin -type f ! -path '/proc/*' ! -path '/sys/*'; find /run /tmp /dev/shm -type f`;
    const journal = "journalctl -q --sync; journalctl -q -o export";
    expect(
      await ssh(
        host,
        `{ ${files}; } | tr '\\n' '\\0' | xargs -0 grep -alE '${looksLikeIt}' 2>/dev/null; { ${journal}; } | grep -ac '${looksLikeIt}' || :`,
      ),
    ).toBe("0\n");
  });
});

describe("every login shell", () => {
  beforeAll(async () => {
    const debian = join(dirname(sshConfig), host, "root"); // the host itself reaches no registry
    const install =
      "command -v fish zsh >/dev/null || { apt-get update; apt-get install -y --no-install-recommends fish zsh; }";
    await mustRun("chroot", [debian, "sh", "-ec", install], { env: { DEBIAN_FRONTEND: "noninteractive" } });
    await sudoers(`${asking}\nDefaults timestamp_timeout=0`);
  });
  afterEach(async () => {
    await ssh(host, "usermod -s /bin/bash root; usermod -s /bin/bash ops; usermod -s /bin/bash ops2");
  });
  const accounts = {
    root: asRoot,
    ops: { ssh: { host, user: "ops" }, sudo: { enable: true } },
    ops2: asOps2(tells),
  };
  const shells = ["dash", "bash", "fish", "zsh"];

  it.each(
    shells.flatMap((shell) => Object.entries(accounts).map(([user, deployment]) => [shell, user, deployment] as const)),
  )("%s, of %s", async (shell, user, deployment) => {
    await ssh(host, `usermod -s "$(command -v ${shell})" ${user}`);
    const cwd = await taskfile(
      {
        a: { path: "/srv/a 'b'", cmd: "printf 'not a \\0 line\\nof text'" },
        b: { path: "/srv/b", owner: "games", content: "".padEnd(100_000, "x") },
      },
      deployment,
    );
    expect(await deploy(cwd)).toMatchObject({ status: 0 });
    expect(await ssh(host, `cat "/srv/a 'b'"; stat -c %U:%s /srv/b`)).toBe(`${secret}games:100000\n`);
    expect((await deploy(cwd)).output).toContain("0 changed, 2 unchanged");
  });
});
