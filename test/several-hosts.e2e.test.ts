/** Deployments of several hosts: what each leaves for `retry`, that none costs the others anything, waves, logs, and what GitHub shows. */
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { held, hold, letGo, until } from "./faults.ts";
import { cut, fleetHosts, mend, ssh, temporaryDirectory } from "./hosts.ts";
import { type Changes, expectTold, hasty, type SeveralHosts, severalHosts } from "./several-hosts.ts";
import { marks } from "./stages.ts";

let hosts: SeveralHosts;
beforeAll(async () => {
  hosts = await severalHosts();
});
beforeEach(async () => {
  hosts.forget();
  await Promise.all(Object.keys(fleetHosts).map((host) => ssh(host, "rm -rf /var/src/lollypops-secrets /var/src/tls")));
});

const onlySecrets = { tasks: ["deploy-secrets"] };
const command = (cmd: string) => ({ secrets: { files: { greeting: { cmd } } } });
const fails = command("exit 7");
const failed = {
  outcome: "failed",
  step: "deploy-secrets",
  words: /^greeting: its command ended with exit 7; nothing was sent$/,
};
const all = (what: "deployed" | "unchanged" | "done") => ({ db1: what, web1: what, web2: what });

describe("retry", () => {
  const nothing = "lollypops: nothing to do again: no host that was asked for is known as not deployed\n";

  test("deploys what was not deployed: all of it, or those that are selected", async () => {
    await hosts.configure({ all: onlySecrets, db1: fails, web1: fails });
    expectTold(await hosts.deploy(["deploy-all"]), { db1: failed, web1: failed, web2: "deployed" });
    await hosts.configure({ all: onlySecrets, db1: fails });
    expectTold(await hosts.deploy(["retry", "--", "web1"]), { web1: "deployed" });
    expect(await hosts.deploy(["retry", "--", "web*"])).toMatchObject({ exitCode: 0, output: nothing, results: [] });
    expectTold(await hosts.deploy(["retry"]), { db1: failed });
    // What is deployed beside is no matter of retry's, unless it was to be deployed again.
    expectTold(await hosts.deploy(["web2"]), { web2: "unchanged" });
    expectTold(await hosts.deploy(["retry"]), { db1: failed });
    await hosts.configure({ all: onlySecrets });
    expectTold(await hosts.deploy(["db1"]), { db1: "deployed" });
    expect(await hosts.deploy(["retry"])).toMatchObject({ exitCode: 0, output: nothing, results: [] });
  });

  test("of a host that nobody knows, or of a fleet that was never deployed: a sentence says so", async () => {
    await hosts.configure({ all: onlySecrets });
    const unknown = await hosts.deploy(["retry"]);
    expect(unknown.output).toContain(
      "lollypops: nothing is known of an earlier deployment of this fleet on this machine; task deploy-all deploys every host\n",
    );
    expect(unknown).toMatchObject({ exitCode: 201, results: [] });
    expectTold(await hosts.deploy(["deploy-all"]), all("deployed"));
    const nobody = await hosts.deploy(["retry", "--", "web9"]);
    expect(nobody.output).toContain("lollypops: no host or group matches 'web9' (task --list shows them)\n");
    expect(nobody).toMatchObject({ exitCode: 201, results: [] });
  });

  test("knows of a run whose task was killed", async () => {
    await hosts.configure({ all: onlySecrets });
    await hold("base64", 1);
    const running = hosts.begin(["deploy-all"]);
    await held();
    const isDone = ({ name, outcome }: { name: string; outcome: string }) => name !== "web1" && outcome === "ok";
    await until("the others are done", () => marks(hosts.state().dir).filter(isDone).length === 2);
    running.child.kill("SIGKILL");
    await running.child;
    // A shared connection that nobody uses any more ends by itself, in 15 s.
    await until("the step ends, too", () => running.processes().every(({ name }) => name === "ssh"));
    await letGo();
    const again = hosts.begin(["retry"]);
    expectTold(await hosts.ended(again), { web1: "done" });
    await hosts.expectTidy(again);
  });
});

