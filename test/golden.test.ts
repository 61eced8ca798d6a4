/**
 * Each folder of fixtures/ with a hosts.json is a case: Taskfile.yml is what it gives. `npm run golden` is the only way to
 * change these files. In them the runtime is left out, or each line of it would change them all; Taskfile.example.yml has it.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { generate } from "../src/generate.ts";
import { checkHosts } from "../src/rules.ts";
import { buildTaskfile, type Taskfile } from "../src/taskfile.ts";
import { readTemplates, type Templates } from "../src/templates.ts";
import { render } from "../src/yaml.ts";
import { cli, mustRun, root, run, temporaryDirectory } from "./hosts.ts";
import { taskfileSchema } from "./taskfile-schema.ts";

const folder = (name: string) => join(root, "fixtures", name);
const json = (name: string, file: string, otherwise?: unknown) => {
  const path = join(folder(name), file);
  return otherwise !== undefined && !existsSync(path) ? otherwise : JSON.parse(readFileSync(path, "utf8"));
};
const cases = readdirSync(join(root, "fixtures")).filter((name) => existsSync(join(folder(name), "hosts.json")));
const templates = await readTemplates();

/** The model of a case; hosts that fail to evaluate stand in failures.json, as no saved input has such. */
function model(name: string, { runtime }: Pick<Templates, "runtime"> = templates): Taskfile {
  const saved = json(name, "hosts.json");
  const { hosts, problems } = checkHosts({
    hosts: "schema" in saved ? saved.hosts : saved,
    failures: json(name, "failures.json", {}),
  });
  expect(problems).toEqual([]);
  const where = { flake: ".", attribute: "nixosConfigurations", nixOptions: [] };
  return buildTaskfile(hosts, { ...templates, runtime }, where);
}

/** What the built program prints; the model's text for a case that it cannot read from a file. */
function printed(name: string): Promise<string> {
  const text = texts.get(name) ?? print(name);
  texts.set(name, text);
  return text;
}
const texts = new Map<string, Promise<string>>();

async function print(name: string): Promise<string> {
  if (existsSync(join(folder(name), "failures.json"))) return render(model(name));
  const args = ["--from", `fixtures/${name}/hosts.json`, ...json(name, "args.json", [])];
  const { stdout, stderr, exitCode } = await cli(args);
  expect([exitCode, stderr]).toEqual([0, ""]);
  return stdout;
}

/** Without the runtime, and with a name for it that does not change with it. */
function withoutRuntime(text: string): string {
  const { hash } = templates.runtime;
  const at = text.indexOf(`  LOLLYPOPS_SH_${hash}: `);
  expect(at).toBeGreaterThan(0);
  const note = "  LOLLYPOPS_SH_000000: |\n    # The runtime stands here; Taskfile.example.yml shows it.\n";
  return text.slice(0, at).replaceAll(hash, "000000") + note;
}

/** A directory with this Taskfile, and a flake for what asks where its source is. */
function place(text: string): string {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, "Taskfile.yml"), text);
  writeFileSync(join(directory, "flake.nix"), "{ outputs = _: { }; }\n");
  return directory;
}

/** The model as go-task should see it: each command that is written once stands wherever it is referred to. */
function resolved(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(resolved);
  if (typeof value !== "object" || value === null) return value;
  if ("anchor" in value && "content" in value) return resolved(value.content);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item)]));
}
const tasksOf = ({ sections }: Taskfile) =>
  resolved(Object.assign({}, ...sections.map(({ tasks }) => tasks))) as Record<string, { internal?: boolean }>;

/** The same input with all that has no order turned around. */
function turned(value: unknown, key = ""): unknown {
  if (Array.isArray(value)) return ["derivations", "groups"].includes(key) ? value.toReversed() : value;
  if (typeof value !== "object" || value === null || key === "extraTasks") return value;
  const entries = Object.entries(value).map(([name, item]) => [name, turned(item, name)]);
  return Object.fromEntries(entries.toReversed());
}

describe.each(cases)("%s", (name) => {
  test("is what it was", async () => {
    await expect(withoutRuntime(await printed(name))).toMatchFileSnapshot(join(folder(name), "Taskfile.yml"));
  });

  test("says the same to readers of YAML 1.1 and 1.2 as in memory", async () => {
    const taskfile = model(name);
    const text = render(taskfile);
    for (const version of ["1.1", "1.2"] as const) {
      const read = parse(text, { version, maxAliasCount: -1 });
      expect(read).toEqual({ version: "3.51.1", output: "prefixed", tasks: tasksOf(taskfile), env: taskfile.env });
    }
  });

  test("holds only what go-task knows", async () => {
    const text = await printed(name);
    const result = taskfileSchema.safeParse(parse(text, { maxAliasCount: -1 }));
    expect(result.error?.issues ?? []).toEqual([]);
    // In a quoted text an escaped blank may end a line.
    expect(text.split("\n").filter((line) => /\t|<no value>|(?<!\\)\s$/.test(line))).toEqual([]);
  });

  test("is read, and walked through, by the real go-task", async () => {
    const text = await printed(name);
    const public_ = Object.entries(tasksOf(model(name))).filter(([, task]) => !task.internal);
    for (const taskfile of [text, withoutRuntime(text)]) {
      const { stdout } = await mustRun("task", ["--list-all", "--json", "--no-status"], { cwd: place(taskfile) });
      const names = (JSON.parse(stdout).tasks as { name: string }[]).map((task) => task.name);
      expect(names.sort()).toEqual(public_.map(([task]) => task).sort());
    }
    const dry = await run("task", ["--dry", "--yes", "deploy-all"], { cwd: place(text) });
    expect([dry.exitCode, dry.stderr.includes("<no value>")], dry.stderr).toEqual([0, false]);
  });
});

test.each(cases.filter((name) => !existsSync(join(folder(name), "failures.json"))))(
  "%s: the order of the input does not matter",
  async (name) => {
    const options = { selectors: [], keepGoing: false, flake: { reference: ".", attribute: "x", options: [] } };
    const from = (value: unknown) =>
      generate(
        { ...options, from: ["-"] },
        {
          stdin: Readable.from([JSON.stringify(value)]),
          watch: { command: () => undefined, progress: () => undefined },
          detail: () => undefined,
          warn: () => undefined,
        },
      );
    const saved = json(name, "hosts.json");
    expect(await from(turned(saved))).toBe(await from(saved));
  },
);

test("Taskfile.example.yml is the whole file of one case", async () => {
  await expect(await printed("example")).toMatchFileSnapshot(join(root, "Taskfile.example.yml"));
});

test.each<[string, object, string]>([
  ["cmdss", { tasks: { "web1:rebuild": { cmdss: ["true"] } } }, "unknown key `cmdss`; did you mean `cmds` or `cmd`?"],
  ["a key of another place", { tasks: { web1: { timeout: "5m" } } }, "go-task ignores `timeout` on a task"],
  ["a top level key", { task: {} }, 'Unrecognized key: "task"'],
])("the schema catches %s", (_, change, message) => {
  const whole = { version: "3.51.1", output: "prefixed", tasks: {}, env: {} };
  expect(taskfileSchema.safeParse(whole).success).toBe(true);
  const issues = taskfileSchema.safeParse({ ...whole, ...change }).error?.issues ?? [];
  expect(issues.map((issue) => issue.message)).toEqual([message]);
});
