// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
/** What one does with a host day by day, and whether it is the right machine: the runtime called as the Taskfile calls it. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { testhosts, until } from "./faults.ts";
import {
  buildSystem,
  cut,
  type Fleet,
  fleet,
  markNixos,
  mend,
  mustRun,
  ssh,
  sshConfig,
  temporaryDirectory,
  trySsh,
} from "./hosts.ts";
import { type CallOptions, call, runtime } from "./runtime.ts";

const host = "pop1";
const profile = "/nix/var/nix/profiles/system";
const unit = "nixos-rebuild-switch-to-configuration";
let made: Fleet;
let cwd: string;
let env: Record<string, string>;

beforeAll(async () => {
  made = await fleet();
  await markNixos(host, made.dir, "web1");
  writeFileSync(join(made.dir, "Taskfile.yml"), "tasks:\n  'web1:rebuild':\n  'web2:rebuild':\n");
});
beforeEach(() => {
  cwd = temporaryDirectory();
  env = { XDG_RUNTIME_DIR: mkdtempSync(join(cwd, "run-")) };
});

/** A call of a verb for web1, as root on pop1 unless the words say otherwise, under a task of its step's name. */
function verb(words: readonly string[], task: string, more: CallOptions & { to?: string } = {}) {
  const { to = `root@${host}`, variables, ...options } = more;
  const given = {
    TASK: `web1:${task}`,
    LP_REMOTE_SSH_OPTS: `-F ${sshConfig}`,
    TASKFILE: join(made.dir, "Taskfile.yml"),
  };
  const [name = "", ...rest] = words;
  const call_ = [name, "--host", "web1", "--to", to, ...rest];
  return call(call_, { cwd, ...options, env: { ...env, ...options.env }, variables: { ...given, ...variables } });
}
const step = (name: string, more: CallOptions & { to?: string } = {}, words: readonly string[] = []) =>
  verb(["rebuild", "--flake", made.dir, ...words], name, more);
const exec = (command: readonly string[], more: CallOptions & { to?: string } = {}, flags: readonly string[] = []) =>
  verb(["exec", ...flags, "--", ...command], "exec", more);
