/** Deployments of several hosts, one at a time, that are told to stop in the middle: by whom, and where they were. */
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { until, withConfig } from "./faults.ts";
import { cut, mend, root, task, temporaryDirectory } from "./hosts.ts";
import {
  expectNothingThere,
  letGo,
  marks,
  names,
  place,
  prefetching,
  refused,
  type Stage,
  slowPrefetch,
  stages,
  tidy,
  waitHere,
  waitingAt,
} from "./stages.ts";
import { type OnTerminal, onTerminal } from "./terminal.ts";

let running: OnTerminal;
let env: Record<string, string> & { XDG_RUNTIME_DIR: string; TMPDIR: string };
beforeEach(() => {
  env = { XDG_RUNTIME_DIR: temporaryDirectory(), TMPDIR: temporaryDirectory() };
});
afterEach(async () => {
  await running.kill();
  await letGo();
  await tidy();
});

const oneByOne = ["task", "-C", "1", "deploy-all"];

/** A fleet with something to deploy, and a deployment of it on a terminal. */
async function begin(kind: Parameters<typeof place>[0], words: string[], more: Record<string, string> = {}) {
  const { dir, renew, look } = await place(kind);
  await renew();
  const before = await Promise.all(names.map(look));
  return { dir, look, before, go: () => (running = onTerminal(dir, words, { ...env, ...more })) };
}
type Begun = Awaited<ReturnType<typeof begin>>;

/** One of three hosts, of which the first has got to a stage. */
async function interruptible(stage: Stage, words = oneByOne) {
  const begun = await begin(stages[stage].kind, words);
  await stages[stage].hold();
  begun.go();
  const busy = await waitingAt(stage, env.XDG_RUNTIME_DIR);
  return { ...begun, stage, busy, waiting: names.filter((name) => name !== busy) };
}
type Interruptible = Awaited<ReturnType<typeof interruptible>>;

async function stop(dir: string): Promise<void> {
  const { stdout, exitCode } = await task(["stop"], { cwd: dir, env });
  expect([stdout, exitCode]).toEqual([
    expect.stringContaining("told to stop, and to tell what became of the hosts: go-task, process"),
    0,
  ]);
}
/** How it is told to stop; which signal the steps then name, if anybody is left to tell; and what the terminal's command exits with. */
const ways = {
  "Ctrl-C": { stop: () => running.type("\x03"), by: "SIGINT", code: 201 },
  "SIGTERM to the group": { stop: () => process.kill(-running.leader(), "SIGTERM"), by: "SIGTERM", code: 201 },
  "task stop": { stop, by: "SIGTERM", code: 201 },
  "the end of the terminal": { stop: () => running.hangUp(), by: undefined, code: undefined },
  "kill -9 of task": { stop: () => process.kill(running.leader(), "SIGKILL"), by: undefined, code: 137 },
} as const;
type Way = keyof typeof ways;

/** It has ended on both sides, and left nothing. */
async function ended(run?: Interruptible) {
  if (run?.stage === "its activation") {
    await refused(run.busy);
    await letGo();
  }
  await until("the run has ended", () => running.processes().length === 0);
  const { exitCode } = await running.child;
  await letGo();
  await expectNothingThere();
  expectNothingHere();
  return { exitCode, output: running.said() };
}

/** Neither sockets nor FIFOs nor temporary directories. */
function expectNothingHere(): void {
  const all = readdirSync(env.XDG_RUNTIME_DIR, { recursive: true, encoding: "utf8" });
  const special = all.filter((name) => {
    const found = statSync(join(env.XDG_RUNTIME_DIR, name));
    return found.isSocket() || found.isFIFO();
  });
  expect([special, readdirSync(env.TMPDIR)]).toEqual([[], []]);
}

/** Nothing was deployed, and what waited never began. */
async function expectUntouched({ before, look }: Begun, waiting: readonly string[] = names): Promise<void> {
  expect(await Promise.all(names.map(look)), running.said()).toEqual(before);
  expect(running.said()).not.toMatch(new RegExp(`^\\[(${waiting.join("|")})\\]`, "m"));
}

/** `retry` deploys all of it; each line of that names its host, up to the summary. */
async function expectRetried({ dir, before, look }: Begun): Promise<void> {
  const { stdout, stderr, exitCode } = await task(["retry"], { cwd: dir, env });
  expect(exitCode, stdout + stderr).toBe(0);
  const [lines = "", summary] = stdout.split(/^(?=\d of )/m);
  expect(summary).toMatch(/^3 of 3 hosts deployed\ntook /);
  expect(lines).toMatch(new RegExp(`^(\\[(${names.join("|")})\\] .*\n)+$`));
  for (const [index, name] of names.entries()) expect(await look(name)).not.toBe(before[index]);
  await expectNothingThere();
  expectNothingHere();
}

