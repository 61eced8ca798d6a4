/**
 * The stand-in for NixOS fails as the real one does: each row was first seen on the real switch-to-configuration, and what
 * the tests of deployments prove is worth as much as these.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import {
  buildSystem,
  type Fleet,
  fleet,
  type HostSettings,
  markNixos,
  mustRun,
  restart,
  root,
  run,
  ssh,
  sshConfig,
  trySsh,
} from "./hosts.ts";

const host = "pop1";
const broken = "[Service]\nType=oneshot\nExecStart=/bin/false\n";
const service = (text: string) => `[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '${text}'\n`;

let flake: Fleet;
let before: string;

beforeEach(async () => {
  flake = await fleet();
  await markNixos(host, flake.dir, "web1");
  before = await current();
});

const current = async () => (await ssh(host, "readlink -f /run/current-system")).trim();
const calls = async () =>
  (await ssh(host, "cut -d' ' -f2- /var/log/switch-to-configuration.log 2>/dev/null || true"))
    .split("\n")
    .filter(Boolean);
const bootDefault = async () => {
  const entry = "$(sed -n 's/^default //p' /boot/loader/loader.conf)";
  return (await ssh(host, `sed -n 's|options init=\\(.*\\)/init|\\1|p' /boot/loader/entries/${entry}`)).trim();
};

/** Builds a system with these settings and no unit but its own. */
async function system(settings: HostSettings): Promise<string> {
  await flake.change({ all: { ...settings, units: { "hello.service": null, ...settings.units } } });
  return buildSystem(host, flake.dir, "web1");
}

/** Runs ACTION of a system, as a deployment does: `--set` first when it is to be the boot default. */
async function activate(top: string, action: string, environment = "") {
  const set = ["switch", "boot"].includes(action) ? `nix-env -p /nix/var/nix/profiles/system --set ${top} && ` : "";
  const { exitCode, stdout, stderr } = await trySsh(
    host,
    `${set}${environment} ${top}/bin/switch-to-configuration ${action}`,
  );
  return { exitCode, output: stdout + stderr };
}

test("fixtures/fleet/hosts.json is what nix makes of the flake", async () => {
  const pick = "builtins.mapAttrs (_: host: host.config.lollypops)";
  const flags = ["--extra-experimental-features", "nix-command flakes"];
  const { stdout } = await mustRun("nix", [
    ...flags,
    "eval",
    "--json",
    `${flake.dir}#nixosConfigurations`,
    "--apply",
    pick,
  ]);
  expect(JSON.parse(stdout)).toEqual(JSON.parse(readFileSync(join(root, "fixtures/fleet/hosts.json"), "utf8")));
});

describe("a freshly marked host", () => {
  test("runs and boots its first system", async () => {
    expect(before).toMatch(/-nixos-system-web1-0$/);
    expect(await bootDefault()).toBe(before);
    expect(await calls()).toEqual([]);
  });
});

describe("what works", () => {
  test("switch: the new system runs, with its units, and is the boot default", async () => {
    const top = await system({ units: { "greet.service": service("echo one >/run/greet") } });
    expect(await activate(top, "switch")).toMatchObject({ exitCode: 0 });
    expect([await current(), await bootDefault()]).toEqual([top, top]);
    expect(await ssh(host, "cat /run/greet")).toBe("one\n");
    expect(await calls()).toEqual([`switch ${top}`]);
  });

  test("test: a changed unit is restarted, a removed one stopped; the boot default stays", async () => {
    await activate(await system({ units: { "greet.service": service("echo one >/run/greet") } }), "test");
    const second = await system({ units: { "greet.service": service("echo two >/run/greet") } });
    const { exitCode, output } = await activate(second, "test");
    expect(exitCode).toBe(0);
    expect(output).toContain("stopping the following units: greet.service");
    expect(await ssh(host, "cat /run/greet")).toBe("two\n");
    const third = await system({});
    expect(await activate(third, "test")).toMatchObject({ exitCode: 0 });
    expect((await trySsh(host, "systemctl is-active greet.service")).stdout).toBe("inactive\n");
    expect([await current(), await bootDefault()]).toEqual([third, before]);
  });

  test("boot: the boot default only", async () => {
    const top = await system({ version: "9" });
    expect(await activate(top, "boot")).toMatchObject({ exitCode: 0 });
    expect([await current(), await bootDefault()]).toEqual([before, top]);
  });

  test("dry-activate: says what it would do and changes nothing", async () => {
    await activate(await system({ units: { "greet.service": service("echo one >/run/greet") } }), "test");
    const first = await current();
    const top = await system({ units: { "greet.service": service("echo two >/run/greet") }, dry: "echo would be dry" });
    const { exitCode, output } = await activate(top, "dry-activate");
    expect(exitCode).toBe(0);
    expect(output).toContain("would stop the following units: greet.service\n");
    expect(output).toContain("would be dry\n");
    expect([await current(), await bootDefault()]).toEqual([first, before]);
    expect(await ssh(host, "cat /run/greet")).toBe("one\n");
  });
});