const results = () =>
  readFileSync(join(cwd, "results"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
const withResults = { variables: { LOLLYPOPS_RESULTS: "results" } };
/** Makes `top` the next generation of the profile. */
const commit = (top: string) =>
  ssh(host, `nix-env -p ${profile} --set ${top} && ${top}/bin/switch-to-configuration boot`);
const generations = async () =>
  (await ssh(host, `cd ${profile.slice(0, -7)}; ls -d system-*-link | sed 's/[^0-9]//g' | sort -n`)).trim().split("\n");

describe("status", () => {
  test("one line and one result: what runs, what was booted, what failed, which flake", async () => {
    await ssh(host, "ln -sfn $(readlink -f /run/current-system) /run/booted-system; rm -rf /var/src/lollypops");
    expect(await step("status")).toMatchObject({
      stdout: "status: runs nixos-system-web1-0, generation 1; failed units: none; flake: none\n",
      stderr: "",
      exitCode: 0,
    });
    const top = await buildSystem(host, made.dir, "web1");
    const { stdout } = await mustRun("nix", [
      "--extra-experimental-features",
      "nix-command flakes",
      "flake",
      "prefetch",
      "--json",
      made.dir,
    ]);
    const source = JSON.parse(stdout).storePath;
    await ssh(
      host,
      `mkdir -p /var/src/lollypops; ln -sfn ${source} /var/src/lollypops/flake; ln -sfn ${top} /run/current-system
      systemd-run --quiet --unit='odd\\x2d"name' false; sleep 0.5`,
    );
    const line =
      'runs nixos-system-web1-1; generation 1, nixos-system-web1-0, boots next; booted nixos-system-web1-0; reboot needed; failed units: odd\\x2d"name.service; flake: ours';
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
        failed: ['odd\\x2d"name.service'],
        ours: true,
      },
    ]);
    expect(statSync(join(cwd, "results")).mode & 0o777).toBe(0o600);
    await ssh(
      host,
      `systemctl reset-failed; ln -sfn $(readlink -f ${profile}) /run/current-system; rm -r /var/src/lollypops`,
    );
  });

  test("a host that does not answer: one line, 4; its result is after the first", async () => {
    await step("status", withResults);
    const dead = { variables: { ...withResults.variables, LP_REMOTE_SSH_OPTS: `-F ${sshConfig} -p 1` } };
    expect(await step("status", dead)).toMatchObject({
      stdout: expect.stringMatching(/^status: unreachable, ssh: connect to host .* refused\n$/),
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
    const many = { cwd, env, variables: {} };
    await call(["begin", "--name", "web:exec", "--step", "exec", "web1", "web2"], many);
    expect((await exec(["cat"], { input: "in\n" })).stdout).toBe("");
    const end = await call(["end", "--name", "web:exec", "--step", "exec"], many);
    expect(end.stdout).toContain("1 of 2 hosts with exec done; NOT done:\n  web2: ");
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
  const flake = (variables: Record<string, string> = {}, attribute = "web1") =>
    verb(["deploy-flake", "--flake", made.dir, "--method", "copy"], "deploy-flake", { variables });
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
        `web1: deploy-flake failed: this looks like ${whose}'s machine (its running system is nixos-system-${name}); LOLLYPOPS_ANY_HOST=1 deploys to it anyway\n`,
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
    const file = join(made.dir, "Taskfile.yml");
    writeFileSync(file, `${readFileSync(file, "utf8")}  'twin:rebuild':\n`);
    await runs("web1-24.11");
    const words = ["deploy-flake", "--flake", made.dir, "--method", "copy", "--host", "twin"];
    const nobody = await verb(words, "deploy-flake", { variables: { TASK: "twin:deploy-flake" } });
    expect(nobody.stderr).toContain("looks like web1's machine");
    await made.change({ hosts: { twin: { name: "web1" } as never } });
  });
});

describe("gc", () => {
  const gc = (words: string[] = [], more: CallOptions = {}) => verb(["gc", "--", ...words], "gc", more);
  let tops: string[];

  beforeAll(async () => {
    await markNixos(host, made.dir, "web1");
    for (const version of ["2", "3", "4"]) {
      await made.change({}, { version: `${version}\n` });
      await commit(await buildSystem(host, made.dir, "web1"));
    }
    tops = (await ssh(host, `for i in 1 2 3 4; do readlink -f ${profile}-$i-link; done`)).trim().split("\n");
    await ssh(
      host,
      `touch -h -d '40 days ago' ${profile}-*-link; ln -sfn ${tops[0]} /run/booted-system; ln -sfn ${tops[2]} /run/current-system
      mkdir -p /run/standin; ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system`,
    );
  });
  afterAll(() => ssh(host, "rm -f /run/booted-system /nix/var/nix/gcroots/booted-system"));
  const exists = async (top = "") => (await trySsh(host, `test -e ${top}`)).exitCode === 0;

  test.each([["x"], ["30 d"], ["-1d"], ["1.5d"], ["30d", "5d"], ["08"], ["1w"], ["d"]])(
    "%s is no age",
    async (...words) => {
      expect(await gc(words)).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("one age in days") });
    },
  );

  test("not while something is activated", async () => {
    await ssh(host, `systemctl stop ${unit} 2>/dev/null; systemd-run --quiet --collect --unit=${unit} sleep 60`);
    const { stderr, exitCode } = await gc();
    await ssh(host, `systemctl stop ${unit}`);
    expect(stderr).toContain(`an activation runs there (unit ${unit})`);
    expect(exitCode).toBe(1);
  });

  test("nothing is old enough; then a boot loader that fails keeps all systems; then what is not used goes", async () => {
    expect(await gc(["60"])).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/gc: no generation removed, .* freed\n$/),
    });
    expect(await generations()).toEqual(["1", "2", "3", "4"]);

    await ssh(host, "touch /run/standin/bootloader-fails");
    const failed = await gc();
    await ssh(host, "rm /run/standin/bootloader-fails; : >/var/log/install-bootloader.log");
    expect(failed.stderr).toContain("gc failed: generations 2 removed, but the boot loader could not be written");
    expect(failed.exitCode).toBe(1);
    expect(await exists(tops[1])).toBe(true);

    const done = await gc();
    expect(done).toMatchObject({ stderr: "", exitCode: 0 });
    expect(done.stdout).toMatch(/^gc: no generation removed, \d+ store paths deleted, .* freed\n$/);
    expect(await generations()).toEqual(["1", "3", "4"]);
    expect(await Promise.all(tops.map(exists))).toEqual([true, false, true, true]);
    expect(await ssh(host, "cut -d' ' -f2- /var/log/install-bootloader.log")).toBe(
      `NIXOS_INSTALL_BOOTLOADER=0 ${tops[3]}\n`,
    );
  });
});

