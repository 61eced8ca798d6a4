// The main job on three real hosts: nix evaluates, go-task runs, ssh carries, systemd activates.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import {
  cli,
  cut,
  type Fleet,
  fleet,
  markFleet,
  mend,
  mustRun,
  type Settings,
  ssh,
  task,
  temporaryDirectory,
} from "./hosts.ts";

const asOps: Settings = {
  all: { lollypops: { deployment: { ssh: { user: "ops" }, sudo: { enable: true } } } },
};

/** A fresh fleet on fresh hosts, with its Taskfile as a user would make it. */
async function newFleet(settings: Settings = {}, files: Record<string, string> = {}): Promise<Fleet> {
  const made = await fleet();
  await markFleet(made);
  await made.change(settings, files);
  for (const host of ["pop1", "pop2", "pop3"]) await ssh(host, "rm -rf /var/src/* /run/hello");
  await generate(made);
  return made;
}

async function generate({ dir }: Fleet): Promise<void> {
  const { stdout, stderr, exitCode } = await cli([], { cwd: dir });
  expect(stderr).toBe("");
  expect(exitCode).toBe(0);
  writeFileSync(join(dir, "Taskfile.yml"), stdout);
}

const stat = (host: string, path: string) => ssh(host, `stat -c '%U %G %a' '${path}' && cat '${path}'`);
const running = (host: string) => ssh(host, "readlink -f /run/current-system");
const booted = (host: string) =>
  ssh(
    host,
    'sed -n "s/^default //p" /boot/loader/loader.conf | xargs -I{} sed -n "s/.*init=//p" /boot/loader/entries/{}',
  );

describe.each([
  ["root", {}],
  ["ops with sudo", asOps],
])("a first deployment as %s", (_, settings) => {
  it("puts secrets, flake and system in place, and a second one changes nothing", async () => {
    const { dir } = await newFleet(settings as Settings);
    const first = await task(["deploy-all"], { cwd: dir });
    expect(first.stdout).toContain("3 of 3 hosts deployed");
    expect(first.exitCode).toBe(0);

    expect(await stat("pop1", "/var/src/lollypops-secrets/api token")).toBe("root root 400\ntoken of web1\n");
    expect(await stat("pop2", "/var/src/tls/web2.pem")).toBe("www-data www-data 640\nnot a key\nof web2\n");
    expect(await stat("pop3", "/var/src/lollypops-secrets/db password")).toBe("games mail 440\ncorrect horse\n");
    for (const host of ["pop1", "pop2", "pop3"]) {
      const system = await running(host);
      expect(system).toContain("-nixos-system-");
      expect(await ssh(host, "readlink -f /nix/var/nix/profiles/system")).toBe(system);
      expect((await booted(host)).trim()).toBe(`${system.trim()}/init`);
      expect(await ssh(host, "cat /run/hello")).toBe(await ssh(host, "cat /var/src/lollypops-secrets/greeting"));
      // The link is a garbage collector's root, and nothing else of the activation is left.
      await ssh(host, "nix-collect-garbage >/dev/null 2>&1; test -e /var/src/lollypops/flake/flake.nix");
      expect(await ssh(host, "ls -d /run/lollypops* /nix/var/nix/gcroots/lollypops* 2>/dev/null || :")).toBe("");
    }

    const inodes = () => ssh("pop1", "stat -c '%i %Y' /var/src/lollypops-secrets/* /var/src/tls/*");
    const before = await inodes();
    const asked = await ssh("pop1", "cat /var/log/switch-to-configuration.log");
    const again = await task(["deploy-all"], { cwd: dir });
    expect(again.stdout).toContain("3 of 3 hosts deployed, 3 of them unchanged");
    expect(again.stdout).toContain("[web1] deploy-secrets: 0 changed, 3 unchanged");
    expect(again.exitCode).toBe(0);
    expect(await inodes()).toBe(before);
    expect(await ssh("pop1", "cat /var/log/switch-to-configuration.log")).toBe(asked);
  });
});

