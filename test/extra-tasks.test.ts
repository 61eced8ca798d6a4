import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { localNames, parseExtraTask, taskSchema } from "../src/extra-tasks.ts";

const goTask = process.env["TASK_BIN"] ?? "task";
let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "lollypops-extra-tasks-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Loads tasks by the real go-task, and lists their names; a missing go-task fails here. */
function load(tasks: object) {
  const file = join(directory, "Taskfile.yml");
  writeFileSync(file, JSON.stringify({ version: "3.51.1", tasks }));
  const result = spawnSync(goTask, ["-t", file, "--list-all", "--json", "--no-status"], { encoding: "utf8" });
  if (result.error) throw result.error;
  return result;
}

const problems = (value: unknown) => parseExtraTask("web1", "t", value).problems;

describe("the long form", () => {
  test.each<[string, unknown, unknown]>([
    ["one command", "ls", { cmds: ["ls"] }],
    ["a list", ["ls", { task: "x" }], { cmds: ["ls", { task: "x" }] }],
    ["cmd", { cmd: "ls", desc: "d" }, { desc: "d", cmds: ["ls"] }],
    ["cmd as a map", { cmd: { task: "x" } }, { cmds: [{ task: "x" }] }],
    ["cmds", { cmds: ["ls"], deps: ["x"] }, { deps: ["x"], cmds: ["ls"] }],
    ["nothing", {}, {}],
  ])("%s", (_, value, expected) => {
    const checked = parseExtraTask("web1", "t", value);
    expect(checked).toEqual({ task: expected, problems: [] });
    expect(taskSchema.parse(checked.task)).toEqual(expected);
  });
});

// Each key with a value that is right, and one that go-task, if it knows the key there, cannot decode.
const nested = [[{}]];
const keys: Record<string, [wrap: (key: string, value: unknown) => unknown, keys: [string, ...unknown[]][]]> = {
  task: [
    (key, value) => ({ [key]: value }),
    [
      ["desc", "d"],
      ["summary", "s"],
      ["label", "l"],
      ["prefix", "p"],
      ["aliases", ["a", "b:c"]],
      ["internal", true],
      ["interactive", true],
      ["silent", false],
      ["watch", false],
      ["run", "always", "once", "when_changed", "{{.RUN}}"],
      ["prompt", "p?", ["p?", "q?"]],
      ["if", "true"],
      ["platforms", ["linux", "arm64", "darwin/arm64"]],
      ["requires", { vars: ["A", { name: "B" }, { name: "C", enum: ["x"] }, { name: "D", enum: { ref: ".E" } }] }],
      ["preconditions", ["true", { sh: "true" }, { sh: "true", msg: "m" }]],
      ["method", "checksum", "timestamp", "none"],
      ["sources", ["*.nix", { exclude: "x.nix" }]],
      ["generates", ["out", { exclude: "x" }]],
      ["use_gitignore", true],
      ["status", ["true"]],
      ["dir", "/tmp"],
      ["dotenv", [".env"]],
      ["env", { A: "a", B: { sh: "id" } }],
      ["vars", { A: "a", B: 1, C: true, D: ["x"], E: { sh: "id" }, F: { ref: ".A" }, G: { map: { a: 1 } } }],
      ["vars", { H: { value: { a: 1 }, secret: true }, I: { sh: "id", secret: true } }],
      ["set", ["a", "errexit", "pipefail"]],
      ["shopt", ["globstar", "dotglob"]],
      ["ignore_error", true],
      ["failfast", true],
      ["deps", [], ["x", { task: "y" }]],
      ["cmds", [], ["ls", { cmd: "ls" }]],
      ["cmd", "ls", { cmd: "ls" }],
    ],
  ],
  command: [
    (key, value) => ({ cmds: [{ cmd: "ls", [key]: value }] }),
    [
      ["cmd", "ls"],
      ["for", "sources", "generates", ["a", 1, { b: 2 }]],
      ["for", { var: "A" }, { var: "A", split: ",", as: "X" }],
      ["for", { matrix: { A: ["x"], B: { ref: ".C" } } }, { matrix: { A: [1] }, as: "X" }],
      ["if", "true"],
      ["silent", true],
      ["ignore_error", true],
      ["timeout", "90s", "1h2m", "1.5h", ".5s", "100ms"],
      ["platforms", ["linux"]],
      ["set", ["u"]],
      ["shopt", ["extglob", "nullglob", "nocaseglob", "expand_aliases"]],
    ],
  ],
  call: [
    (key, value) => ({ cmds: [{ task: "x", [key]: value }] }),
    [
      ["task", "x"],
      ["vars", { A: "a" }],
      ["for", ["a"]],
      ["if", "true"],
      ["silent", true],
      ["ignore_error", true],
      ["timeout", "5m"],
    ],
  ],
  "deferred command": [
    (key, value) => ({ cmds: [{ defer: "ls", [key]: value }] }),
    [
      ["defer", "ls"],
      ["silent", true],
      ["timeout", "5m"],
    ],
  ],
  "deferred call": [
    (key, value) => ({ cmds: [{ defer: { task: "x", [key]: value } }] }),
    [
      ["task", "x"],
      ["vars", { A: "a" }],
      ["silent", true],
    ],
  ],
  dependency: [
    (key, value) => ({ deps: [{ task: "x", [key]: value }] }),
    [
      ["task", "x"],
      ["vars", { A: "a" }],
      ["for", ["a"]],
      ["silent", true],
      ["timeout", "5m"],
    ],
  ],
};
const cases = Object.entries(keys).flatMap(([position, [wrap, list]]) =>
  list.map(([key, ...values]) => ({ position, key, right: values.map((value) => wrap(key, value)), wrap })),
);

