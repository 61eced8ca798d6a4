/** The workflows of docs/ci.md: what a runner would do with them is done here, up to where hosts would be reached. */
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { type Fleet, fleet, mustRun, root, temporaryDirectory } from "./hosts.ts";

const page = readFileSync(join(root, "docs/ci.md"), "utf8");
/** A file of the page by the name in its first line. */
function file(name: string): string {
  const [, text] = page.match(new RegExp(`^\`\`\`yaml\n(# ${name.replaceAll(".", "\\.")}\n.*?)^\`\`\``, "ms")) ?? [];
  if (text === undefined) throw new Error(`docs/ci.md has no ${name}`);
  return text;
}

type Step = { id?: string; name?: string; uses?: string; run?: string; env?: Record<string, string> };
type Job = {
  name?: string;
  needs?: string;
  outputs?: Record<string, string>;
  strategy?: { matrix: string };
  steps: Step[];
};
const workflow = (name: string) => parse(file(name)) as { jobs: Record<string, Job> };
const { plan, deploy } = workflow(".github/workflows/deploy.yml").jobs as { plan: Job; deploy: Job };
const runOf = ({ steps }: Job, key: string) => {
  const step = steps.find(({ id, name }) => id === key || name === key);
  if (step?.run === undefined) throw new Error(`there is no step ${key} that runs something`);
  return { run: step.run, env: step.env ?? {} };
};
/** The `${{ … }}` in a text. */
const expressions = (text: string) => [...text.matchAll(/\$\{\{ (.*?) \}\}/g)].map(([, expression = ""]) => expression);

let place: Fleet;
let path: string;
beforeAll(async () => {
  place = await fleet();
  const bin = temporaryDirectory();
  writeFileSync(
    join(bin, "lollypops-gen"),
    `#!/bin/sh\nexec '${process.execPath}' '${join(root, "dist/cli.js")}' "$@"\n`,
  );
  chmodSync(join(bin, "lollypops-gen"), 0o755);
  path = [bin, process.env["PATH"]].join(delimiter);
  await shell("lollypops-gen -o Taskfile.yml");
  mkdirSync(join(place.dir, "ci"));
  writeFileSync(join(place.dir, "ci/fleet.yml"), file("ci/fleet.yml"));
});

/** As a runner does it: bash that stops at the first error. */
const shell = (script: string, env: Record<string, string> = {}) =>
  mustRun("bash", ["-e", "-c", script], {
    cwd: place.dir,
    env: { PATH: path, LOLLYPOPS_DRY_RUN: "1", NO_COLOR: "1", ...env },
  });

/** The hosts that a run would have deployed. */
const deployed = (stdout: string) =>
  [...new Set([...stdout.matchAll(/^\[(\w+)(?::[\w-]+)?\] \+ ssh /gm)].map(([, host]) => host))].sort();

