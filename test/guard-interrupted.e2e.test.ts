/** The guard when something goes away meanwhile: the control machine, the cable, the power, the guard itself. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { until } from "./faults.ts";
import {
  activationHeld,
  deployed,
  ended,
  expectNothingLeft,
  expectTimerTidies,
  type GuardFleet,
  holdActivation,
  holdNix,
  host,
  inside,
  kept,
  letGo,
  made,
  nixHeld,
  old,
  prepare,
  state,
} from "./guard.ts";
import { cut, mend, restart, run, ssh, temporaryDirectory, trySsh } from "./hosts.ts";

prepare();

type Running = Awaited<ReturnType<GuardFleet["begin"]>>;
const unit = "nixos-rebuild-switch-to-configuration";

const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** Where a deployment can wait: what makes it, and how one sees that it does. */
const stages = {
  "its copy": { prepare: () => holdNix("nix-store", "--serve"), reached: nixHeld },
  "its build": { prepare: () => holdNix("nix", "build"), reached: nixHeld },
  "its activation": { prepare: holdActivation, reached: activationHeld },
  "the confirmation": {
    prepare: async () => rmSync(go, { force: true }),
    reached: () =>
      until("it is on trial", async () => (await trySsh(host, "ls /run/lollypops/*/activated")).exitCode === 0),
  },
};
type Stage = keyof typeof stages;

/** A check from here, which comes before the confirmation, waits for this file. */
const go = join(temporaryDirectory(), "go");
const waits = (timeout: number) => [
  {
    name: "wait",
    on: "control",
    timeout: String(timeout),
    retries: "0",
    cmd: `until [ -e ${go} ]; do sleep 0.1; done`,
  },
];

/** A deployment that has got to a stage, and waits there; the host has some four seconds of patience with the confirmation. */
async function waitingAt(stage: Stage, patience = 1): Promise<Running> {
  await stages[stage].prepare();
  const checks = stage === "the confirmation" ? waits(patience) : [];
  const running = await made.begin({ flags: `--confirm-timeout ${patience + 3}`, checks });
  await stages[stage].reached();
  return running;
}
/** It need wait no longer. */
async function goOn(): Promise<void> {
  writeFileSync(go, "");
  await ssh(host, letGo);
}
/** What Ctrl-C does: SIGINT to all of the terminal's process group. */
const interrupt = ({ child }: Running) => process.kill(-(child.pid as number), "SIGINT");
/** All that a run has here ends at once. */
async function kill(running: Running): Promise<void> {
  await running.kill();
  await running.child;
}
const onlyOld = async () => expect(await state()).toBe(old);

/** What had been interrupted goes well the next time. */
async function nextRunGoesWell(): Promise<void> {
  await goOn();
  expect((await ended(made.again())).report).toBe(deployed);
  expect(await state()).toBe(kept);
  await expectNothingLeft();
}

describe("the control machine is killed during", () => {
  test.each<[Stage]>([["its copy"], ["its build"]])("%s: nothing has happened", async (stage) => {
    await kill(await waitingAt(stage));
    await goOn();
    await until("nothing is built any more", async () => (await trySsh(host, "pgrep -x nix")).exitCode !== 0);
    await onlyOld();
    await expectNothingLeft();
    await nextRunGoesWell();
  });

  test.each<[Stage]>([["its activation"], ["the confirmation"]])("%s: the host goes back by itself", async (stage) => {
    await kill(await waitingAt(stage));
    await goOn();
    await expectTimerTidies();
    await onlyOld();
    await nextRunGoesWell();
  });
});

describe("Ctrl-C during", () => {
  test.each<[Stage, RegExp]>([
    ["its copy", /^web1: interrupted at deploy-flake/],
    ["its build", /^web1: interrupted at rebuild/],
    ["its activation", /^web1: interrupted at rebuild: by SIGINT; rolled back, <0> runs/],
    ["the confirmation", /^web1: interrupted at rebuild: by SIGINT; rolled back, <0> runs/],
  ])("%s: the host goes back, and the step says so", async (stage, report) => {
    const running = await waitingAt(stage, 600);
    interrupt(running);
    await pause(0.5);
    await ssh(host, letGo);
    await until("the run has ended", () => running.processes().length === 0);
    const result = await ended(running);
    expect(result.report, result.output).toMatch(report);
    expect(result.status).toBe(130);
    await onlyOld();
    await expectNothingLeft();
    await nextRunGoesWell();
  });
});