describe("every key is one that go-task knows", () => {
  test.each(cases)("$position: $key", ({ key, right, wrap }) => {
    for (const value of right) expect(problems(value)).toEqual([]);
    // go-task passes over a key that it does not know, so it would not mind this value
    expect(load({ t: wrap(key, key === "for" ? {} : nested) })).toMatchObject({ status: 102 });
  });

  test("go-task passes over an unknown key, which is why we do not", () => {
    expect(load({ t: { cmdss: nested, cmds: [{ cmd: "ls", sett: nested, vars: {} }] } }).status).toBe(0);
  });

  test("and all right values load", () => {
    const values = cases.flatMap(({ right }) => right);
    const tasks = Object.fromEntries(values.map((value, index) => [`t${index}`, value]));
    const long = Object.fromEntries(
      values.map((value, index) => [`l${index}`, { ...taskSchema.parse(value), aliases: [] }]),
    );
    const result = load({ ...tasks, ...long });
    expect(result.stderr).toBe("");
    expect(JSON.parse(result.stdout).tasks).toHaveLength(2 * values.length - 2); // less an internal one, in each form
  });
});

describe("what is wrong is said in a sentence", () => {
  test.each<[unknown, ...string[]]>([
    [{ cmdss: ["ls"] }, ": unknown key `cmdss`; did you mean `cmds` or `cmd`?"],
    [{ command: "ls", desk: "" }, ": unknown key `command`", ": unknown key `desk`; did you mean `desc`?"],
    [{ cmd: "a", cmds: ["b"] }, ": has both `cmd` and `cmds`; go-task takes one of them"],
    [{ cmds: "ls" }, ".cmds: must be a list, not a text"],
    [{ cmds: [1] }, ".cmds[0]: must be a text, not a number"],
    [{ cmds: [["ls"]] }, ".cmds[0]: must be a text, not a list"],
    [{ cmds: [null] }, ".cmds[0]: must be a text, not null"],
    [[{ cmds: "ls" }], "[0]: go-task ignores `cmds` on a command", "[0].cmd: is missing"],
    [7, ": must be a map, not a number"],
    [{ desc: 1 }, ".desc: must be a text, not a number"],
    [{ silent: "yes" }, ".silent: must be true or false, not a text"],
    [{ run: "twice" }, ".run: must be `always`, `once`, `when_changed`"],
    [{ timeout: "5m" }, ": go-task ignores `timeout` on a task"],
    [{ task: "x" }, ": go-task ignores `task` on a task"],
    [{ deps: "x" }, ".deps: must be a list, not a text"],
    [{ deps: [{ task: "x", ignore_error: true }] }, ".deps[0]: go-task ignores `ignore_error` on a dependency"],
    [{ deps: [{ task: "x", if: "true" }] }, ".deps[0]: go-task ignores `if` on a dependency"],
    [{ deps: [{ cmd: "x" }] }, ".deps[0].task: is missing", ".deps[0]: go-task ignores `cmd` on a dependency"],
    [{ cmds: [{ cmd: "ls", vars: {} }] }, ".cmds[0]: go-task ignores `vars` on a command"],
    [{ cmds: [{ cmd: "ls", task: "x" }] }, ".cmds[0]: go-task ignores `cmd` on a call of a task"],
    [{ cmds: [{ task: "x", set: ["e"] }] }, ".cmds[0]: go-task ignores `set` on a call of a task"],
    [{ cmds: [{ task: "" }] }, ".cmds[0].task: must not be empty"],
    [{ cmds: [{ defer: "ls", if: "true" }] }, ".cmds[0]: go-task ignores `if` on a deferred command"],
    [
      { cmds: [{ defer: { task: "x" }, silent: true }] },
      ".cmds[0]: go-task ignores `silent` beside `defer` with a task",
    ],
    [
      { cmds: [{ defer: { task: "x", timeout: "1s" } }] },
      ".cmds[0].defer: go-task ignores `timeout` in a deferred call",
    ],
    [{ cmds: [{ cmd: "ls", timeout: "5" }] }, ".cmds[0].timeout: must be a time above zero, such as `90s` or `5m`"],
    [{ cmds: [{ cmd: "ls", timeout: "0s" }] }, ".cmds[0].timeout: must be a time above zero, such as `90s` or `5m`"],
    [{ cmds: [{ cmd: "ls", for: "all" }] }, ".cmds[0].for: must be `sources`, `generates`"],
    [{ cmds: [{ cmd: "ls", for: { matrix: {} } }] }, ".cmds[0].for.matrix: must not be empty"],
    [{ cmds: [{ cmd: "ls", for: { var: "A", matrix: {} } }] }, ".cmds[0].for: go-task ignores `matrix` beside `var`"],
    [{ set: ["o"] }, ".set[0]: must be `allexport`"],
    [{ shopt: ["failglob"] }, ".shopt[0]: must be `dotglob`"],
    [{ platforms: ["linus"] }, ".platforms[0]: must be an OS"],
    [{ platforms: ["linux/"] }, ".platforms[0]: must be an OS"],
    [{ aliases: ["c++"] }, ".aliases[0]: may hold letters"],
    [{ vars: { A: { shell: "id" } } }, ".vars.A: unknown key `shell`; did you mean `sh`?"],
    [{ vars: { A: { sh: "id", ref: ".B" } } }, ".vars.A: takes exactly one of `sh`, `ref`, `map` and `value`"],
    [{ vars: { A: { secret: true } } }, ".vars.A: takes exactly one of `sh`, `ref`, `map` and `value`"],
    [{ vars: { A: null } }, ".vars.A: must be a text, a number, true or false, a list or a map"],
    [{ requires: { vars: [{ name: "A", enum: "x" }] } }, ".requires.vars[0].enum: must be a list, not a text"],
    [{ preconditions: [{ msg: "x" }] }, ".preconditions[0].sh: is missing"],
    [
      { sources: [{ excludes: "x" }] },
      ".sources[0].exclude: is missing",
      ".sources[0]: unknown key `excludes`; did you mean `exclude`?",
    ],
  ])("%j", (value, ...expected) => {
    const found = problems(value);
    expect(found).toHaveLength(expected.length);
    for (const part of expected) expect(found).toContainEqual(expect.stringContaining(`web1: extraTasks.t${part}`));
  });
});

