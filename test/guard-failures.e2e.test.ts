/** The guard against systems and hosts on which something is wrong: each case ends as told, on a host that can be reached. */
import { afterEach, describe, expect, test } from "vitest";
import {
  activationHeld,
  type Deployment,
  deployed,
  ended,
  ends,
  expectNothingLeft,
  fillDisk,
  freeDisk,
  harm,
  holdActivation,
  host,
  kept,
  letGo,
  made,
  old,
  outcome,
  prepare,
  state,
} from "./guard.ts";
import { ssh, task } from "./hosts.ts";

prepare();
afterEach(async () => {
  await ssh(host, "umount /nix/var/nix/profiles /usr/bin/date 2>/dev/null || :");
});

const failed = (why: string) => `web1: failed at rebuild: ${why}`;
const unchanged = (code: number, why: string) =>
  failed(`switch-to-configuration test ended with ${code}, and nothing changed: ${why}`.trimEnd());
const rolledBack = (why: string) => `web1: rolled-back at rebuild: ${why}; <0> runs`;
const nobody = rolledBack("nobody confirmed within 4 s over a new connection");
const full = "the boot loader failed with 1; look at /boot: Failed to install bootloader";
const patience = "--confirm-timeout 4";

const hanging = { "slow.service": "[Service]\nType=oneshot\nExecStart=/bin/sleep 3600\n" };
const network = (unit: string) => ({ units: { "network.service": unit } });
const exit0 = "mkdir -p /run/standin; touch /run/standin/exit-0-nothing-done";
const lockFor = (seconds: number) =>
  `mkdir -p /run/nixos; systemd-run --quiet flock /run/nixos/switch-to-configuration.lock sleep ${seconds}`;

describe("the activation", () => {
  test.each<[string, string, Deployment, number, string]>([
    [
      "is refused by a check: 1",
      "",
      { system: { check: "echo not today; exit 1" } },
      1,
      unchanged(1, "Pre-switch checks failed"),
    ],
    [
      "has a snippet that fails: 2",
      "",
      { system: { snippet: "false" } },
      3,
      rolledBack("an activation snippet failed: Activation script snippet 'fixture' failed (1)"),
    ],
    [
      "ends early: 2",
      "",
      { system: { snippet: "echo no more; exit 1" } },
      3,
      rolledBack("switch-to-configuration test ended with 2: no more"),
    ],
    [
      "has a unit that fails: 4",
      "",
      { system: { units: { "bad.service": "[Service]\nExecStart=/bin/false\nType=oneshot\n" } } },
      3,
      rolledBack("units failed: bad.service"),
    ],
    [
      "needs a reboot: 100",
      "",
      { system: { initInterface: "systemd 3" } },
      1,
      unchanged(
        100,
        "Warning: the new configuration has an init that is incompatible with the current one; reboot to run it.",
      ),
    ],
    ["does nothing, and says 0", exit0, {}, 1, unchanged(0, "")],
    ["finds the lock taken for a while: 11", lockFor(5), {}, 0, deployed],
    [
      "hangs in a snippet",
      "",
      { system: { snippet: "sleep 3600" }, flags: "--activation-timeout 3" },
      3,
      rolledBack("the activation did not end within 3 s"),
    ],
    [
      "hangs in a unit",
      "",
      { system: { units: hanging }, flags: "--activation-timeout 3" },
      3,
      rolledBack("the activation did not end within 3 s"),
    ],
    ["ends all logins", "", { system: { snippet: "pkill -KILL sshd-session || :" } }, 0, deployed],
    ["stops sshd", "", { system: network(harm.stopsSshd), flags: patience }, 3, nobody],
    ["moves sshd to another port", "", { system: network(harm.sshdOnPort2222), flags: patience }, 3, nobody],
    ["blocks this machine", "", { system: network(harm.blocks), flags: patience }, 3, nobody],
    ["changes the address", "", { system: network(harm.moves), flags: patience }, 3, nobody],
    [
      "changes another address than it was told",
      "",
      { system: network(harm.blocks), flags: `${patience} --confirm-host pop1-moved` },
      3,
      nobody,
    ],
  ])("%s", async (_, before, deployment, status, report) => {
    if (before !== "") await ssh(host, before);
    const { output, ...rest } = await outcome(deployment);
    expect(rest, output).toEqual(ends(status, report, status === 0 ? kept : old));
    await ssh(host, "rm -rf /run/standin; ! pgrep -fx 'sleep 3600'");
    await expectNothingLeft();
  });
});

