// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
/** What one does with a host day by day, and whether it is the right machine: the runtime called as the Taskfile calls it. */
import { randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { buildSystem, markNixos, mustRun, ssh, sshConfig, temporaryDirectory, trySsh } from "./hosts.ts";
import { call } from "./runtime.ts";
import { here, host, prepare, profile, step, type VerbOptions, verb } from "./verbs.ts";

prepare();
const exec = (command: readonly string[], more: VerbOptions = {}, flags: readonly string[] = []) =>
  verb(["exec", ...flags, "--", ...command], "exec", more);
const results = () =>
  readFileSync(join(here.cwd, "results"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
const withResults = { variables: { LOLLYPOPS_RESULTS: "results" } };

describe("status", () => {
  test("one line and one result: what runs, what was booted, what failed, which flake", async () => {
    await ssh(host, "ln -sfn $(readlink -f /run/current-system) /run/booted-system; rm -rf /var/src/lollypops");
    expect(await step("status")).toMatchObject({
      stdout: "status: runs nixos-system-web1-0, generation 1; failed units: none; flake: none\n",
      stderr: "",
      exitCode: 0,
    });
    const top = await buildSystem(host, here.made.dir, "web1");
    const { stdout } = await mustRun("nix", [
      "--extra-experimental-features",
      "nix-command flakes",
      "flake",
      "prefetch",
      "--json",
      here.made.dir,
    ]);
    const source = JSON.parse(stdout).storePath;
    await ssh(
      host,
      `mkdir -p /var/src/lollypops; ln -sfn ${source} /var/src/lollypops/flake; ln -sfn ${top} /run/current-system
      systemd-run --quiet --unit='odd\\x2dname' false; sleep 0.5`,
    );
    const line =
      "runs nixos-system-web1-1; generation 1, nixos-system-web1-0, boots next; booted nixos-system-web1-0; reboot needed; failed units: odd\\x2dname.service; flake: ours";
    expect((await step("status", withResults)).stdout).toBe(`status: ${line}\n`);
    expect(results()).toEqual([
      {
        host: "web1",
        step: "status",
        outcome: "unchanged",
        message: line,
        seconds: expect.any(Number),
        current: "nixos-system-web1-1",
        booted: "nixos-system-web1-0",
        flake: source,
        generation: 1,
        reboot: true,
        failed: ["odd\\x2dname.service"],
        ours: true,
      },
    ]);
    expect(statSync(join(here.cwd, "results")).mode & 0o777).toBe(0o600);
    await ssh(
      host,
      `systemctl reset-failed; ln -sfn $(readlink -f ${profile}) /run/current-system; rm -r /var/src/lollypops`,
    );
  });

  test("a host that does not answer: one line, 4; its result is after the first", async () => {
    await step("status", withResults);
    const dead = { variables: { ...withResults.variables, LP_REMOTE_SSH_OPTS: `-F ${sshConfig} -p 1` } };
    expect(await step("status", dead)).toMatchObject({
      stderr: expect.stringMatching(/^web1: status unreachable: ssh: connect to host .* refused\n$/),
      exitCode: 4,
    });
    expect(results()).toMatchObject([{ outcome: "unchanged" }, { outcome: "unreachable", step: "status" }]);
  });

  test("many at once: each line is whole", async () => {
    await Promise.all(Array.from({ length: 8 }, () => step("status", withResults)));
    expect(results()).toHaveLength(8);
  });
});

describe("exec", () => {
  test("words arrive as they were typed, the output untouched, standard input too", async () => {
    const words = ["", "a b", "it's", '"', "$(touch x)", "*", "\\n", "-n", "é\n", "A=b", "{{.X}}", ";", "\t\u0001"];
    const { stdout, stderr, exitCode } = await exec(["printf", "<%s>", ...words]);
    expect([stdout, stderr, exitCode]).toEqual([words.map((word) => `<${word}>`).join(""), "", 0]);

    const data = randomBytes(300_000).toString("latin1");
    const echoed = await exec(["sh", "-c", "cat; echo words >&2"], { input: data });
    expect(echoed.stdout === data).toBe(true);
    expect(echoed.stderr).toBe("words\n");
  });

  test("as root where the host has sudo, with a password or none", async () => {
    const to = `ops@${host}`;
    expect((await exec(["id", "-un"], { to })).stdout).toBe("ops\n");
    const through = await exec(["sh", "-c", "id -un; cat"], { to, input: "in\n" }, ["--sudo", "sudo"]);
    expect(through.stdout).toBe("root\nin\n");
    const asking = ["--sudo", "sudo", "--password-command", "echo pass-of-ops"];
    expect((await exec(["sh", "-c", "id -un; cat"], { to, input: "in\n" }, asking)).stdout).toBe("root\nin\n");
    await ssh(host, "echo ops:pass-of-ops | chpasswd; install -m 440 /dev/stdin /etc/sudoers.d/ops", {
      input: "ops ALL=(ALL) ALL\nDefaults timestamp_timeout=0\n",
    });
    try {
      expect((await exec(["sh", "-c", "id -un; cat"], { to, input: "in\n" }, asking)).stdout).toBe("root\nin\n");
      const wrong = await exec(["id"], { to }, ["--sudo", "sudo", "--password-command", "echo wrong"]);
      expect(wrong).toMatchObject({ stdout: "", exitCode: 1, stderr: expect.stringContaining("sudo did not take") });
    } finally {
      await ssh(host, "usermod -p '!' ops; install -m 440 /dev/stdin /etc/sudoers.d/ops", {
        input: "ops ALL=(ALL) NOPASSWD: ALL\n",
      });
    }
  });

  test("its exit code is told; ssh's own means unreachable; nothing to run is refused", async () => {
    const failed = await exec(["sh", "-c", "exit 3"]);
    expect(failed).toEqual({ stdout: "", stderr: "web1: exec failed: exit 3\n", exitCode: 1 });
    const dead = { variables: { LP_REMOTE_SSH_OPTS: `-F ${sshConfig} -p 1` } };
    expect(await exec(["true"], dead)).toMatchObject({ exitCode: 4 });
    expect(await exec([])).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("task web1:exec -- uptime") });
  });

  test("of several hosts none gets the standard input", async () => {
    const many = { cwd: here.cwd, env: here.env, variables: { TASK: "web:exec" } };
    await call(["begin", "--step", "exec", "web1", "web2"], many);
    expect((await exec(["cat"], { input: "in\n" })).stdout).toBe("");
    const end = await call(["end", "--step", "exec"], many);
    expect(end.stdout).toContain("1 of 2 hosts with exec done; NOT done: 1 failed\n  web2: ");
  });
});

describe("ssh", () => {
  test("a shell there, with its exit code, and a terminal if there is one here", async () => {
    const { stdout, exitCode } = await step("ssh", { input: "hostname; tty; exit 3\n" });
    expect(stdout).toContain("pop1\nnot a tty\n");
    expect(exitCode).toBe(3);
  });
});

describe("the right machine", () => {
  const flake = (variables: Record<string, string> = {}) =>
    verb(["deploy-flake", "--flake", here.made.dir, "--method", "copy"], "deploy-flake", { variables });
  /** Makes pop1 run a system of this name, without a flake. */
  const runs = (name: string) =>
    ssh(
      host,
      `rm -rf /var/src/lollypops; mkdir -p /tmp/nixos-system-${name}
      ln -sfn $(nix-store --add /tmp/nixos-system-${name}) /run/current-system`,
    );
  const linked = async () => (await trySsh(host, "test -e /var/src/lollypops/flake")).exitCode === 0;
  afterAll(() => ssh(host, `rm -rf /var/src/lollypops; ln -sfn $(readlink -f ${profile}) /run/current-system`));

  test.each(["web2-24.11", "web2-25.05pre-git", "web1-b-24.11", "web1-2-24.11"])(
    "%s is another host's: refused before anything is done",
    async (name) => {
      await runs(name);
      const { stderr, exitCode } = await flake();
      const whose = name.replace(/-2[45].*/, "");
      expect(stderr).toBe(
        `web1: deploy-flake failed: this looks like ${whose}'s machine (its running system is nixos-system-${name}); LOLLYPOPS_ANY_HOST=1 goes on all the same\n`,
      );
      expect(exitCode).toBe(1);
      expect(await linked()).toBe(false);
    },
  );

  test.each(["web1-24.11-a", "web1-1-2", "web1-x", "nixos-24.11", "web3-24.11"])(
    "%s is none of another host",
    async (name) => {
      await runs(name);
      expect(await flake()).toMatchObject({ stderr: "", exitCode: 0 });
      expect(await linked()).toBe(true);
    },
  );

  test("it may be told that any will do; without a Taskfile to read nobody knows the others", async () => {
    await runs("web2-24.11");
    expect(await flake({ LOLLYPOPS_ANY_HOST: "1" })).toMatchObject({ exitCode: 0 });
    await runs("nixos-24.11");
    expect(await flake({ TASKFILE: "/nowhere" })).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("looks like nixos's machine"),
    });
  });

  test("two hosts whose systems have one name", async () => {
    await runs("web1-24.11");
    await here.made.change({ hosts: { twin: { name: "web1" } as never } });
    const twin = ["deploy-flake", "--flake", here.made.dir, "--method", "copy", "--host", "twin"];
    expect(await verb(twin, "deploy-flake")).toMatchObject({ stderr: "", exitCode: 0 });
    await runs("web2-24.11");
    here.env["XDG_RUNTIME_DIR"] = temporaryDirectory(); // another run
    expect((await verb(twin, "deploy-flake")).stderr).toContain(
      "twin: deploy-flake failed: this looks like web2's machine",
    );
  });
});