/** What the summary says of each host, by name. */
function report(output: string): Record<string, string> {
  const lines = [...output.matchAll(/^ {2}(\w+): (.*)$/gm)];
  return Object.fromEntries(lines.map(([, name = "", words = ""]) => [name, words]));
}
/** The words for all that had not begun, in a fleet with this first step. */
const beforeItBegan = (step: string, hosts: readonly string[] = names) =>
  Object.fromEntries(hosts.map((name) => [name, `interrupted at ${step}: before it began`]));
const firstSteps = { systems: "deploy-flake", secrets: "deploy-secrets", own: "smoke" } as const;

/** What is said of the host that was busy, where its system was `version`. */
const words: Record<Stage, (by: string, version: string) => RegExp> = {
  "its copy": (by) => new RegExp(`^interrupted at deploy-flake: by ${by}; `),
  "its build": (by) => new RegExp(`^interrupted at rebuild: by ${by}; the connection ended early`),
  "its activation": (by, version) =>
    new RegExp(`^interrupted at rebuild: by ${by}; rolled back, \\S+-nixos-system-\\w+-${version} runs$`),
  "a secret's command": (by) => new RegExp(`^interrupted at deploy-secrets: by ${by}; nothing was sent$`),
  "a task of the user's own": () => /^interrupted at smoke: exit \d+ \(its own words are above\)$/,
};

function expectReport(run: Interruptible, by: string, output: string): void {
  expect(output).toContain("\n0 of 3 hosts deployed; NOT done: 3 interrupted\n");
  const [version = ""] = run.before[names.indexOf(run.busy)]?.split(",") ?? [];
  expect(report(output)).toEqual({
    ...beforeItBegan(firstSteps[stages[run.stage].kind], run.waiting),
    [run.busy]: expect.stringMatching(words[run.stage](by, version)),
  });
}

const table: [Way, Stage][] = [
  ...(Object.keys(ways) as Way[]).flatMap((way): [Way, Stage][] => [
    [way, "its build"],
    [way, "its activation"],
  ]),
  ["Ctrl-C", "a secret's command"],
  ["task stop", "a secret's command"],
  ["kill -9 of task", "a secret's command"],
  ["Ctrl-C", "its copy"],
];

describe("three hosts, one at a time: no other host begins, nothing is left, and retry goes on, after", () => {
  test.each(table)("%s during %s", async (way, stage) => {
    const run = await interruptible(stage);
    const { stop, by, code } = ways[way];
    await stop(run.dir);
    const { exitCode, output } = await ended(run);
    expect(exitCode).toBe(code);
    if (by !== undefined) expectReport(run, by, output);
    await expectUntouched(run, run.waiting);
    await expectRetried(run);
  });

  test("the death of all that runs here, during its build", async () => {
    const run = await interruptible("its build");
    await running.kill();
    await letGo();
    await expectNothingThere();
    await expectUntouched(run, run.waiting);
    await expectRetried(run);
  });
});

describe("a task of the user's own, on one host", () => {
  const alone = () => interruptible("a task of the user's own", ["task", "web1"]);
  test.each<[Way]>([["Ctrl-C"], ["SIGTERM to the group"]])("%s ends it, and the summary says so", async (way) => {
    const { dir, stage } = await alone();
    await ways[way].stop(dir);
    const { exitCode, output } = await ended();
    expect([exitCode, report(output)["web1"]]).toEqual([201, expect.stringMatching(words[stage]("", ""))]);
  });

  test("task stop lets it end by itself", async () => {
    const { dir } = await alone();
    await stop(dir);
    await letGo();
    expect((await ended()).output).toContain("1 of 1 hosts deployed\n");
  });
});

describe("a second Ctrl-C", () => {
  test("ends the step at once, and the host goes back by itself", async () => {
    const { busy, before, look } = await interruptible("its activation");
    running.type("\x03");
    await until("it has told the host", () => running.said().includes("telling the host to go back"));
    await refused(busy);
    running.type("\x03");
    await until("the run has ended", () => running.processes().length === 0);
    expect(report(running.said())[busy]).toMatch(
      /^interrupted at rebuild: by SIGINT; the host goes back to \S+ by itself, unless it was confirmed$/,
    );
    await letGo();
    await until("it has gone back", async () => (await look(busy)) === before[names.indexOf(busy)]);
  });
});

describe("lollypops-gen run, and nobody else, gets", () => {
  const command = [process.execPath, join(root, "dist/cli.js"), "run", "--", "-C", "1", "deploy-all"];
  test.each<[NodeJS.Signals, number, Stage]>([
    ["SIGTERM", 143, "its build"],
    ["SIGINT", 130, "its activation"],
    ["SIGHUP", 129, "its activation"],
  ])("%s: it exits with %i, and was in %s", async (signal, code, stage) => {
    const run = await interruptible(stage, command);
    process.kill(running.leader(), signal);
    const { exitCode, output } = await ended(run);
    expect(exitCode).toBe(code);
    expectReport(run, signal, output);
    await expectUntouched(run, run.waiting);
    await expectRetried(run);
  });
});