describe("power off and on", () => {
  test("boots what the default entry says, with its units only, and a full login", async () => {
    const kept = await system({ units: { "greet.service": service("echo kept >/run/greet") } });
    await activate(kept, "switch");
    const tried = await system({ units: { "other.service": service("echo tried >/run/other") } });
    await activate(tried, "test");
    await restart(1);
    expect([await current(), await bootDefault()]).toEqual([kept, kept]);
    expect(await ssh(host, "readlink /run/booted-system; cat /run/greet; ls /run/other 2>&1 || :")).toBe(
      `${kept}\nkept\nls: cannot access '/run/other': No such file or directory\n`,
    );
    expect(await ssh(host, "systemctl is-system-running --wait")).toBe("running\n");
    await activate(tried, "boot");
    await restart(1);
    expect([await current(), await bootDefault()]).toEqual([tried, tried]);
  });
});

test("a specialisation is a system of its own, beside the units of the host", async () => {
  const fast = { units: { "greet.service": service("echo fast >/run/greet") } };
  const top = await system({ units: { "greet.service": service("echo one >/run/greet") }, specialisation: { fast } });
  expect(await activate(`${top}/specialisation/fast`, "test")).toMatchObject({ exitCode: 0 });
  expect(await current()).toBe((await ssh(host, `readlink -f ${top}/specialisation/fast`)).trim());
  expect(await current()).not.toBe(top);
  expect(await ssh(host, "cat /run/greet")).toBe("fast\n");
});

describe("what fails and leaves the new system running", () => {
  test("a unit: 4, the other units are started, and 4 again while it still fails", async () => {
    const top = await system({ units: { "bad.service": broken, "greet.service": service("echo one >/run/greet") } });
    const { exitCode, output } = await activate(top, "switch");
    expect(exitCode).toBe(4);
    expect(output).toContain("warning: the following units failed: bad.service\n");
    expect([await current(), await bootDefault()]).toEqual([top, top]);
    expect(await ssh(host, "cat /run/greet")).toBe("one\n");
    expect(await activate(top, "switch")).toMatchObject({ exitCode: 4 });
  });

  test("a unit that is about to be tried again after its failure: 4", async () => {
    const restarting = "[Service]\nType=notify\nExecStart=/bin/false\nRestart=on-failure\nRestartSec=60\n";
    const top = await system({ units: { "flaky.service": restarting } });
    expect(await activate(top, "test")).toMatchObject({ exitCode: 4 });
    expect(await current()).toBe(top);
  });

  test("a snippet: 2, the units are started all the same; a failing unit as well makes it 4", async () => {
    const top = await system({ snippet: "false", units: { "greet.service": service("echo one >/run/greet") } });
    const { exitCode, output } = await activate(top, "switch");
    expect(exitCode).toBe(2);
    expect(output).toContain("Activation script snippet 'fixture' failed (1)");
    expect(await current()).toBe(top);
    expect(await ssh(host, "cat /run/greet")).toBe("one\n");
    const both = await system({ snippet: "false", units: { "bad.service": broken } });
    expect(await activate(both, "switch")).toMatchObject({ exitCode: 4 });
  });

  test("a oneshot unit that hangs in its start: `timeout` ends it with 124, and one can go back", async () => {
    const top = await system({ units: { "slow.service": service("sleep 3600") } });
    expect((await trySsh(host, `timeout 2 ${top}/bin/switch-to-configuration test`)).exitCode).toBe(124);
    expect(await current()).toBe(top);
    expect(await activate(before, "test")).toMatchObject({ exitCode: 0 });
    expect(await current()).toBe(before);
    expect((await trySsh(host, "systemctl is-active slow.service")).stdout).toBe("inactive\n");
  });
});