describe("the cable is cut during", () => {
  test.each<[Stage]>([["its copy"], ["its build"], ["its activation"], ["the confirmation"]])(
    "%s, for a moment: the deployment goes on",
    async (stage) => {
      const running = await waitingAt(stage, 20);
      await cut(1);
      await pause(1);
      await mend(1);
      await goOn();
      const { report, output } = await ended(running);
      expect(report, output).toBe(deployed);
      expect(await state()).toBe(kept);
      await expectNothingLeft();
    },
  );

  test.each<[Stage, RegExp]>([
    ["its copy", /^web1: (failed|unreachable) at deploy-flake/],
    ["its build", /^web1: (failed|unreachable) at rebuild/],
  ])("%s, for longer than ssh waits: nothing has happened", async (stage, report) => {
    const running = await waitingAt(stage);
    await cut(1);
    const result = await ended(running);
    expect(result.report, result.output).toMatch(report);
    await mend(1);
    await goOn();
    await onlyOld();
    await expectNothingLeft();
    await nextRunGoesWell();
  });

  test("its activation, for longer than ssh waits: the deployment goes on", async () => {
    const running = await waitingAt("its activation", 20);
    await cut(1);
    await until("it is noticed", () => running.said().includes("the connection was lost"));
    await mend(1);
    await goOn();
    expect(await ended(running)).toMatchObject({ report: deployed });
    expect(await state()).toBe(kept);
    await expectNothingLeft();
  });

  test("its activation, for nobody but ssh: the deployment goes on", async () => {
    const running = await waitingAt("its activation", 20);
    const logins = running.processes().filter(({ name }) => name === "ssh");
    await run("kill", ["-KILL", ...logins.map(({ pid }) => String(pid))]); // one may end with another
    await until("it is noticed", () => running.said().includes("the connection was lost"));
    await goOn();
    expect(await ended(running)).toMatchObject({ report: deployed });
    expect(await state()).toBe(kept);
    await expectNothingLeft();
  });

  test.each<[Stage]>([["its activation"], ["the confirmation"]])(
    "%s, for longer than the host waits: it goes back, and tells when it is asked",
    async (stage) => {
      const running = await waitingAt(stage);
      await cut(1);
      await inside(letGo);
      await until("it has gone back", async () => (await inside("cat /run/lollypops/*/result")) !== "");
      await mend(1);
      writeFileSync(go, "");
      const { report, status, output } = await ended(running);
      expect([report, status], output).toEqual([
        expect.stringMatching(
          /^web1: rolled-back at rebuild: nobody confirmed within \d+ s over a new connection; <0> runs$/,
        ),
        3,
      ]);
      await onlyOld();
      await expectNothingLeft();
      await nextRunGoesWell();
    },
  );
});

describe("the host is restarted", () => {
  test.each<[Stage]>([["its activation"], ["the confirmation"]])(
    "during %s: it boots the old system",
    async (stage) => {
      const running = await waitingAt(stage, 60);
      await restart(1);
      await goOn();
      const { report, status, output } = await ended(running);
      expect([report, status], output).toEqual([expect.stringMatching(/^web1: rolled-back at rebuild: /), 3]);
      await onlyOld();
      await expectNothingLeft();
      await nextRunGoesWell();
    },
  );

  test("during the confirmation, and nobody asks: the next run goes well", async () => {
    const running = await waitingAt("the confirmation", 60);
    await kill(running);
    await restart(1);
    await onlyOld();
    await nextRunGoesWell();
  });

  test("afterwards: it boots the new one", async () => {
    await made.deploy();
    await restart(1);
    expect(await state()).toBe(kept);
    expect(await ssh(host, "readlink /run/booted-system")).toContain("-web1-new");
  });

  test("after a trial without more: it boots the old one", async () => {
    await made.deploy({ args: ["REBUILD_ACTION=test"] });
    await restart(1);
    await onlyOld();
    await expectNothingLeft();
  });
});

describe("the guard's unit", () => {
  test.each<[string, Stage]>([
    [`systemctl stop --no-block ${unit}`, "its activation"],
    [`systemctl kill --signal=KILL ${unit}`, "its activation"],
    [`systemctl kill --kill-whom=main --signal=KILL ${unit}`, "its activation"],
    [`systemctl stop --no-block ${unit}`, "the confirmation"],
    [`systemctl kill --signal=KILL ${unit}`, "the confirmation"],
    [`systemctl kill --kill-whom=main --signal=KILL ${unit}`, "the confirmation"],
  ])("gets %s during %s: the host goes back", async (command, stage) => {
    const running = await waitingAt(stage, 20);
    await ssh(host, command);
    await pause(0.5);
    await goOn();
    const { report, status, output } = await ended(running);
    expect([report, status], output).toEqual(["web1: rolled-back at rebuild: the activation was killed; <0> runs", 3]);
    await onlyOld();
    await expectNothingLeft();
    await nextRunGoesWell();
  });
});