describe("reboot", () => {
  const state = `/run/testhosts${process.env["TESTHOSTS_SET"] === "0" ? "" : `-${process.env["TESTHOSTS_SET"]}`}`;
  const asked = `${state}/${host}/root/asked-to-reboot`;
  let top: string;

  /** pop1 boots as NixOS does, and to reboot is only to ask for it: the container would be gone. */
  beforeAll(async () => {
    await markNixos(host, made.dir, "web1");
    await ssh(
      host,
      `cd /etc/systemd/system
      printf '[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n[Service]\nType=oneshot\nExecStart=/bin/sh /boot-nixos\n[Install]\nWantedBy=sysinit.target\n' >boot-nixos.service
      printf '[Unit]\nDefaultDependencies=no\nWants=ask.service\n' >reboot.target
      printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=touch /asked-to-reboot\n' >ask.service
      for unit in ill worse; do printf '[Service]\nExecStart=false\n[Install]\nWantedBy=multi-user.target\n' >$unit.service; done
      printf 'for i in current booted; do ln -sfn $(cat /boots || readlink -f ${profile}) /run/$i-system; done\n' >/boot-nixos
      systemctl daemon-reload; systemctl enable boot-nixos ill; systemctl start ill || :; sh /boot-nixos`,
    );
    top = await buildSystem(host, made.dir, "web1");
    await commit(top);
  });
  afterAll(async () => {
    await ssh(
      host,
      "systemctl disable boot-nixos ill worse; cd /etc/systemd/system; rm boot-nixos.service reboot.target ask.service ill.service worse.service; rm -f /boots; systemctl daemon-reload; systemctl reset-failed",
    );
  });

  /** The first call, with a restart when the host asks for it. */
  async function reboot(text?: string) {
    rmSync(asked, { force: true });
    const call = step("reboot", text === undefined ? {} : { text });
    if (text !== undefined) return call;
    await until("the host is asked to reboot", () => existsSync(asked));
    await testhosts("restart", "1");
    return call;
  }
  const secrets = () =>
    verb(
      [
        "deploy-secrets",
        "--",
        "name=token",
        "path=/run/token",
        `cmd=echo asked >>'${cwd}/log'; echo new`,
        "name=kept",
        "path=/srv/kept",
        "cmd=echo kept",
      ],
      "reboot",
    );
  const again = () => step("reboot");

  test("into the boot default; secrets that are gone come back; what failed before does not count", async () => {
    await ssh(host, "echo old >/run/token; mkdir -p /srv; echo kept >/srv/kept");
    expect(await secrets()).toMatchObject({ stdout: "deploy-secrets: all in place\n", exitCode: 0 });
    expect(existsSync(join(cwd, "log"))).toBe(false);
    const first = await reboot();
    expect(first).toMatchObject({
      stderr: "",
      exitCode: 0,
      stdout: expect.stringMatching(/^reboot: waiting for it\nreboot: back after \d+ s\n$/),
    });
    expect((await secrets()).stdout).toContain("deploy-secrets: 2 changed, 0 unchanged\n");
    expect(await ssh(host, "cat /run/token")).toBe("new\n");
    expect(await again()).toEqual({ stdout: `reboot: rebooted into ${top.slice(11)}\n`, stderr: "", exitCode: 0 });
  });

  test("a unit that failed only now is named", async () => {
    await ssh(host, "systemctl enable worse");
    expect(await reboot()).toMatchObject({ exitCode: 0 });
    expect(await again()).toEqual({
      stdout: "",
      stderr: "web1: reboot failed: rebooted, and units failed that had not before: worse.service\n",
      exitCode: 1,
    });
  });

  test("another system came up", async () => {
    const fresh = (await ssh(host, `readlink -f ${profile}-1-link`)).trim();
    await ssh(host, `echo ${fresh} >/boots`);
    const { stderr, exitCode } = await reboot();
    expect(stderr).toBe(
      `web1: reboot failed: rebooted, but it runs ${fresh.slice(11)} and not ${top.slice(11)}, the boot default; look at its boot loader\n`,
    );
    expect(exitCode).toBe(1);
  });

  const impatient = runtime.text.replace("limit=600", "limit=4");
  test("it does not go down, or not come back, in time; or was not there", async () => {
    const up = await reboot(impatient);
    expect(up).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("has not within 4 s") });
    const call = reboot(impatient);
    await until("the host is asked to reboot", () => existsSync(asked));
    await cut(1);
    const gone = await call;
    const dead = await step("reboot");
    await mend(1);
    expect(gone).toMatchObject({
      exitCode: 5,
      stderr: expect.stringContaining("unknown: it did not come back within 4 s"),
    });
    expect(dead).toMatchObject({ exitCode: 4, stdout: expect.not.stringContaining("waiting") });
  });

  test("not while something is activated", async () => {
    await ssh(host, `systemctl stop ${unit} 2>/dev/null; systemd-run --quiet --collect --unit=${unit} sleep 60`);
    const { stderr, exitCode } = await step("reboot");
    await ssh(host, `systemctl stop ${unit}`);
    expect(stderr).toContain(`an activation runs there (unit ${unit})`);
    expect(exitCode).toBe(1);
  });
});
