/** The guard: what each way of asking for a system ends with. What goes wrong is in guard-failures and guard-interrupted. */
import { describe, expect, test } from "vitest";
import {
  type Deployment,
  deployed,
  ended,
  ends,
  expectNothingLeft,
  harm,
  host,
  kept,
  made,
  old,
  outcome,
  prepare,
  state,
} from "./guard.ts";
import { cli, fleet, ssh, task, trySsh } from "./hosts.ts";

prepare();

const broken = { "bad.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n" };

describe("an action", () => {
  test.each<[string, Deployment, string]>([
    ["switch", {}, kept],
    ["test", {}, "new, 0, 0, 1"],
    ["boot", {}, "0, new, new, 1 2"],
    ["dry-activate", { system: { dry: "echo it would be dry" } }, old],
    ["build", {}, old],
    ["switch", { flags: "--no-guard" }, kept],
    ["switch", { env: { LOLLYPOPS_GUARD: "0" } }, kept],
  ])("%s %j", async (action, deployment, state) => {
    const { output, ...rest } = await outcome({ ...deployment, args: [`REBUILD_ACTION=${action}`] });
    const looked = ["dry-activate", "build"].includes(action);
    const report = looked ? `1 of 1 hosts done with ${action}` : deployed;
    expect(rest).toEqual(ends(0, deployment.env ? `${report} without guard` : report, state));
    expect(output.includes("it would be dry")).toBe(action === "dry-activate");
    await expectNothingLeft();
  });

  test("switch twice: the second finds nothing to do; then once more, with another system", async () => {
    expect(await outcome()).toMatchObject(ends(0, deployed, kept));
    const second = await ended(made.again());
    expect(second).toMatchObject({ status: 0, report: `${deployed}, 1 of them unchanged` });
    expect(second.output).toContain("rebuild: unchanged, <new>");
    expect(await state()).toBe(kept);
    expect(await outcome({ system: { version: "newer" } })).toMatchObject(
      ends(0, deployed, "newer, newer, newer, 1 2 3"),
    );
    await expectNothingLeft();
  });

  test("switch of what only runs so far makes it boot", async () => {
    await made.deploy({ args: ["REBUILD_ACTION=test"] });
    expect(await outcome()).toMatchObject(ends(0, deployed, kept));
    await expectNothingLeft();
  });

  test("switch of what only boots so far makes it run", async () => {
    await made.deploy({ args: ["REBUILD_ACTION=boot"] });
    expect(await outcome()).toMatchObject(ends(0, deployed, kept));
    await expectNothingLeft();
  });
});

describe("a specialisation", () => {
  const system = { specialisation: { fast: { version: "fast" } } };
  test.each<[string, string, number, string, string]>([
    ["switch", "fast", 0, deployed, "fast, new, new, 1 2"],
    ["test", "fast", 0, deployed, "fast, 0, 0, 1"],
    ["boot", "fast", 0, deployed, "0, new, new, 1 2"],
    ["switch", "slow", 1, "web1: failed at rebuild: <new> has no specialisation slow, or is no NixOS system", old],
  ])("%s %s", async (action, name, status, report, state) => {
    const deployment = { system, flags: `--specialisation ${name}`, args: [`REBUILD_ACTION=${action}`] };
    expect(await outcome(deployment)).toMatchObject(ends(status, report, state));
    await expectNothingLeft();
  });

  test("once it runs: unchanged", async () => {
    const deployment = { system, flags: "--specialisation fast" };
    await made.deploy(deployment);
    expect((await outcome(deployment)).output).toContain("rebuild: unchanged, <new>");
  });
});

describe("a unit that fails", () => {
  const rolledBack = (units: string) => `web1: rolled-back at rebuild: units failed: ${units}; <0> runs`;
  const waits = { "x-wait-online.service": broken["bad.service"] };
  test.each<[string, Deployment, number, string, string]>([
    ["rolls back", { system: { units: broken } }, 3, rolledBack("bad.service"), old],
    ["is kept where that is asked for", { system: { units: broken }, flags: "--keep-failed-units" }, 0, deployed, kept],
    ["is ignored by a pattern", { system: { units: broken }, flags: "--ignore-units 'x* b?d.*'" }, 0, deployed, kept],
    ["is ignored if it waits to be online", { system: { units: waits } }, 0, deployed, kept],
    [
      "is ignored by no pattern",
      { system: { units: waits }, flags: "--ignore-units ''" },
      3,
      rolledBack("x-wait-online.service"),
      old,
    ],
    [
      "stays without a guard",
      { system: { units: broken }, flags: "--no-guard" },
      1,
      "web1: failed at rebuild: units failed: bad.service (<new> runs, but is not the boot default)",
      "new, 0, 0, 1",
    ],
  ])("%s", async (_, deployment, status, report, state) => {
    const { output, ...rest } = await outcome(deployment);
    expect(rest).toEqual(ends(status, report, state));
    expect(output).toContain("warning: the following units failed: ");
    await expectNothingLeft();
  });

  test("does not count if it had failed before", async () => {
    await made.deploy({ system: { units: broken, version: "1" }, flags: "--keep-failed-units" });
    expect(await outcome({ system: { units: broken } })).toMatchObject(ends(0, deployed, "new, new, new, 1 2 3"));
    // What fails because of the new system still does.
    const more = { ...broken, "worse.service": broken["bad.service"] };
    const report = "web1: rolled-back at rebuild: units failed: worse.service; <new> runs";
    expect(await outcome({ system: { units: more, version: "2" } })).toMatchObject(
      ends(3, report, "new, new, new, 1 2 3"),
    );
    await expectNothingLeft();
  });
});