/** web1 has a task of its own before it is deployed; the others wait until this is noted of it. */
function besideTaskOf(own: object, more: object = {}, noted = ""): Changes {
  const wait = `until grep -qs -e '${noted}' '${hosts.state().dir}'/lollypops/*/*/host.web1; do sleep 0.1; done; `;
  return {
    all: { ...onlySecrets, ...command(`${noted && wait}echo hello`) },
    web1: { tasks: ["own", "deploy-secrets"], extraTasks: { own, ...more } },
  };
}
const own = (words: RegExp | string = "its own words are above") => ({
  db1: "deployed" as const,
  web1: { outcome: "failed", step: "own", words },
  web2: "deployed" as const,
});

describe("a task of the user's own costs the other hosts nothing when it", () => {
  test.each<[string, object, RegExp | string, string, number?]>([
    ["fails", { cmds: ["exit 7"] }, /^exit 7 \(its own words are above\)$/, ""],
    [
      "asks, and nobody is there to answer",
      { prompt: "Go on?", cmds: ["echo did"] },
      own().web1.words,
      "has a prompt and the environment is not a terminal",
      205,
    ],
    ["has a broken template", { cmds: ["echo did {{index .NOPE 3}}"] }, own().web1.words, "index of untyped nil"],
    ["lacks a variable", { requires: { vars: ["NOPE"] }, cmds: ["echo did"] }, own().web1.words, "NOPE", 206],
    [
      "does not meet its precondition",
      { preconditions: ["false"], cmds: ["echo did"] },
      own().web1.words,
      "precondition",
    ],
  ])("%s", async (_, body, words, said, code = 201) => {
    await hosts.configure(besideTaskOf(body));
    const running = hosts.begin(["deploy-all"]);
    const told = await hosts.ended(running);
    expectTold(told, own(words), code);
    expect(told.output).toContain(said);
    expect(told.output).not.toContain("did\n");
    await hosts.expectTidy(running);
  });
});

describe("failfast", () => {
  const warning = (from: string) =>
    `lollypops: ${from} is set: a task of your own that fails may stop the other hosts' tasks, and a deployment that fails the one beside it; task --failfast=false leaves them alone\n`;
  const taskrc = () => join(hosts.dir, ".taskrc.yml");
  afterEach(() => rmSync(taskrc(), { force: true }));

  const ways: [string, string[], Record<string, string>, string][] = [
    ["-F", ["-F"], {}, "--failfast"],
    ["TASK_FAILFAST", [], { TASK_FAILFAST: "1" }, "TASK_FAILFAST"],
    [".taskrc.yml", [], {}, ".taskrc.yml"],
  ];

  test.each(ways)("by %s does not stop the others when a step of ours fails", async (way, args, env) => {
    if (way === ".taskrc.yml") writeFileSync(taskrc(), "failfast: true\n");
    const { all } = besideTaskOf({}, {}, " failed ") as { all: object };
    await hosts.configure({ all, web1: { tasks: ["deploy-flake"], deployment: { ssh: { command: "no-such-ssh" } } } });
    const told = await hosts.deploy([...args, "deploy-all"], env);
    const web1 = { outcome: "failed", step: "deploy-flake", words: /no-such-ssh/ };
    expectTold(told, { db1: "deployed", web1, web2: "deployed" });
    expect(told.output).not.toContain("is set: ");
  });

  test.each(ways)(
    "by %s does not stop the others when commands of the user's own fail, and is told before",
    async (way, args, env, from) => {
      if (way === ".taskrc.yml") writeFileSync(taskrc(), "failfast: true\n");
      await hosts.configure(besideTaskOf({ cmds: ["exit 7"] }, {}, " failed own "));
      const told = await hosts.deploy([...args, "deploy-all"], env);
      expectTold(told, own(/^exit 7 /));
      const words = warning(way === ".taskrc.yml" ? taskrc() : from);
      expect(told.output).toContain(words);
      expect(told.output.indexOf(words)).toBeLessThan(told.output.indexOf("[web1]"));
    },
  );

  test("that stops the others is told of each", async () => {
    await hosts.configure(besideTaskOf({ deps: ["other"], cmds: ["echo did"] }, { other: { cmds: ["exit 7"] } }));
    const running = hosts.begin(["-F", "deploy-all"]);
    const told = await hosts.ended(running);
    expect(told.exitCode).toBe(201);
    expect(told.results.map(({ host }) => host)).toEqual(["db1", "web1", "web2"]);
    expect(told.results[1]).toMatchObject({ outcome: "failed", step: "own" });
    await hosts.expectTidy(running);
  });
});

