/** The guard against systems and hosts on which something is wrong: each case ends as told, on a host that can be reached. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { until } from "./faults.ts";
import {
  activationHeld,
  type Deployment,
  ended,
  expectNothingLeft,
  fillDisk,
  freeDisk,
  type GuardFleet,
  guardFleet,
  harm,
  holdActivation,
  holdNix,
  host,
  letGo,
  nixHeld,
  state,
} from "./guard.ts";
import { ssh } from "./hosts.ts";

let made: GuardFleet;
beforeAll(async () => {
  made = await guardFleet();
});
beforeEach(() => made.renew());
afterAll(() => made.renew());
afterEach(async () => {
  await ssh(host, "umount /nix/var/nix/profiles /usr/bin/date 2>/dev/null || :");
});

const old = "0, 0, 0, 1";
const kept = "new, new, new, 1 2";
const deployed = "1 of 1 hosts deployed";
const failed = (why: string) => `web1: failed at rebuild: ${why}`;
const unchanged = (code: number, why: string) =>
  failed(`switch-to-configuration test ended with ${code}, and nothing changed: ${why}`.trimEnd());
const rolledBack = (why: string) => `web1: rolled-back at rebuild: ${why}; <0> runs`;
const nobody = rolledBack("nobody confirmed within 4 s over a new connection");
const patience = "--confirm-timeout 4";

async function outcome(deployment: Deployment = {}) {
  const { status, report, output } = await made.deploy(deployment);
  return { status, report, state: await state(), output };
}
const ends = (status: number, report: string, state: string) => ({ status, report, state });

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

  test.each<[string, string, Deployment, string, string]>([
    [
      "does not fit on /boot",
      "",
      { system: { kernelKiB: 2048 } },
      "the boot loader failed with 1; look at /boot: ",
      old,
    ],
    [
      "meets a boot loader that fails every time",
      "mkdir -p /run/standin; touch /run/standin/bootloader-fails",
      {},
      "",
      old,
    ],
    ["cannot be the profile's", readOnly, {}, "the profile could not be set: ", old],
  ])("%s", async (_, before, deployment, why, state) => {
    if (before !== "") await ssh(host, before);
    const { output, ...rest } = await outcome(deployment);
    console.log(output, rest);
    expect(rest.report).toContain(why);
    expect(rest.state).toBe(state);
    await ssh(host, letGo);
    await expectNothingLeft();
  });
});