describe("one host of three fails", () => {
  let made: Fleet;
  beforeEach(async () => {
    made = await newFleet();
  });

  it("is down: the others are deployed, and the report names it", async () => {
    await cut(3);
    try {
      const { stdout, exitCode } = await task(["deploy-all"], { cwd: made.dir });
      expect(stdout).toContain("2 of 3 hosts deployed");
      expect(stdout).toMatch(/^ {2}db1: unreachable at connect: ssh: .*timed out/m);
      expect(exitCode).toBe(201);
    } finally {
      await mend(3);
    }
    expect(await running("pop1")).toContain("-nixos-system-web1-1");
    expect(await running("pop2")).toContain("-nixos-system-web2-1");
  });

  it("has a secret whose command fails: its old secrets stay, all of them", async () => {
    expect((await task(["all:deploy-secrets"], { cwd: made.dir })).exitCode).toBe(0);
    const before = await ssh("pop2", "tar c /var/src | cksum; find /var/src");
    const failing = "printf half; echo not for the report >&2; exit 3";
    await made.change({
      hosts: {
        web2: { lollypops: { secrets: { files: { greeting: { cmd: failing }, "api token": { cmd: "echo new" } } } } },
      },
    });
    await generate(made);
    const { stdout, exitCode } = await task(["deploy-all"], { cwd: made.dir });
    expect(stdout).toContain("2 of 3 hosts deployed");
    const line = stdout.split("\n").find((text) => text.startsWith("  web2:"));
    expect(line).toBe("  web2: failed at deploy-secrets: greeting: its command ended with exit 3; nothing was sent");
    expect(exitCode).toBe(201);
    expect(
      await ssh("pop2", "tar c /var/src --exclude=lollypops | cksum; find /var/src -not -path '*/lollypops*'"),
    ).toBeTruthy();
    expect(await stat("pop2", "/var/src/lollypops-secrets/api token")).toBe("root root 400\ntoken of web2\n");
    expect(before).toContain("/var/src/lollypops-secrets/greeting");
    expect(await ssh("pop2", "find / -xdev -name '.lollypops.*'")).toBe("");
  });

  it("fails to activate: its own words are shown, its boot default stays, the others are deployed", async () => {
    const old = await booted("pop1");
    await made.change({ hosts: { web1: { snippet: "echo the disk is on fire >&2; false" } } });
    const { stdout, exitCode } = await task(["deploy-all"], { cwd: made.dir });
    expect(stdout).toContain("[web1] the disk is on fire");
    expect(stdout).toContain("2 of 3 hosts deployed");
    expect(stdout).toMatch(/^ {2}web1: rolled-back at rebuild: an activation snippet failed/m);
    expect(exitCode).toBe(201);
    expect(await booted("pop1")).toBe(old);
  });

  it("has a system that does not build: the last words of nix are in the report", async () => {
    await made.change(
      { hosts: { db1: { lollypops: {}, version: "${" } } },
      { "host.nix": '{ ... }: throw "no such host"' },
    );
    const { stdout, exitCode } = await task(["db1"], { cwd: made.dir });
    expect(stdout).toMatch(/db1: rebuild failed: .*no such host/);
    expect(exitCode).toBe(201);
  });
});

describe("run", () => {
  it("hands go-task's own words and flags over", async () => {
    const { dir } = await newFleet();
    const all = await cli(["run", "--", "--list-all"], { cwd: dir });
    expect(all.stdout).toContain("web1:rebuild");
    const dry = await cli(["run", "--", "--dry", "web1:rebuild"], { cwd: dir });
    expect(dry.stderr).toContain("rebuild --host web1 --to root@pop1");
    expect(await running("pop1")).toContain("-0\n");

    const tested = await cli(
      ["run", "--", "-C", "1", "web1:deploy-flake", "web1:deploy-secrets", "web1:rebuild", "REBUILD_ACTION=test"],
      { cwd: dir },
    );
    expect(tested.exitCode).toBe(0);
    expect(await running("pop1")).toContain("-nixos-system-web1-1");
    expect(await ssh("pop1", "readlink -f /nix/var/nix/profiles/system")).toContain("-nixos-system-web1-0");
  });
});