describe("what is to be kept", () => {
  const readOnly =
    "mount --bind /nix/var/nix/profiles /nix/var/nix/profiles; mount -o remount,bind,ro /nix/var/nix/profiles";

  const unwritten = "the old boot entries could not be written again. Look at /boot before you reboot; <0> runs";
  const fails = "mkdir -p /run/standin; touch /run/standin/bootloader-fails";
  const boot = { args: ["REBUILD_ACTION=boot"] };
  const big = { system: { kernelKiB: 2048 } };

  test.each<[string, string, Deployment, number, string]>([
    ["does not fit on /boot", "", big, 3, rolledBack(full)],
    [
      "does not fit on /boot, only to boot",
      "",
      { ...big, ...boot },
      1,
      failed(`${full}; the old system is to boot next (the old system runs)`),
    ],
    ["meets a boot loader that fails, the old system's too", fails, {}, 3, rolledBack(full)],
    ["cannot be the profile's", readOnly, {}, 3, "web1: rolled-back at rebuild: the profile could not be set: "],
  ])("%s", async (_, before, deployment, status, report) => {
    if (before !== "") await ssh(host, before);
    const { output, ...rest } = await outcome(deployment);
    expect(rest, output).toEqual(ends(status, expect.stringContaining(report), old));
    await ssh(host, "rm -rf /run/standin");
    await expectNothingLeft();
  });

  test("meets a boot loader that fails, and nobody knows what boots", async () => {
    await ssh(host, `${fails}; rm /boot/loader/loader.conf`);
    const { status, report } = await made.deploy();
    expect([status, report]).toEqual([5, `web1: unknown at rebuild: ${full}; ${unwritten}`]);
    await ssh(host, letGo);
    await expectNothingLeft();
  });

  test("is kept on a disk that is full, or not at all", async () => {
    await holdActivation();
    const running = await made.begin({ system: { snippet: "echo x >>/var/log/full" } });
    await activationHeld();
    await fillDisk();
    await ssh(host, letGo);
    const { report, output } = await ended(running);
    await freeDisk();
    expect(report, output).toMatch(/^web1: rolled-back at rebuild: /);
    expect(await state()).toBe(old);
    await expectNothingLeft();
  });
});

describe("the host", () => {
  test("has a full disk: the flake does not get there", async () => {
    await fillDisk();
    const { report } = await made.deploy({ system: { dry: `# ${Date.now()}` } });
    await freeDisk();
    expect(report).toMatch(/^web1: failed at deploy-flake: error: /);
    expect(await state()).toBe(old);
    await expectNothingLeft();
  });

  test("has no system that runs: it is left alone", async () => {
    await ssh(host, "rm /run/current-system");
    const { report, status } = await made.deploy();
    expect(report).toMatch(/^web1: failed at rebuild: this target never ran NixOS/);
    expect(status).toBe(1);
    await expectNothingLeft();
  });

  test("is reached as somebody who may not activate: it is left alone", async () => {
    await made.deploy();
    const { stdout, stderr } = await task(["web1:rebuild", "LP_REMOTE_USER=ops"], { cwd: made.dir });
    const why = "activating needs root: set deployment.sudo.enable, or deploy as root";
    expect(stdout + stderr).toContain(`web1: rebuild failed: ${why}`);
  });

  test("has what a run left that nobody came back for: it goes with the next activation", async () => {
    const left = "/run/lollypops/0123";
    await ssh(host, `mkdir -p ${left}; touch -d '2 hours ago' ${left}; ln -s /nix /nix/var/nix/gcroots/lollypops-0123`);
    expect(await made.deploy()).toMatchObject({ status: 0, report: deployed });
    await expectNothingLeft();
  });

  test.each<[string, Deployment, number, string, string]>([
    ["gets its first", {}, 0, deployed, "new, new, new, 1"],
    ["keeps none", { system: { kernelKiB: 2048 } }, 3, rolledBack(full), "0, 0, /nix/var/nix/profiles/system, *"],
  ])("never had a generation: %s", async (_, deployment, status, report, state) => {
    await ssh(host, "rm /nix/var/nix/profiles/system*");
    const { output, ...rest } = await outcome(deployment);
    expect(rest, output).toEqual(ends(status, report, state));
    await expectNothingLeft();
  });

  test("is deployed to twice at once: the second is told who is at it", async () => {
    await holdActivation();
    const first = await made.begin();
    await activationHeld();
    const second = await ended(made.again());
    expect(second.report, second.output).toMatch(
      /^web1: failed at rebuild: the host is busy with: lollypops-gen for web1, by root at .*, since /,
    );
    await ssh(host, letGo);
    expect(await ended(first)).toMatchObject({ status: 0, report: deployed });
    expect(await state()).toBe(kept);
    await expectNothingLeft();
  });

  test("is being rebuilt by nixos-rebuild: that is left alone", async () => {
    await ssh(
      host,
      "systemd-run --quiet --unit=nixos-rebuild-switch-to-configuration --description='by hand' sleep 3600",
    );
    const { report, output } = await made.deploy();
    expect(report, output).toMatch(/^web1: failed at rebuild: the host is busy with: by hand, since /);
    expect(await ssh(host, "systemctl is-active nixos-rebuild-switch-to-configuration")).toBe("active\n");
    await ssh(host, "systemctl stop nixos-rebuild-switch-to-configuration");
    expect(await state()).toBe(old);
    await expectNothingLeft();
  });

  test("was rebuilt by nixos-rebuild, which failed: its unit is in nobody's way", async () => {
    await ssh(host, "systemd-run --quiet --wait --unit=nixos-rebuild-switch-to-configuration false || :");
    expect(await made.deploy()).toMatchObject({ status: 0, report: deployed });
    await expectNothingLeft();
  });

  test("has a clock that jumps: the host's patience does not change", async () => {
    const jumps = '#!/bin/sh\nexec /run/date -d @$(($(/run/date +%s) + $(od -An -N3 -tu4 /dev/urandom) * 1000)) "$@"';
    await ssh(
      host,
      `cp /usr/bin/date /run/date; cat >/run/jumping; chmod 755 /run/jumping; mount --bind /run/jumping /usr/bin/date`,
      { input: jumps },
    );
    expect(await made.deploy()).toMatchObject({ status: 0, report: deployed });
    const blocked = { system: { version: "2", ...network(harm.blocks) }, flags: patience };
    const { report, output } = await made.deploy(blocked);
    expect(report, output).toBe(nobody.replace("<0>", "<new>"));
    await expectNothingLeft();
  });
});
