/** Deployments of several hosts through the real go-task, with steps that need no host: order, overlap, memory, results. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
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
// go-task's own echo writes a line and its end apart, between which another's may come.
/** A host whose own step appends its name to a file, and fails where `fail.NAME` exists, or `ask.NAME` as go-task does. */
const host = (name: string, deployment: Deployment = {}) => ({
  deployment,
  tasks: ["check-vars", "own"],
  extraTasks: {
    own: { cmds: [`env echo ${name} >>order; test ! -e fail.${name}`, { task: "asked" }], silent: true },
    asked: { preconditions: [`test ! -e ask.${name}`], cmds: [":"], silent: true },
  },
});

async function generate(hosts: Record<string, Deployment>): Promise<void> {
  await generateFrom(Object.fromEntries(Object.entries(hosts).map(([name, own]) => [name, host(name, own)])));
}
async function generateFrom(hosts: Record<string, object>, file = "Taskfile.yml"): Promise<void> {
  const { stdout, stderr, exitCode } = await cli(["--from", "-"], { cwd, input: JSON.stringify(hosts) });
  expect([stderr, exitCode]).toEqual(["", 0]);
  writeFileSync(join(cwd, file), stdout);
}
const task = (...args: string[]): Promise<Result> => run("task", args, { cwd, env });
const failing = (...names: string[]) => touch(...names.map((name) => `fail.${name}`));
function touch(...files: string[]): void {
  for (const file of files) writeFileSync(join(cwd, file), "");
}
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
    rmSync(join(cwd, "fail.web2"));
    expect((await task("retry")).stdout).toContain("2 of 2 hosts deployed\n");
    expect(ran()).toEqual(["web2", "late"]);
  });

  test("go-task exits with what the hosts before came to", async () => {
    failing("early");
    expect((await task("-x", "deploy-all")).exitCode).toBe(1);
    const deployment = { ssh: { command: join(cwd, "ssh"), multiplex: false }, order: -1 };
    const secret = { deployment, secrets: { files: { one: { cmd: "echo 1" } } } };
    writeFileSync(join(cwd, "ssh"), "#!/bin/sh\necho nobody there >&2; exit 255\n", { mode: 0o755 });
    const hosts = { early: { ...secret, tasks: ["deploy-secrets"] }, late: { tasks: ["check-vars"] } };
    await generateFrom(hosts);
    const { stdout, exitCode } = await task("-x", "deploy-all");
    expect(stdout).toContain("NOT done: 1 unreachable, 1 skipped\n");
    expect(exitCode).toBe(4);
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
    rmSync(join(cwd, "fail.a"));
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

  test("of each shard's Taskfile by itself", async () => {
    const shards = { "shard-1.yml": { a: host("a"), b: host("b") }, "shard-2.yml": { c: host("c"), d: host("d") } };
    for (const [file, hosts] of Object.entries(shards)) await generateFrom(hosts, file);
    failing("b");
    expect((await task("-t", "shard-1.yml", "deploy-all")).exitCode).toBe(201);
    expect((await task("-t", "shard-2.yml", "deploy-all")).exitCode).toBe(0);
    ran();
    expect((await task("-t", "shard-1.yml", "retry")).exitCode).toBe(201);
    expect(ran()).toEqual(["b"]);
  });

  test("groups in parallel are remembered together", async () => {
    await generate({ a: { group: "x" }, b: { group: "y" } });
    failing("a", "b");
    expect((await task("-p", "x", "y")).exitCode).toBe(201);
    ran();
    expect((await task("retry")).exitCode).toBe(201);
    expect(ran().sort()).toEqual(["a", "b"]);
  });

  test("what changes nothing, or is not the whole, leaves it as it was", async () => {
    failing("a");
    await task("deploy-all");
    rmSync(join(cwd, "fail.a"));
    for (const words of [["REBUILD_ACTION=dry-activate"], ["LOLLYPOPS_DRY_RUN=1"], ["SECRET="], []]) {
      const whole = words.length > 0 && words[0] !== "SECRET=";
      expect((await task(...(whole ? ["deploy-all"] : ["all:own"]), ...words)).exitCode).toBe(0);
    }
    ran();
    expect((await task("retry")).stdout).toContain("1 of 1 hosts deployed\n");
    expect(ran()).toEqual(["a"]);
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

  test("failfast of several deployments in one call is told, whatever their steps", async () => {
    await generateFrom({ a: { tasks: ["check-vars"] }, b: { tasks: ["check-vars"] } });
    expect((await task("-F", "-p", "a", "b")).stderr).toContain("a deployment that fails the one beside it");
    expect((await task("-F", "deploy-all")).stderr).not.toContain("lollypops:");
  });

  test("a task that go-task refuses has failed, and costs the others nothing", async () => {
    await generate({ a: {}, b: {}, c: {} });
    touch("ask.b");
    const { stdout, exitCode } = await task("deploy-all");
    expect(stdout).toContain("2 of 3 hosts deployed; NOT done: 1 failed\n");
    expect(stdout).toContain("  b: failed at own: its own words are above\n");
    expect(exitCode).toBe(201);
    rmSync(join(cwd, "ask.b"));
    expect((await task("retry")).stdout).toContain("1 of 1 hosts deployed\n");
  });

  test("one whose commands end as by a signal stops nobody else, where there is no terminal", async () => {
    await generate({ a: {}, b: {} });
    const file = join(cwd, "Taskfile.yml");
    writeFileSync(file, readFileSync(file, "utf8").replaceAll("test ! -e fail.a", "exit 143"));
    const { stdout } = await task("deploy-all", "-C", "1");
    expect(stdout).toContain("1 of 2 hosts deployed; NOT done: 1 failed\n");
    expect(stdout).toContain("  a: failed at own: exit 143 (its own words are above)\n");
  });

  test("a dry run is no result", async () => {
    await generate({ a: {}, b: {} });
    expect((await task("deploy-all", "LOLLYPOPS_DRY_RUN=1")).stdout).toContain("2 of 2 hosts shown\n");
    await task("a:check-vars", "LOLLYPOPS_DRY_RUN=1");
    expect(existsSync(join(cwd, "results"))).toBe(false);
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

describe("who is there", () => {
  const away = { ssh: { host: "127.0.0.1", port: 1 } };
  const secrets = { files: { a: { cmd: "echo a" } } };
  const input = {
    gone: { deployment: { ...away, order: -1 }, tasks: ["deploy-secrets", "own"], secrets },
    here: { tasks: ["check-vars", "own"] },
  };
  beforeEach(async () => {
    const own = { extraTasks: { own: { cmds: ["env echo ran >>order"], silent: true } } };
    const hosts = Object.fromEntries(Object.entries(input).map(([name, options]) => [name, { ...options, ...own }]));
    const { stdout } = await cli(["--from", "-"], { cwd, input: JSON.stringify(hosts) });
    writeFileSync(join(cwd, "Taskfile.yml"), stdout);
  });

  test("is asked first; one that is not has no step, and holds up its wave", async () => {
    const { stdout, stderr, exitCode } = await task("deploy-all");
    expect(stderr).toMatch(/^gone: connect unreachable: ssh: connect to host .* refused$/m);
    expect(stdout).toMatch(/^ {2}gone: unreachable at connect: ssh: .* refused$/m);
    expect(stdout).toContain("  here: skipped at check-vars: hosts of a lower order were not deployed: gone\n");
    expect([ran(), exitCode]).toEqual([[], 201]);
  });

  test("counts as skipped where that is asked for, and fails nothing", async () => {
    const skip = "LOLLYPOPS_SKIP_UNREACHABLE=1";
    const single = await task("gone", skip);
    expect(single.stdout).toContain("0 of 1 hosts deployed; NOT done: 1 skipped\n");
    expect([ran(), single.exitCode]).toEqual([[], 0]);
    expect(await task("deploy-all", skip)).toMatchObject({
      stdout: expect.stringContaining("NOT done: 2 skipped\n"),
      exitCode: 201, // nobody has asked to skip the next wave
    });
    expect(results().map(({ host: name, outcome }) => [name, outcome])).toEqual([
      ["gone", "skipped"],
      ["gone", "skipped"],
      ["here", "skipped"],
    ]);
  });
});

describe("Taskfiles beside each other", () => {
  const own = (name: string) => ({
    cmds: [
      "env echo {{.HOSTNAME}} >>../order; test {{.HOSTNAME}} != bad",
      `echo ${name} has $(cat {{.LOCAL_FLAKE_SOURCE}}/which)`,
    ],
    silent: true,
    dir: "{{.TASKFILE_DIR}}",
  });
  beforeEach(async () => {
    for (const name of ["one", "two"]) {
      mkdirSync(join(cwd, name));
      writeFileSync(join(cwd, name, "flake.nix"), "{ outputs = _: { }; }\n");
      writeFileSync(join(cwd, name, "which"), `${name}\n`);
      const host = { tasks: ["check-vars", "own"], extraTasks: { own: own(name) } };
      await generateFrom({ web: host, ...(name === "one" ? { bad: host } : {}) }, join(name, "Taskfile.yml"));
    }
    writeFileSync(join(cwd, "Taskfile.yml"), 'version: "3.51.1"\nincludes: { one: ./one, two: ./two }\n');
  });

  test.each([[["-p"]], [[]]])("%j: each has its own source, notes and end", async (args) => {
    const { stdout, exitCode } = await task(...args, "two:deploy-all", "one:deploy-all");
    expect(stdout).toContain("[web] one has one\n");
    expect(stdout).toContain("[web] two has two\n");
    expect(stdout).toContain("1 of 1 hosts deployed\n");
    expect(stdout).toContain("1 of 2 hosts deployed; NOT done: 1 failed\n");
    expect(exitCode).toBe(201);
    expect(ran().sort()).toEqual(["bad", "web", "web"]);
    expect((await task("one:retry")).exitCode).toBe(201);
    expect(ran()).toEqual(["bad"]);
  });
});

describe("steps by themselves", () => {
  test("before a deployment are none of it", async () => {
    await generate({ a: {}, late: { order: 1 } });
    failing("a");
    const { stdout } = await task("late:own", "deploy-all");
    expect(stdout).toContain("NOT done: 1 failed, 1 skipped\n");
    rmSync(join(cwd, "fail.a"));
    ran();
    expect((await task("retry")).stdout).toContain("2 of 2 hosts deployed\n");
    expect(ran()).toEqual(["a", "late"]);
  });

  test("of another host, which a task of the user's own calls, leave that host's deployment alone", async () => {
    const hosts = {
      a: { tasks: ["own"], extraTasks: { own: { cmds: ["sleep 0.7", { task: ":lb:check-vars" }], silent: true } } },
      lb: { tasks: ["own"], extraTasks: { own: { cmds: ["env echo lb >>order"], silent: true } } },
    };
    await generateFrom(hosts);
    const { stdout, exitCode } = await task("deploy-all");
    expect([stdout, exitCode]).toEqual([expect.stringContaining("2 of 2 hosts deployed\n"), 0]);
  });
});

test("a task of the user's own does not run under a name that only looks like its own", async () => {
  await generateFrom({
    "web.1": {
      extraTasks: {
        own: { cmds: ["env echo ran >>order"], aliases: ["o", ":own-of-web"] },
        two: "env echo ran >>order",
      },
    },
  });
  expect((await task("web-1:two")).stdout).toContain("web-1:two is not the name of a task");
  expect(ran()).toEqual([]);
  for (const name of ["web.1:two", "web.1:own", "web.1:o", "own-of-web"]) expect((await task(name)).exitCode).toBe(0);
  expect(ran()).toHaveLength(4);
});