describe("health checks", () => {
  const here = { on: "control" };
  const flaps = (file: string) => ({ cmd: `echo >>${file}; [ $(wc -l <${file}) -ge 3 ]` });
  const failed = (names: string) => `web1: rolled-back at rebuild: health check failed: ${names}; <0> runs`;
  const meets = (own: string, other: string) => ({
    cmd: `touch /run/met.${own}; until [ -e /run/met.${other} ]; do sleep 0.1; done`,
    retries: "0",
  });

  test.each<[string, Record<string, string>[], number, string]>([
    ["pass on the host", [{ name: "a", cmd: "[ -e /run/current-system/sw ]" }], 0, deployed],
    ["pass from here, told the address", [{ name: "a", ...here, cmd: `[ $REMOTE_HOST = ${host} ]` }], 0, deployed],
    ["pass the third time", [{ name: "a", ...flaps("/run/flaps") }], 0, deployed],
    [
      "run at once",
      [
        { name: "a", ...meets("a", "b") },
        { name: "b", ...meets("b", "a") },
      ],
      0,
      deployed,
    ],
    ["fail on the host", [{ name: "a", retries: "0", cmd: "echo no web; exit 3" }], 3, failed("a")],
    ["fail from here", [{ name: "a", ...here, retries: "0", cmd: "echo no web; exit 3" }], 3, failed("a")],
    [
      "fail, one of two",
      [
        { name: "a", cmd: "true" },
        { name: "b", retries: "0", cmd: "echo no web; false" },
      ],
      3,
      failed("b"),
    ],
    ["fail after their last try", [{ name: "a", retries: "1", ...flaps("/run/flaps") }], 3, failed("a")],
    ["hang on the host", [{ name: "a", timeout: "1", retries: "0", cmd: "echo no web; sleep 3600" }], 3, failed("a")],
    [
      "hang from here",
      [{ name: "a", ...here, timeout: "1", retries: "0", cmd: "echo no web; sleep 3600" }],
      3,
      failed("a"),
    ],
  ])("%s", async (_, checks, status, report) => {
    await ssh(host, "rm -f /run/flaps /run/met.*");
    const { output, ...rest } = await outcome({ checks });
    expect(rest).toEqual(ends(status, report, status === 0 ? kept : old));
    if (checks.some(({ cmd }) => cmd?.includes("no web"))) expect(output).toMatch(/health check [ab]: no web/);
    expect((await trySsh(host, "pgrep -fx 'sleep 3600'")).stdout).toBe("");
    await expectNothingLeft();
  });

  test("are not asked without a guard's trial", async () => {
    const checks = [{ name: "a", cmd: "false", retries: "0" }];
    expect(await outcome({ checks, args: ["REBUILD_ACTION=boot"] })).toMatchObject(
      ends(0, deployed, "0, new, new, 1 2"),
    );
  });
});

test("a new address is confirmed where the new system is asked", async () => {
  const { status, report } = await made.deploy({
    system: { units: { "network.service": harm.moves } },
    flags: "--confirm-host pop1-moved",
  });
  expect(ends(status, report, await state("pop1-moved"))).toEqual(ends(0, deployed, kept));
});

test("the options of the configuration mean the same", async () => {
  const deployment = {
    specialisation: "fast",
    guard: { "confirm-timeout": 30, "activation-timeout": 60, "on-failed-units": "keep", "ignore-units": [] },
    "health-checks": {
      well: { command: "[ $REMOTE_HOST = pop1 ]", on: "control" },
      ill: { command: "[ ! -e /run/current-system ]", retries: 0, timeout: 5 },
    },
  };
  const bare = { files: { greeting: null, "api token": null, "tls/key.pem": null } };
  const units = { "hello.service": null, ...broken };
  const host = { version: "new", units, specialisation: { fast: { version: "fast" } } };
  const { dir } = await fleet({ hosts: { web1: { ...host, lollypops: { deployment, secrets: bare } } } });
  expect(await cli(["-o", "Taskfile.yml"], { cwd: dir })).toMatchObject({ exitCode: 0, stderr: "" });
  const { stdout } = await task(["web1"], { cwd: dir });
  expect(stdout).toContain("warning: the following units failed: bad.service");
  expect(stdout).toMatch(/web1: rebuild rolled-back: health check failed: ill; \/nix\/store\/.*-web1-0 runs/);
  expect(await state()).toBe(old);
  await expectNothingLeft();
});