describe("localNames", () => {
  const names = ["deploy-flake", "deploy-secrets", "rebuild", "check"];
  const local = (task: unknown) => localNames("web1", "check", parseExtraTask("web1", "check", task).task, names);

  test.each<[string, unknown, unknown]>([
    ["a dependency", { deps: ["rebuild"] }, { deps: ["web1:rebuild"] }],
    [
      "a dependency as a map",
      { deps: [{ task: "rebuild", silent: true }] },
      { deps: [{ task: "web1:rebuild", silent: true }] },
    ],
    ["a call", { cmds: [{ task: "deploy-flake" }] }, { cmds: [{ task: "web1:deploy-flake" }] }],
    ["a deferred call", { cmds: [{ defer: { task: "check" } }] }, { cmds: [{ defer: { task: "web1:check" } }] }],
    ["cmd", { cmd: { task: "rebuild" } }, { cmds: [{ task: "web1:rebuild" }] }],
    ["a list", [{ task: "rebuild" }], { cmds: [{ task: "web1:rebuild" }] }],
    ["the host itself", { deps: ["default"] }, { deps: ["web1"] }],
    ["another host's", { deps: [":web2:rebuild"] }, { deps: ["web2:rebuild"] }],
    ["the fleet's", { cmds: [{ task: ":deploy-all" }] }, { cmds: [{ task: "deploy-all" }] }],
    ["a template", { deps: [{ task: "{{.ITEM}}", for: ["a"] }] }, { deps: [{ task: "web1:{{.ITEM}}", for: ["a"] }] }],
    ["an alias", { aliases: ["c", ":d"], deps: ["c"] }, { aliases: ["web1:c", "d"], deps: ["web1:c"] }],
    [
      "commands",
      ["rebuild", { cmd: "rebuild" }, { defer: "rebuild" }],
      { cmds: ["rebuild", { cmd: "rebuild" }, { defer: "rebuild" }] },
    ],
  ])("%s", (_, task, expected) => expect(local(task)).toEqual({ task: expected, problems: [] }));

  test.each<[unknown, string]>([
    [{ deps: ["rebuid"] }, ".deps[0]: there is no task `rebuid` on this host; did you mean `rebuild`?"],
    [
      { cmds: ["ls", { task: "web1:rebuild" }] },
      ".cmds[1].task: there is no task `web1:rebuild` on this host; did you mean `rebuild`?",
    ],
    [
      { cmds: [{ defer: { task: "web2:rebuild" } }] },
      ".cmds[0].defer.task: there is no task `web2:rebuild` on this host; a task of another host or of the fleet is written `:web2:rebuild`",
    ],
    [
      { deps: [{ task: "all" }] },
      ".deps[0].task: there is no task `all` on this host; a task of another host or of the fleet is written `:all`",
    ],
  ])("%j is a problem", (task, expected) => {
    expect(local(task).problems).toEqual([`web1: extraTasks.check${expected}`]);
  });

  test("go-task itself names the tasks of an included file so", () => {
    const task = { deps: ["rebuild", { task: ":root" }], cmds: [{ task: "a:b" }, { defer: { task: "rebuild" } }] };
    writeFileSync(
      join(directory, "web1.yml"),
      JSON.stringify({ version: "3", tasks: { task, rebuild: "echo R", "a:b": "echo AB" } }),
    );
    const included = { version: "3", includes: { web1: "./web1.yml" }, tasks: { root: "echo ROOT" } };
    const own = { "web1:task": localNames("web1", "task", taskSchema.parse(task), ["rebuild", "a:b"]).task };
    const flat = {
      version: "3",
      tasks: { root: "echo ROOT", "web1:rebuild": "echo R", "web1:a:b": "echo AB", ...own },
    };
    const [first, second] = [included, flat].map((taskfile) => {
      const file = join(directory, "Root.yml");
      writeFileSync(file, JSON.stringify(taskfile));
      const output = execFileSync(goTask, ["-C", "1", "-t", file, "web1:task"], { encoding: "utf8", stdio: "pipe" });
      return output.split("\n").sort();
    });
    expect(second).toEqual(first);
    expect(first).toEqual(["", "AB", "R", "R", "ROOT"]);
  });
});
