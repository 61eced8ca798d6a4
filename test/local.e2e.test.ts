/** deployment.local: the host deploys itself, as root and through sudo, and no ssh is there to be called. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli, type Fleet, fleet, markNixos, mustRun, ssh, sshConfig, trySsh } from "./hosts.ts";

const host = "pop3";
const sudo = { enable: true };
const asking = { enable: true, "password-command": "cat ../password" };

beforeAll(async () => {
  const { stdout } = await mustRun("sh", ["-c", "command -v task"]);
  await mustRun("scp", ["-q", "-F", sshConfig, stdout.trim(), `root@${host}:/usr/local/bin/task`]);
  await ssh(host, "[ ! -e /usr/bin/ssh ] || mv /usr/bin/ssh /usr/bin/ssh.away");
});
afterAll(async () => {
  await ssh(
    host,
    "mv /usr/bin/ssh.away /usr/bin/ssh; usermod -p '!' ops; install -m 440 /dev/stdin /etc/sudoers.d/ops",
    {
      input: "ops ALL=(ALL) NOPASSWD: ALL\n",
    },
  );
});

/** The fleet's db1, which deploys itself, in a directory of `user` on it. */
async function itself(user: string, deployment: object): Promise<Fleet> {
  const made = await fleet();
  await markNixos(host, made.dir, "db1");
  await made.change({
    hosts: { web1: null, web2: null, db1: { lollypops: { deployment: { local: true, ...deployment } } } },
  });
  writeFileSync(join(made.dir, "Taskfile.yml"), (await cli([], { cwd: made.dir })).stdout);
  const unpack = "rm -rf fleet && mkdir fleet && tar -x -C fleet && echo pass-of-ops >password";
  await mustRun("sh", ["-c", `tar -c --owner=0 --group=0 . | ssh -F '${sshConfig}' ${user}@${host} '${unpack}'`], {
    cwd: made.dir,
  });
  return made;
}

describe.each([
  ["root", "", {}],
  ["ops with sudo", "ops ALL=(ALL) NOPASSWD: ALL", { sudo }],
  ["ops with sudo, which evaluates as ops", "ops ALL=(ALL) NOPASSWD: ALL", { sudo, "local-evaluation": true }],
  ["ops with a password", "ops ALL=(ALL) ALL\nDefaults timestamp_timeout=0", { sudo: asking }],
])("as %s", (who, sudoers, deployment) => {
  const user = who.split(" ")[0] as string;
  const onHost = (args: string) =>
    trySsh(host, `cd fleet && NIX_CONFIG='flake-registry =' NO_COLOR=1 task ${args}`, { user });

  it("deploys secrets, flake and system, and a second time nothing", async () => {
    await ssh(
      host,
      "rm -rf /var/src /run/hello; echo ops:pass-of-ops | chpasswd; install -m 440 /dev/stdin /etc/sudoers.d/ops",
      { input: `${sudoers}\n` },
    );
    await itself(user, deployment);
    const first = await onHost("deploy-all");
    expect(first.stdout).toContain("1 of 1 hosts deployed");
    expect(first.exitCode).toBe(0);
    expect(
      await ssh(
        host,
        "stat -c '%U %G %a' '/var/src/lollypops-secrets/db password'; cat '/var/src/lollypops-secrets/db password' /run/hello",
      ),
    ).toBe(`games mail 440\ncorrect horse\n${await ssh(host, "cat /var/src/lollypops-secrets/greeting")}`);
    expect(await ssh(host, "readlink -f /run/current-system")).toBe(
      await ssh(host, "readlink -f /nix/var/nix/profiles/system"),
    );
    expect(await ssh(host, "readlink -f /run/current-system")).toContain("-nixos-system-db1-1");
    await ssh(host, "nix-collect-garbage >/dev/null 2>&1; test -e /var/src/lollypops/flake/flake.nix");
    expect(await ssh(host, "ls -d /run/lollypops /nix/var/nix/gcroots/lollypops* 2>/dev/null || :")).toBe("");

    const again = await onHost("deploy-all");
    expect(again.stdout).toContain("1 of 1 hosts deployed, 1 of them unchanged");
  });

  it("is no other host", async () => {
    const { stdout, stderr, exitCode } = await onHost("db1:deploy-secrets LP_REMOTE_HOST=pop1");
    expect(stdout + stderr).toContain("db1: is this machine (deployment.local); LP_REMOTE_HOST is not for it");
    expect(exitCode).toBe(201);
  });

  it("shows what it would run, without ssh", async () => {
    const { stdout, exitCode } = await onHost("db1 LOLLYPOPS_DRY_RUN=1");
    expect(stdout).toMatch(/^\[db1\] \+ .*install -D /m);
    expect(stdout).not.toMatch(/ssh/);
    expect(exitCode).toBe(0);
  });
});