describe("deployment.order", () => {
  test("when the first hosts fail, the others are left alone, until retry", async () => {
    const later = { deployment: { order: 1 } };
    await hosts.configure({ all: onlySecrets, db1: later, web1: fails, web2: later });
    const skipped = {
      outcome: "skipped",
      step: "deploy-secrets",
      words: /^hosts of a lower order were not deployed: web1$/,
    };
    const running = hosts.begin(["deploy-all"]);
    const told = await hosts.ended(running);
    expectTold(told, { db1: skipped, web1: failed, web2: skipped });
    expect(told.output).toContain("lollypops: no more hosts begin, since these were not deployed: web1\n");
    expect(await ssh("pop2", "ls /var/src")).not.toContain("lollypops-secrets");
    await hosts.expectTidy(running);

    await hosts.configure({ all: onlySecrets, db1: later, web2: later });
    const again = await hosts.deploy(["retry"]);
    expectTold(again, all("deployed"));
    expect(again.output).toMatch(/\[web1\] deploy-secrets: 3 changed[\s\S]*\[(db1|web2)\] /);
    expect(again.output).not.toMatch(/\[(db1|web2)\] [\s\S]*\[web1\] deploy-secrets: 3 changed/);
  });
});

describe("LOLLYPOPS_SKIP_UNREACHABLE", () => {
  test("counts a host that does not answer as skipped, which is no failure", async () => {
    await hosts.configure({ all: onlySecrets, web1: { deployment: { ssh: hasty } } });
    await cut(1);
    try {
      const env = { LOLLYPOPS_SKIP_UNREACHABLE: "1" };
      const words = /^ssh: connect to host .*timed out/;
      const several = await hosts.deploy(["deploy-all"], env);
      expectTold(several, { db1: "deployed", web1: { outcome: "skipped", step: "connect", words }, web2: "deployed" });
      const alone = await hosts.deploy(["web1"], env);
      expectTold(alone, { web1: { outcome: "skipped", step: "deploy-secrets", words } });
    } finally {
      await mend(1);
    }
    expectTold(await hosts.deploy(["retry"]), { web1: "deployed" });
  });
});