describe("before any host begins", () => {
  test("Ctrl-C while a dead host is asked: none does", async () => {
    const run = await begin("systems", oneByOne);
    await cut(3);
    try {
      run.go();
      const asked = () =>
        readdirSync(env.XDG_RUNTIME_DIR, { recursive: true }).some((name) => /db1\.log$/.test(`${name}`));
      await until("it is asked", asked);
      running.type("\x03");
      await until("the run has ended", () => running.processes().length === 0);
    } finally {
      await mend(3);
    }
    const { exitCode, output } = await ended();
    expect([exitCode, report(output)]).toEqual([201, beforeItBegan("deploy-flake")]);
    await expectUntouched(run);
  });

  test.each<[Way]>([["Ctrl-C"], ["task stop"], ["the end of the terminal"], ["kill -9 of task"]])(
    "%s while the flake is fetched: none does",
    async (way) => {
      const run = await begin("systems", oneByOne, { PATH: [slowPrefetch(), process.env["PATH"]].join(delimiter) });
      await waitHere();
      run.go();
      await prefetching();
      await ways[way].stop(run.dir);
      const { exitCode, output } = await ended();
      expect(exitCode).toBe(ways[way].code);
      if (ways[way].by !== undefined) expect(report(output)).toEqual(beforeItBegan("deploy-flake"));
      await expectUntouched(run);
    },
  );
});

describe("LOLLYPOPS_TIMEOUT", () => {
  const seconds = { LOLLYPOPS_TIMEOUT: "8" };
  test("ends steps that hang, and no other", async () => {
    const run = await begin("systems", ["task", "deploy-all"], seconds);
    await stages["its build"].hold();
    run.go();
    await until("the run has ended", () => running.processes().length === 0);
    const { output } = await ended();
    expect(output).toContain("\n0 of 3 hosts deployed; NOT done: 3 failed\n");
    const hung = expect.stringMatching(/^failed at rebuild: not done within 8 s \(LOLLYPOPS_TIMEOUT\); /);
    expect(report(output)).toEqual(Object.fromEntries(names.map((name) => [name, hung])));
    await expectRetried(run);
  });

  test("lets an activation that hangs go back", async () => {
    const run = await begin("systems", ["task", "web1"], seconds);
    await stages["its activation"].hold();
    run.go();
    await waitingAt("its activation", env.XDG_RUNTIME_DIR);
    await refused("web1");
    await letGo();
    const { output } = await ended();
    expect(report(output)["web1"]).toMatch(
      /^rolled-back at rebuild: not done within 8 s \(LOLLYPOPS_TIMEOUT\); rolled back, \S+ runs$/,
    );
    await expectUntouched(run, ["web2", "db1"]);
  });
});

describe("on a terminal", () => {
  test("a line tells from time to time how far all are", async () => {
    const { busy } = await interruptible("a secret's command");
    const [mark] = marks(env.XDG_RUNTIME_DIR);
    writeFileSync(join(mark?.run ?? "", "progress"), "0\n"); // it is due
    const line = new RegExp(
      `^\\[${busy}\\] 0 of 3 hosts done, 0 failed, 2 waiting; longest: ${busy} \\(deploy-secrets, \\d+ s\\)$`,
      "m",
    );
    await until("it is told", () => line.test(running.said()));
    await letGo();
    expect((await ended()).exitCode).toBe(0);
  });

  test.each<[string, Record<string, string>, string]>([
    ["colours", { NO_COLOR: "" }, "\n\x1b[32m3 of 3 hosts deployed\x1b[0m\n"],
    ["none with NO_COLOR", { NO_COLOR: "1" }, "\n3 of 3 hosts deployed\n"],
  ])("the summary has %s", async (_, more, summary) => {
    (await begin("secrets", ["task", "deploy-all"], more)).go();
    expect((await ended()).output).toContain(summary);
  });

  test("and in a pipe it has no colours", async () => {
    const { dir } = await begin("secrets", []);
    const { stdout } = await task(["deploy-all"], { cwd: dir, env: { ...env, NO_COLOR: "" } });
    expect(stdout).toContain("\n3 of 3 hosts deployed\n");
  });
});

describe("a host key that is not known", () => {
  const unknown = () =>
    withConfig(`-o StrictHostKeyChecking=ask -o UserKnownHostsFile=${join(temporaryDirectory(), "known")}`);

  test("of several hosts: nobody is asked, and each says what to do", async () => {
    const run = await begin("secrets", ["task", "deploy-all"], unknown());
    run.go();
    const { output } = await ended();
    const told = expect.stringMatching(/^unreachable at connect: Host key verification failed: the key is not known/);
    expect(report(output)).toEqual(Object.fromEntries(names.map((name) => [name, told])));
    expect(output).not.toContain("yes/no");
    await expectUntouched(run);
  });

  test("of one: ssh asks, and yes goes on", async () => {
    (await begin("secrets", ["task", "web1"], unknown())).go();
    await until("ssh asks", () => running.said().includes("(yes/no"));
    running.type("yes\n");
    expect((await ended()).output).toContain("1 of 1 hosts deployed");
  });
});