describe("what fails and leaves the old system running", () => {
  test("an activation that exits early: 2, yet changed units were stopped and started", async () => {
    await activate(await system({ units: { "greet.service": service("echo one >/run/greet") } }), "test");
    const first = await current();
    const top = await system({ snippet: "exit 1", units: { "greet.service": service("echo two >/run/greet") } });
    expect(await activate(top, "test")).toMatchObject({ exitCode: 2 });
    expect(await current()).toBe(first);
    expect((await trySsh(host, "systemctl is-active greet.service")).stdout).toBe("active\n");
  });

  test("a pre-switch check: 1, dry-activate too; NIXOS_NO_CHECK=1 skips it", async () => {
    const top = await system({ check: "echo not today; exit 1" });
    for (const action of ["check", "dry-activate", "test", "switch"]) {
      expect(await activate(top, action)).toMatchObject({ exitCode: 1, output: expect.stringContaining("not today") });
    }
    expect([await current(), await bootDefault()]).toEqual([before, before]);
    expect(await activate(top, "test", "NIXOS_NO_CHECK=1")).toMatchObject({ exitCode: 0 });
    expect(await current()).toBe(top);
  });

  test("another init interface: 100", async () => {
    const top = await system({ initInterface: "systemd 3" });
    expect(await activate(top, "test")).toMatchObject({ exitCode: 100 });
    expect([await current(), await bootDefault()]).toEqual([before, before]);
  });

  test("a full /boot: 1 before anything is activated, the old default stays", async () => {
    const top = await system({ kernelKiB: 2048 });
    expect(await activate(top, "switch")).toMatchObject({ exitCode: 1 });
    expect([await current(), await bootDefault()]).toEqual([before, before]);
  });

  test("another one at once: 11", async () => {
    const top = await system({ version: "9" });
    await ssh(
      host,
      `mkdir -p /run/standin && touch /run/standin/hang && systemd-run --quiet --unit=first ${top}/bin/switch-to-configuration test`,
    );
    await ssh(host, "until ! flock -n /run/nixos/switch-to-configuration.lock true; do sleep 0.1; done");
    const second = await activate(top, "test");
    expect(second).toMatchObject({ exitCode: 11, output: expect.stringContaining("Could not acquire lock") });
    expect(await current()).toBe(before);
    await ssh(host, "rm /run/standin/hang; while systemctl is-active --quiet first; do sleep 0.1; done");
    expect(await current()).toBe(top);
  });

  test("not root, an unknown action: 1; a host that is not NixOS: 2", async () => {
    const top = await system({ version: "9" });
    expect((await trySsh(host, `${top}/bin/switch-to-configuration test`, { user: "ops" })).exitCode).toBe(1);
    expect(await activate(top, "swich")).toMatchObject({ exitCode: 1 });
    await ssh(host, "rm /etc/NIXOS");
    expect(await activate(top, "test")).toMatchObject({ exitCode: 2 });
    expect(await current()).toBe(before);
  });
});

describe("an activation that is cut off", () => {
  test("goes on when only the ssh client is killed", async () => {
    const top = await system({ version: "9" });
    await ssh(host, "mkdir -p /run/standin && touch /run/standin/hang");
    const client = ["-F", sshConfig, `root@${host}`, `${top}/bin/switch-to-configuration test`];
    await run("timeout", ["--signal=KILL", "2", "ssh", ...client]);
    expect(await current()).toBe(before);
    await ssh(
      host,
      `rm /run/standin/hang; until [ "$(readlink -f /run/current-system)" = ${top} ]; do sleep 0.1; done`,
    );
  });

  test("ends with its process group, leaves changed units stopped, and the next one starts them", async () => {
    const greet = service("echo one >/run/greet");
    await activate(await system({ units: { "greet.service": greet } }), "test");
    const first = await current();
    const top = await system({ snippet: "sleep 3600", units: { "greet.service": `${greet}# changed\n` } });
    expect((await trySsh(host, `timeout 2 ${top}/bin/switch-to-configuration test`)).exitCode).toBe(124);
    expect(await current()).toBe(first);
    expect((await trySsh(host, "systemctl is-active greet.service")).stdout).toBe("inactive\n");
    expect(await activate(first, "test")).toMatchObject({ exitCode: 0 });
    expect((await trySsh(host, "systemctl is-active greet.service")).stdout).toBe("active\n");
  });

  test("goes on without the program when only that is killed: the lock is free at once, the system moves later", async () => {
    const top = await system({ snippet: "while [ ! -e /run/go ]; do sleep 0.1; done" });
    const lock = "/run/nixos/switch-to-configuration.lock";
    await ssh(host, `systemd-run --quiet --unit=first -p KillMode=process ${top}/bin/switch-to-configuration test`);
    await ssh(host, `until [ -e ${lock} ] && pgrep -x activate; do sleep 0.1; done; ! flock -n ${lock} true`);
    await ssh(
      host,
      "systemctl kill --kill-whom=main --signal=KILL first; until systemctl is-failed first; do sleep 0.1; done",
    );
    await ssh(host, `flock -n ${lock} true`);
    expect(await current()).toBe(before);
    await ssh(host, `touch /run/go; until [ "$(readlink -f /run/current-system)" = ${top} ]; do sleep 0.1; done`);
  });

  test("what it had stopped, and the next one has no longer, costs that one a 4, once", async () => {
    await activate(await system({ units: { "greet.service": service("echo one >/run/greet") } }), "test");
    const slow = { snippet: "sleep 3600", units: { "greet.service": service("echo two >/run/greet") } };
    await trySsh(host, `timeout 2 ${await system(slow)}/bin/switch-to-configuration test`);
    expect(await activate(before, "test")).toMatchObject({ exitCode: 4 });
    expect(await current()).toBe(before);
    expect(await activate(before, "test")).toMatchObject({ exitCode: 0 });
  });
});