describe("GitHub Actions", () => {
  test("what is installed are actions with a version, and the tool as the flake's lock has it", () => {
    const steps = [plan, deploy, ...Object.values(workflow(".github/workflows/check.yml").jobs)].flatMap(
      (job) => job.steps,
    );
    const used = steps.flatMap(({ uses }) => uses ?? []);
    expect([...new Set(used)].sort()).toEqual(["actions/checkout@v5", "cachix/install-nix-action@v31"]);
    const installs = steps.flatMap(({ run = "" }) => (run.startsWith("nix ") ? run : []));
    expect(new Set(installs)).toEqual(new Set(["nix profile install .#lollypops-gen"]));
    expect(installs).toHaveLength(3);
  });

  test("the matrix of the first job starts jobs that deploy each host once", async () => {
    const output = join(temporaryDirectory(), "output");
    await shell(runOf(plan, "hosts").run, { GITHUB_OUTPUT: output });
    const [, matrix = ""] = readFileSync(output, "utf8").match(/^matrix=(.*)\n$/) ?? [];
    expect([plan.outputs?.["matrix"], deploy.needs, deploy.strategy?.matrix]).toEqual([
      "${{ steps.hosts.outputs.matrix }}",
      "plan",
      "${{ fromJSON(needs.plan.outputs.matrix) }}",
    ]);
    const jobs = JSON.parse(matrix).include as Record<string, string>[];
    const { run, env } = runOf(deploy, "deploy");
    const used = [deploy.name ?? "", ...Object.values(env)].flatMap(expressions);
    expect(used).toEqual(["matrix.name", "matrix.hosts"]);
    for (const job of jobs) expect(Object.keys(job)).toEqual(["shard", "name", "hosts"]);
    const done = await Promise.all(
      jobs.map(async ({ hosts = "" }) => deployed((await shell(run, { HOSTS: hosts })).stdout)),
    );
    expect(done).toEqual([["db1"], ["web1", "web2"]]);
  });

  test("the page shows what is printed", async () => {
    const [, shown] = page.match(/^```json\n(.*?)^```/ms) ?? [];
    expect((await shell("lollypops-gen matrix --shards 2")).stdout).toBe(shown);
  });

  test("a flake that does not evaluate fails the first job", async () => {
    const output = join(temporaryDirectory(), "output");
    const broken = `cd "$(mktemp -d)"\n${runOf(plan, "hosts").run}`;
    await expect(shell(broken, { GITHUB_OUTPUT: output, TMPDIR: temporaryDirectory() })).rejects.toThrow("exit 3");
  });

  test("the ssh key is the runner's alone", async () => {
    const HOME = temporaryDirectory();
    const { run, env } = runOf(deploy, "ssh key and known hosts");
    expect(Object.values(env).flatMap(expressions)).toEqual(["secrets.DEPLOY_SSH_KEY", "vars.DEPLOY_KNOWN_HOSTS"]);
    await shell(run, { HOME, SSH_KEY: "a\nkey", KNOWN_HOSTS: "web1 key" });
    expect(readFileSync(join(HOME, ".ssh/id_ed25519"), "utf8")).toBe("a\nkey\n");
    expect(readFileSync(join(HOME, ".ssh/known_hosts"), "utf8")).toBe("web1 key\n");
    const modes = ["", "/id_ed25519"].map((name) => statSync(join(HOME, `.ssh${name}`)).mode & 0o777);
    expect(modes).toEqual([0o700, 0o600]);
  });

  test("the check passes for a Taskfile that is up to date, and fails for another", async () => {
    const job = workflow(".github/workflows/check.yml").jobs["taskfile"];
    const run = job?.steps.at(-1)?.run ?? "";
    await shell(run);
    await expect(shell(`lollypops-gen web1 -o Taskfile.yml; ${run}`)).rejects.toThrow("exit 5");
    await shell("lollypops-gen -o Taskfile.yml");
  });
});

type GitlabJob = {
  extends?: string;
  stage?: string;
  script?: string[];
  artifacts?: { paths: string[] };
  trigger?: { include: { artifact: string; job: string }[]; strategy: string };
  resource_group?: string;
  parallel?: { matrix: Record<string, string>[] };
};

describe("GitLab CI", () => {
  const pipeline = parse(file(".gitlab-ci.yml"), { maxAliasCount: 0 }) as Record<string, GitlabJob> & {
    stages: string[];
  };

  test("the first job writes the pipeline that the second starts, whose jobs deploy each host once", async () => {
    await shell((pipeline["plan"]?.script ?? []).join("\n"));
    const { artifacts, extends: tools } = pipeline["plan"] ?? {};
    const { trigger, resource_group } = pipeline["deploy"] ?? {};
    expect([artifacts?.paths, trigger]).toEqual([
      ["deploy.yml"],
      { include: [{ artifact: "deploy.yml", job: "plan" }], strategy: "depend" },
    ]);
    expect(resource_group).toBe("fleet");

    const child = parse(readFileSync(join(place.dir, "deploy.yml"), "utf8")) as Record<string, GitlabJob>;
    expect(Object.keys(child)).toEqual([".tools", ".deploy", "deploy"]);
    expect([tools, child[".deploy"]?.extends, child["deploy"]?.extends]).toEqual([".tools", ".tools", ".deploy"]);
    const key = join(temporaryDirectory(), "key");
    writeFileSync(key, "key\n");
    const script = (child[".deploy"]?.script ?? []).join("\n");
    const done = (child["deploy"]?.parallel?.matrix ?? []).map(async (variables) => {
      expect(Object.values(variables).every((value) => typeof value === "string")).toBe(true);
      const env = { HOME: temporaryDirectory(), DEPLOY_SSH_KEY: key, DEPLOY_KNOWN_HOSTS: key };
      return deployed((await shell(script, { ...env, ...variables })).stdout);
    });
    expect(await Promise.all(done)).toEqual([["db1"], ["web1", "web2"]]);
  });

  test("its stages are there, and it includes what its jobs extend", () => {
    const jobs = ["taskfile", "plan", "deploy"].map((name) => pipeline[name]);
    expect(jobs.map((job) => job?.stage)).toEqual(pipeline.stages);
    expect(pipeline["include"]).toEqual([{ local: "ci/fleet.yml" }]);
    expect(pipeline["taskfile"]).toMatchObject({ extends: ".tools", script: ["lollypops-gen --check"] });
  });
});
