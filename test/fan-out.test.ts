/** Deployments of several hosts through the real go-task, with steps that need no host: order, overlap, memory, results. */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { cli, type Result, run, temporaryDirectory } from "./hosts.ts";

let cwd: string;
let env: Record<string, string>;
beforeEach(() => {
  cwd = temporaryDirectory();
  env = { XDG_RUNTIME_DIR: temporaryDirectory(), LOLLYPOPS_RESULTS: "results", NO_COLOR: "1" };
});

type Deployment = Record<string, unknown>;
/** A host whose own step appends its name to a file, and fails where `fail.NAME` exists. */
const host = (name: string, deployment: Deployment = {}) => ({
  deployment,
  tasks: ["check-vars", "own"],
  extraTasks: { own: { cmds: [`echo ${name} >>order; test ! -e fail.${name}`], silent: true } },
});

async function generate(hosts: Record<string, Deployment>): Promise<void> {
  const all = Object.fromEntries(Object.entries(hosts).map(([name, deployment]) => [name, host(name, deployment)]));
  const { stdout, stderr, exitCode } = await cli(["--from", "-"], { cwd, input: JSON.stringify(all) });
  expect([stderr, exitCode]).toEqual(["", 0]);
  writeFileSync(join(cwd, "Taskfile.yml"), stdout);
}
const task = (...args: string[]): Promise<Result> => run("task", args, { cwd, env });
const failing = (...names: string[]) => {
  for (const name of names) writeFileSync(join(cwd, `fail.${name}`), "");
};
const ran = () => {
  const file = join(cwd, "order");
  const names = existsSync(file) ? readFileSync(file, "utf8").split("\n").filter(Boolean) : [];
  writeFileSync(file, "");
  return names;
};
const results = () =>
  readFileSync(join(cwd, "results"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

describe("deployment.order", () => {
  beforeEach(() => generate({ late: { order: 2, group: "g" }, web1: { group: "g" }, web2: {}, early: { order: -3 } }));

  test("lower numbers go first, in deploy-all, a group and a selection", async () => {
    expect((await task("deploy-all")).stdout).toContain("4 of 4 hosts deployed\n");
    expect(ran().map((name) => name.replace(/\d/, ""))).toEqual(["early", "web", "web", "late"]);
    expect((await task("g")).exitCode).toBe(0);
    expect(ran()).toEqual(["web1", "late"]);
    expect((await task("deploy", "--", "late", "early")).exitCode).toBe(0);
    expect(ran()).toEqual(["early", "late"]);
    expect((await task("all:own")).exitCode).toBe(0);
    expect(ran()).toHaveLength(4);
  });

  test("a host that fails is the last wave; retry takes up where it stopped", async () => {
    failing("web2");
    const { stdout, stderr, exitCode } = await task("deploy-all");
    expect(stdout).toContain("2 of 4 hosts deployed; NOT done: 1 failed, 1 skipped\n");
    expect(stdout).toContain("  web2: failed at own: exit 1 (its own words are above)\n");
    expect(stdout).toContain("  late: skipped at check-vars: hosts of a lower order were not deployed: web2\n");
    expect(stderr).toContain("no more hosts begin, since these were not deployed: web2");
    expect([ran().sort(), exitCode]).toEqual([["early", "web1", "web2"], 201]);
    expect((await task("retry")).exitCode).toBe(201);
    expect(ran()).toEqual(["web2"]);
    await run("rm", [join(cwd, "fail.web2")]);
    expect((await task("retry")).stdout).toContain("2 of 2 hosts deployed\n");
    expect(ran()).toEqual(["web2", "late"]);
  });

  test("of a step, likewise; those that only look know no order", async () => {
    failing("early");
    expect((await task("all:own")).exitCode).toBe(201);
    expect(ran()).toEqual(["early"]);
    expect((await task("all:check-vars")).stdout).toContain("4 of 4 hosts with check-vars done\n");
  });
});

describe("retry", () => {
  beforeEach(() => generate({ a: {}, b: {}, "c.1": {} }));

  test("knows nothing at first, and has nothing to do at last", async () => {
    const first = await task("retry");
    expect(first.stderr).toContain("lollypops: nothing is known of an earlier deployment of this fleet");
    expect(first.exitCode).toBe(201);
    expect((await task("deploy-all")).exitCode).toBe(0);
    ran();
    const last = await task("retry");
    expect(last.stderr).toContain("nothing to do again");
    expect([ran(), last.exitCode]).toEqual([[], 0]);
  });

  test("a single host adds to what is known, several replace it; selectors narrow", async () => {
    failing("a", "c.1");
    expect((await task("deploy-all")).exitCode).toBe(201);
    await run("rm", [join(cwd, "fail.a")]);
    expect((await task("a")).exitCode).toBe(0);
    ran();
    expect((await task("retry")).exitCode).toBe(201);
    expect(ran()).toEqual(["c.1"]);
    expect((await task("retry", "--", "c*")).exitCode).toBe(201);
    expect(ran()).toEqual(["c.1"]);
    expect((await task("retry", "--", "a")).exitCode).toBe(0);
    expect((await task("retry", "--", "nope")).stderr).toContain("no host or group matches 'nope'");
    expect(ran()).toEqual([]);
    expect((await task("deploy", "--", "a", "b")).exitCode).toBe(0);
    ran();
    expect((await task("retry")).stderr).toContain("nothing to do again");
  });

  test("what is kept is one small file, its user's alone", async () => {
    failing("a");
    await task("deploy-all");
    await task("retry");
    const runs = join(env["XDG_RUNTIME_DIR"] ?? "", "lollypops");
    const [memory = "", ...others] = readdirSync(runs).filter((name) => name.startsWith("last."));
    expect(others).toEqual([]);
    expect(readFileSync(join(runs, memory), "utf8").trim().split("\n").sort()).toEqual([
      "a failed",
      "b deployed",
      "c.1 deployed",
    ]);
    expect(statSync(join(runs, memory)).mode & 0o777).toBe(0o600);
  });
});

describe("the end", () => {
  test("of groups that share a host, both tell of it, and it is deployed once", async () => {
    await generate({ a: { groups: ["x"] }, b: { groups: ["x", "y"] }, c: { groups: ["y"] } });
    for (const flags of [[], ["-p"]]) {
      const { stdout, exitCode } = await task(...flags, "x", "y");
      expect(stdout.match(/^2 of 2 hosts deployed$/gm)).toHaveLength(2);
      expect([ran().sort(), exitCode]).toEqual([["a", "b", "c"], 0]);
    }
  });

  test.each([["-F"], ["TASK_FAILFAST"], [".taskrc.yml"]])("with failfast by %s no host stops another", async (way) => {
    await generate(Object.fromEntries(["a", "b", "c", "d", "e"].map((name) => [name, {}])));
    failing("a", "c", "e");
    if (way === ".taskrc.yml") writeFileSync(join(cwd, way), "failfast: true\n");
    if (way === "TASK_FAILFAST") env[way] = "1";
    const { stdout, stderr, exitCode } = await task(...(way === "-F" ? [way] : []), "deploy-all", "-C", "2");
    expect(stdout).toContain("2 of 5 hosts deployed; NOT done: 3 failed\n");
    expect([ran().sort(), exitCode]).toEqual([["a", "b", "c", "d", "e"], 201]);
    expect(stderr).toContain("is set: a task of your own that fails may stop the other hosts' tasks");
  });

  test("each host has a line of JSON, also of a single host and of a step by itself", async () => {
    await generate({ a: {}, b: {} });
    failing("b");
    await task("deploy-all");
    await task("a");
    await task("a:check-vars");
    const line = (name: string, outcome: string, step: string) => ({ host: name, outcome, step });
    expect(results()).toMatchObject([
      line("a", "deployed", "own"),
      { ...line("b", "failed", "own"), message: "exit 1 (its own words are above)", seconds: expect.any(Number) },
      line("a", "deployed", "own"),
      line("a", "unchanged", "check-vars"),
    ]);
  });

  test("task -x hands the code on", async () => {
    await generate({ a: {}, b: {} });
    expect((await task("-x", "deploy-all", "LP_REMOTE_USER=-x")).exitCode).toBe(1);
    expect((await task("-x", "deploy-all")).exitCode).toBe(0);
  });

  test("a host named with a dot does not answer to another name", async () => {
    await generate({ "web.1": {} });
    expect((await task("web-1")).stderr).toContain("web-1 is not the name of a task");
    expect((await task("web.1")).stdout).toContain("1 of 1 hosts deployed\n");
  });
});