describe("rebuild and rollback", () => {
  const flake = () => verb(["deploy-flake", "--flake", here.made.dir, "--method", "copy"], "deploy-flake");
  const rebuild = (variables: Record<string, string> = {}) => step("rebuild", { variables });
  /** The secret that hello.service wants. */
  const greet = () => ssh(host, "mkdir -p /var/src/lollypops-secrets; echo hi >/var/src/lollypops-secrets/greeting");
  const now = async () =>
    (await ssh(host, `readlink /run/current-system ${profile}`)).replace(/.*-nixos-system-/g, "").split("\n");

  test("a rebuild refuses another host's machine, and takes one of no host", async () => {
    await markNixos(host, here.made.dir, "web2");
    expect(await flake()).toMatchObject({ exitCode: 1 });
    for (const refused of [await rebuild(), await step("rollback"), await step("reboot")])
      expect(refused).toMatchObject({
        exitCode: 1,
        stdout: "",
        stderr: expect.stringContaining("looks like web2's machine"),
      });
    await markNixos(host, here.made.dir, "db1"); // not in this Taskfile
    await greet();
    for (const result of [await flake(), await rebuild()]) expect(result).toMatchObject({ stderr: "", exitCode: 0 });
    expect(await now()).toEqual(["web1-1", "system-2-link", ""]);
  });

  test("back to the generation before, and from there to none", async () => {
    await markNixos(host, here.made.dir, "web1");
    const none = await step("rollback");
    expect(none).toMatchObject({
      exitCode: 1,
      stdout: "",
      stderr: "web1: rollback failed: there is no generation before 1\n",
    });
    await greet();
    for (const result of [await flake(), await rebuild()]) expect(result).toMatchObject({ exitCode: 0 });
    expect(await now()).toEqual(["web1-1", "system-2-link", ""]);
    const back = await step("rollback");
    expect(back).toMatchObject({ stderr: "", exitCode: 0 });
    expect(back.stdout).toMatch(/^rollback: .*-nixos-system-web1-0/m);
    expect(await now()).toEqual(["web1-0", "system-1-link", ""]);
    expect(await ssh(host, "cat /boot/loader/loader.conf")).toContain("default nixos-generation-1.conf");
  });
});