describe("deploy, groups and steps", () => {
  it("reach just the hosts that are meant", async () => {
    const { dir } = await newFleet({ hosts: { db1: { units: { "hello.service": null } } } });
    const some = await task(["deploy", "--", "@web", "!web2"], { cwd: dir });
    expect(some.stdout).toContain("1 of 1 hosts deployed");
    expect(some.exitCode).toBe(0);
    const group = await task(["web:rebuild", "REBUILD_ACTION=boot"], { cwd: dir });
    // web2 never got the flake
    expect(group.stdout).toContain("1 of 2 hosts with rebuild done");
    expect(group.stdout).toMatch(/web2: failed at rebuild: there is no flake at/);
    expect(group.exitCode).toBe(201);
    expect((await task(["deploy", "--", "nope"], { cwd: dir })).stderr).toContain("no host or group matches 'nope'");
    const less = await task(["db1:without-secrets"], { cwd: dir });
    expect(less.exitCode).toBe(0);
    expect(await ssh("pop3", "ls /var/src")).toBe("lollypops\n");
  });

  it("with dry-activate only compare and print", async () => {
    const { dir } = await newFleet();
    const { stdout, exitCode } = await task(["web1", "REBUILD_ACTION=dry-activate"], { cwd: dir });
    expect(exitCode).toBe(0);
    expect(stdout).toContain("[web1] deploy-secrets: 3 would change, 0 unchanged");
    expect(stdout).toContain("[web1] rebuild: unchanged, a dry run");
    expect(await ssh("pop1", "ls /var/src")).toBe("lollypops\n");
    expect(await running("pop1")).toContain("-nixos-system-web1-0");
  });

  it("show every command with LOLLYPOPS_DRY_RUN, and run none", async () => {
    const made = await newFleet();
    const { dir } = made;
    const own = { cmds: ["echo should not run"] };
    await made.change({
      all: { lollypops: { tasks: ["deploy-flake", "deploy-secrets", "rebuild", "own"], extraTasks: { own } } },
    });
    await generate(made);
    const { stdout, exitCode } = await task(["deploy-all"], { cwd: dir, env: { LOLLYPOPS_DRY_RUN: "1" } });
    expect(stdout).toContain("[web1] own: a task of your own, not run");
    expect(stdout).not.toContain("should not");
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/\+ .*nix .*copy .*--to ssh:\/\/root@pop1/);
    expect(stdout).toMatch(/\+ new=\$\(ssh .*root@pop2 .*nix .*build/);
    expect(await ssh("pop1", "ls /var")).not.toContain("src");
  });
});

describe("extra tasks", () => {
  it("run with their own words, override a step, and mean this host's tasks", async () => {
    const { dir } = await newFleet({
      hosts: {
        web1: {
          lollypops: {
            tasks: ["deploy-flake", "rebuild", "smoke"],
            extraTasks: {
              rebuild: { deps: ["check-vars"], cmds: ["echo own rebuild of {{.HOSTNAME}} with {{.REBUILD_ACTION}}"] },
              smoke: {
                vars: { WHO: "the smoke test" },
                preconditions: [{ sh: "test -e flake.nix", msg: "not in the flake" }],
                cmds: [
                  { cmd: "echo {{.WHO}} of {{.REMOTE_USER}}@{{.REMOTE_HOST}}", silent: true },
                  "{{.REMOTE_COMMAND}} {{.REMOTE_SSH_OPTS}} {{.REMOTE_USER}}@{{.REMOTE_HOST}} hostname",
                  { task: "check-vars" },
                  { cmd: "false", ignore_error: true },
                ],
              },
            },
          },
        },
        web2: { lollypops: { tasks: ["smoke"], extraTasks: { smoke: { cmds: ["echo about to fail; false"] } } } },
      },
    });
    const { stdout, exitCode } = await task(["web"], { cwd: dir });
    expect(stdout).toContain("[web1] own rebuild of web1 with switch");
    expect(stdout).toContain("[web1] the smoke test of root@pop1");
    expect(stdout).toContain("[web1] pop1");
    expect(stdout).toContain("1 of 2 hosts deployed");
    expect(stdout).toContain("  web2: failed at smoke");
    expect(exitCode).toBe(201);
  });

  it("get built what they and the secrets name in the store, and the flake's own files", async () => {
    const hosts = (text: string) =>
      `{ self }:\nlet tool = derivation { name = "tool"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo echo made by nix >$out" ]; };\nin { web1.lollypops = { deployment = { group = "web"; ssh.host = "pop1"; }; ${text} }; }\n`;
    const made = await newFleet(
      {},
      {
        "hosts.nix": hosts(
          'secrets.files.built.cmd = "sh ${tool}"; secrets.files.own.cmd = "cat ${self}/secrets/greeting"; extraTasks.show.cmds = [ "sh ${tool}; head -1 ${self}/version" ];',
        ),
      },
    );
    const text = (await cli([], { cwd: made.dir })).stdout;
    expect(text).toContain("{{.LOCAL_FLAKE_SOURCE}}/secrets/greeting");
    expect(text).not.toMatch(/\/nix\/store\/[0-9a-z]{32}-source/);
    const { stdout, exitCode } = await task(["web1:show", "web1:deploy-secrets"], { cwd: made.dir });
    expect(exitCode).toBe(0);
    expect(stdout).toContain("[web1] made by nix");
    expect(await ssh("pop1", "cat /var/src/lollypops-secrets/built")).toBe("made by nix\n");
    expect(await ssh("pop1", "cat /var/src/lollypops-secrets/own")).toBe(
      await ssh("pop1", "cat /var/src/lollypops-secrets/greeting"),
    );

    // Committing the Taskfile changes the flake's store path, and not the Taskfile.
    await made.change({}, { "Taskfile.yml": text });
    expect((await cli(["--check"], { cwd: made.dir })).exitCode).toBe(0);
  });
});

