// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
// Whatever stands in a host's options comes out of the written Taskfile byte for byte, through the real go-task and sh.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { checkHosts } from "../src/rules.ts";
import { buildTaskfile } from "../src/taskfile.ts";
import { render } from "../src/yaml.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "lollypops-yaml-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** In place of the runtime: prints the words that it is called with. */
const runtime = { hash: "000000", settings: [], targets: "", text: "printf '%s\\0' \"$@\"" };
const where = { flake: ".", attribute: "nixosConfigurations", nixOptions: [] };

/** The Taskfile of the only host, web1. */
function taskfile(options: object): string {
  const { hosts, problems } = checkHosts({ hosts: { web1: options }, failures: {} });
  expect(problems).toEqual([]);
  return render(buildTaskfile(hosts, { runtime, summaries: {} }, where));
}

/** What a task of it prints, split at NULs. */
function printed(text: string, task: string): string[] {
  const file = join(directory, "Taskfile.yml");
  writeFileSync(file, text);
  const args = ["--silent", "--output", "interleaved", "-d", directory, "-t", file, task];
  const env = { PATH: process.env["PATH"], HOME: "/" };
  const output = execFileSync(process.env["TASK_BIN"] ?? "task", args, { env, maxBuffer: 1 << 26 });
  return output.toString().split("\0").slice(0, -1);
}

const pieces = [
  ..."'\"\\`$!&|;<>(){}[]*?~#%=-^@,: \t\n\r\u0001\u007f\u0085\u00a0\u2028\ufeffé😀aZ07",
  ..."{{|}}|{{.X}}|<no value>|$(id)|${HOME}|\\\n|\r\n|\n\n|  \n|\n\t|: |- |# |yes|null|0o17|0x1F|1e3|EOF\n|---\n|...\n|<<".split(
    "|",
  ),
];
const hostile = fc.oneof(
  { weight: 4, arbitrary: fc.array(fc.constantFrom(...pieces), { maxLength: 12 }).map((list) => list.join("")) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 20 }).map((text) => text.replaceAll("\0", "")) },
);
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are meant
const plain = hostile.map((text) => text.replaceAll(/[\u0000-\u001f\u007f]/g, "")).filter((text) => text !== "");
const path = plain.map((text) => `/p${text.replaceAll("/", "|")}`);
const secret = fc.record({ name: plain, path, cmd: hostile.filter((text) => text !== "") });
const unique = { selector: (one: { path: string }) => one.path };
/** Lists of 150, each of them one Taskfile. */
const sample = <T>(list: fc.Arbitrary<T[]>, seed: number) => fc.sample(list, { numRuns: 1, seed })[0] as T[];

describe("a host's secrets", () => {
  test.each([1, 2, 3, 4])("150 of them (%i)", (seed) => {
    const secrets = sample(fc.uniqueArray(secret, { ...unique, minLength: 150, maxLength: 150, size: "max" }), seed);
    const files = Object.fromEntries(secrets.map((one, index) => [`s${String(index).padStart(3, "0")}`, one]));
    const text = taskfile({ secrets: { files } });
    const expected = secrets.flatMap(({ name, path, cmd }) => [`name=${name}`, `path=${path}`, `cmd=${cmd}`]);
    const words = printed(text, "web1:deploy-secrets");
    expect(words.slice(0, 6)).toEqual(["deploy-secrets", "--host", "web1", "--to", "web1", "--"]);
    expect(words.slice(6)).toEqual(expected);
    for (const version of ["1.1", "1.2"] as const) expect(parse(text, { version })).toEqual(parse(text));
  });

  test("one at a time, as each may change how the whole is written", () => {
    const one = fc.property(secret, (single) => {
      const words = printed(taskfile({ secrets: { files: { key: single } } }), "web1:deploy-secrets");
      expect(words.slice(6)).toEqual([`name=${single.name}`, `path=${single.path}`, `cmd=${single.cmd}`]);
    });
    fc.assert(one, { numRuns: 60, seed: 5 });
  });
});

describe("an extra task", () => {
  const noTemplate = hostile.map((text) => text.replaceAll(/\{(?=\{)/g, "{ ").replaceAll("<no value>", ""));

  test.each([11, 12])("texts of variables stay texts (%i)", (seed) => {
    const list = sample(fc.array(noTemplate, { minLength: 150, maxLength: 150, size: "max" }), seed);
    const given = [...list, "0o17", "+0O1_7", "017", "0b1", "1_0", "yes", "~", "2001-12-14", "1e3", ".inf", "<<", "="];
    const vars = Object.fromEntries(given.map((value, index) => [`V${index}`, value]));
    const cmds = given.map((_, index) => `printf '%s %s\\0' {{kindOf .V${index}}} {{.V${index} | q}}`);
    const words = printed(taskfile({ extraTasks: { show: { vars, cmds } } }), "web1:show");
    // The runtime is called before and after the user's commands.
    const ready = ["ready", "--host", "web1", "--step", "show"];
    const texts = given.map((value) => `string ${value}`);
    expect(words.slice(0, ready.length + given.length)).toEqual([...ready, ...texts]);
  });
});