describe("LOLLYPOPS_LOG_DIR", () => {
  const mode = (file: string) => (statSync(file).mode & 0o777).toString(8);

  test("has what each host said, for its user alone, and nothing that a secret's command said", async () => {
    const told = "echo 'about the poison' >&2; echo 'the poison'";
    await hosts.configure({ all: { ...onlySecrets, ...command(told) }, web1: command("sleep 0.1; exit 7") });
    const logs = join(temporaryDirectory(), "new", "logs");
    const { output, report, ...rest } = await hosts.deploy(["deploy-all"], { LOLLYPOPS_LOG_DIR: logs });
    expectTold({ output, report, ...rest }, { db1: "deployed", web1: failed, web2: "deployed" });
    expect(output).toContain("about the poison");
    expect(report[1]).toContain(` (log: ${logs}/web1.log)`);
    expect([mode(join(logs, "..")), mode(logs)]).toEqual(["700", "700"]);
    expect(readdirSync(logs).sort()).toEqual(["db1.log", "web1.log", "web2.log"]);
    const text = (name: string) => readFileSync(join(logs, `${name}.log`), "utf8");
    for (const name of ["db1", "web1", "web2"]) {
      expect(mode(join(logs, `${name}.log`))).toBe("600");
      expect(text(name)).toMatch(/^--- \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ deploy-secrets\n/);
      expect(text(name)).not.toContain("poison");
    }
    expect(text("web2")).toMatch(
      /Z deploy-secrets\nchanged: api token\nchanged: greeting\n[\s\S]*\ndeploy-secrets: 3 changed, 0 unchanged\n$/,
    );
    expect(text("web1")).toContain(
      "web1: deploy-secrets failed: greeting: its command ended with exit 7; nothing was sent\n",
    );
  });

  test("that cannot be written is told before anything is done", async () => {
    await hosts.configure({ all: onlySecrets });
    const file = join(temporaryDirectory(), "file");
    writeFileSync(file, "");
    const told = await hosts.deploy(["deploy-all"], { LOLLYPOPS_LOG_DIR: join(file, "logs") });
    expect(told.output).toContain(`cannot write LOLLYPOPS_LOG_DIR, ${file}/logs/`);
    expect(told.results.map(({ outcome }) => outcome)).toEqual(["failed", "failed", "failed"]);
    expect(told.exitCode).toBe(201);
    expect(await ssh("pop2", "ls /var/src")).not.toContain("lollypops-secrets");
  });
});

describe("on GitHub", () => {
  const hostile = [
    "::error::not ours",
    "  ::set-output name=a::b",
    "then ##[add-mask]x",
    "::warning::| **b** <i>_c_ 100% ##[group] [d](e)",
  ];
  /** As HTML that means nothing to Markdown. */
  const code = (character: string) => `&#${character.charCodeAt(0)};`;
  const profile = "/home/ops/.bashrc";
  beforeAll(async () => {
    await ssh(
      "pop1",
      `cp ${profile} /root/ops.bashrc; cat - ${profile} >${profile}.new; mv ${profile}.new ${profile}`,
      {
        input: `cat <<'END'\n${hostile.join("\n")}\nEND\nexit 3\n`,
      },
    );
    return () => ssh("pop1", `mv /root/ops.bashrc ${profile}; chown ops: ${profile}`);
  });

  test.each([["prefixed"], ["interleaved"]])(
    "a host's words are words, with -o %s: neither commands nor Markdown",
    async (output) => {
      await hosts.configure({
        all: onlySecrets,
        web1: { deployment: { ssh: { user: "ops" }, sudo: { enable: true } } },
      });
      const summary = join(temporaryDirectory(), "summary.md");
      const env = { GITHUB_ACTIONS: "true", GITHUB_STEP_SUMMARY: summary };
      const told = await hosts.deploy(["-o", output, "deploy-all"], env);
      expect(told.results[1]).toMatchObject({ outcome: "failed", message: `${hostile[3]} (exit 3)` });
      const commands = told.output.split("\n").filter((line) => /^\s*::/.test(line));
      expect(commands, told.output).toEqual([
        "::error title=web1 failed::at deploy-secrets: ::warning::| **b** <i>_c_ 100%25 ## [group] [d](e) (exit 3)",
        "::error title=Task 'deploy-all' failed::exit status 1", // go-task's own
      ]);
      expect(told.output).not.toContain("##[");
      expect(readFileSync(summary, "utf8")).toBe(`### lollypops: 2 of 3 hosts deployed

| host | outcome | step | |
|---|---|---|---|
| web1 | failed | deploy-secrets | ${hostile[3]?.replace(/[^a-z0-9% ]/g, code)} ${code("(")}exit 3${code(")")} |

`);
    },
  );
});