describe("home-manager", () => {
  it("has its secrets written by their user", async () => {
    const home = {
      users: {
        ops: { secrets: { "default-dir": "/home/ops/lollypops-secrets", files: { token: { cmd: "echo mine" } } } },
      },
    };
    const { dir } = await newFleet({ hosts: { web1: { lollypops: { "home-manager": home } } } });
    await ssh("pop1", "rm -rf /home/ops/lollypops-secrets /home/ops/elsewhere");
    const { stdout, exitCode } = await task(["web1:deploy-secrets"], { cwd: dir });
    expect(stdout).toContain("[web1] deploy-secrets: 4 changed, 0 unchanged");
    expect(exitCode).toBe(0);
    expect(await stat("pop1", "/home/ops/lollypops-secrets/token")).toBe("ops ops 400\nmine\n");
    // A link of the user's own does not make root write elsewhere: the user may not write there.
    await ssh("pop1", "rm -rf /home/ops/lollypops-secrets; ln -s /etc /home/ops/lollypops-secrets");
    const attacked = await task(["web1:deploy-secrets"], { cwd: dir });
    expect(attacked.stdout).toContain("web1: deploy-secrets failed: cannot write in /home/ops/lollypops-secrets");
    expect(await ssh("pop1", "ls /etc/token 2>&1 || :")).toContain("No such file");
    await ssh("pop1", "rm /home/ops/lollypops-secrets");
  });
});

/** The fleet's flake with an input `data`, a directory that only this machine has. */
async function withInput(made: Fleet, settings: Settings): Promise<void> {
  const data = directoryWith("from the input");
  const flake = readFileSync(join(made.dir, "flake.nix"), "utf8")
    .replace("{ self }:", "{ self, data }:")
    .replace("outputs =", `inputs.data = { url = "path:${data}"; flake = false; };\n  outputs =`)
    .replace("own:\n", 'own:\n        builtins.trace (builtins.readFile "${data}/word") (\n')
    .replace(
      "host = merge (settings.all or { }) own;\n        }",
      "host = merge (settings.all or { }) own;\n        })",
    );
  await made.change(settings, { "flake.nix": flake });
  await mustRun("nix", ["flake", "lock", made.dir]);
  await made.change(settings);
}

function directoryWith(word: string): string {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, "word"), word);
  return directory;
}

describe("a flake whose input only this machine has", () => {
  it("is copied with its inputs, so that the host can evaluate it", async () => {
    const made = await newFleet();
    await withInput(made, { all: { lollypops: { deployment: { "deploy-method": "auto" } } } });
    const { stdout, exitCode } = await cli(["run", "--", "web1"], { cwd: made.dir });
    expect(stdout).toContain("trace: from the input");
    expect(stdout).toContain("[web1] rebuild: switched to");
    expect(exitCode).toBe(0);
  });

  it("can be given another one where it is evaluated here", async () => {
    const made = await newFleet();
    await withInput(made, { all: { lollypops: { deployment: { "local-evaluation": true } } } });
    const other = `data=path:${directoryWith("from another")}`;
    const { stdout, exitCode } = await cli(["run", "--override-input", other, "--", "web1"], { cwd: made.dir });
    expect(stdout).toContain("trace: from another");
    expect(exitCode).toBe(0);
  });
});

describe("evaluation here", () => {
  it("builds on this machine and copies, as root and through sudo", async () => {
    const local = { lollypops: { deployment: { "local-evaluation": true } } };
    const sudo = {
      lollypops: { deployment: { "local-evaluation": true, ssh: { user: "ops" }, sudo: { enable: true } } },
    };
    const { dir } = await newFleet({ hosts: { web1: local, web2: sudo } });
    const { stdout, exitCode } = await task(["web"], { cwd: dir });
    expect(stdout).toContain("2 of 2 hosts deployed");
    expect(exitCode).toBe(0);
    expect(await running("pop2")).toContain("-nixos-system-web2-1");
  });
});
