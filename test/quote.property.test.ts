// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell and to Nix
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Document, type Scalar, visit } from "yaml";
import { escapeUnprintable, flakeSource, needsYamlString, template, word, wordWithEnvironment } from "../src/quote.ts";

const words = (list: readonly string[]) => list.map(word).join(" ");

// Quoting is proven by the programs that read it: the real sh and the real go-task.
const task = process.env["TASK_BIN"] ?? "task";
const store = "/nix/store/0c5kdwpl1zbfyg6vsrj0bv9y1s2i3a4x-source";
const environment = { LP_A: "a  b*'\"$HOME", LP_B2: "{{.X}}\\" };

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "lollypops-quote-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const pieces = [
  ..."'\"\\`$!&|;<>(){}[]*?~#%=-^ \t\n\r\u0001\u001b\u007f\u0085\u00a0\u2028\ufeff\ufffdé😀",
  "{{",
  "}}",
  "{{.X}}",
  "{{{",
  '{{"a"}}',
  "{{/*",
  "{{-",
  "-}}",
  "{''{",
  "<no value>",
  "<no ",
  "value>",
  "$(id)",
  "${HOME}",
  "$$",
  "$'\\n'",
  "'\\''",
  "\\\n",
  "\r\n",
  "--",
  "-o",
  "\\x00",
  "%s%n",
  "EOF\n",
  "a",
  "7",
  ":",
  "/",
];
const hostile = fc
  .oneof(
    { weight: 5, arbitrary: fc.array(fc.constantFrom(...pieces), { maxLength: 14 }).map((list) => list.join("")) },
    { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 20 }) },
  )
  .map((text) => text.replaceAll("\0", "").replaceAll(flakeSource, ""));

const sample = (count: number, seed: number) => fc.sample(hostile, { numRuns: count, seed });
const withSource = (list: string[]) =>
  list.map((text, index) => (index % 3 === 0 ? text + flakeSource + list[(index + 1) % list.length] : text));
const resolved = (list: string[]) => list.map((text) => text.replaceAll(flakeSource, store));

/** What printed with `printf '%s\0'` came out, compared as bytes so that the first difference is shown as text. */
function same(output: Buffer, expected: readonly string[]) {
  const wanted = Buffer.from(expected.map((text) => `${text}\0`).join(""));
  if (!output.equals(wanted)) expect(output.toString().split("\0").slice(0, -1)).toEqual(expected);
  expect(output.equals(wanted)).toBe(true);
}

const env = { PATH: process.env["PATH"], HOME: "/", ...environment };

/** Runs a script file: a batch is longer than one argument may be. */
function sh(script: string): Buffer {
  const file = join(directory, "script");
  writeFileSync(file, script);
  return execFileSync("sh", [file], { env, maxBuffer: 1 << 26 });
}

/** JSON is YAML, but for the characters that are escaped here. */
const yaml = (value: unknown): string =>
  typeof value === "string"
    ? escapeUnprintable(JSON.stringify(value))
    : Array.isArray(value)
      ? `[${value.map(yaml).join(", ")}]`
      : typeof value === "object" && value !== null
        ? `{${Object.entries(value)
            .map(([key, item]) => `${key}: ${yaml(item)}`)
            .join(", ")}}`
        : String(value);

/** Runs the task `t` of a Taskfile; a missing go-task fails here. */
function goTask(body: object): Buffer {
  const file = join(directory, "Taskfile.yml");
  const vars = { LOCAL_FLAKE_SOURCE: store };
  writeFileSync(file, yaml({ version: "3.51.1", vars, tasks: { t: { silent: true, ...body } } }));
  return execFileSync(task, ["-d", directory, "-t", file, "t"], { env, maxBuffer: 1 << 26 });
}

const prints = (list: readonly string[]) => list.map((text) => `printf '%s\\0' ${text}`);

/** The same from inside a real sh, whose source is one word of the command. */
const nested = (list: readonly string[]) => list.map((text) => `sh -c ${word(`printf '%s\\0' ${word(text)}`)}`);

/** By what `sh` and go-task's shell make of references, written down a second time. */
function expanded(text: string): string {
  const values: Record<string, string | undefined> = { ...environment, HOME: "/", PATH: process.env["PATH"] };
  return text.replace(/\$\{([A-Za-z_][A-Za-z_0-9]*)\}|\$([A-Za-z_][A-Za-z_0-9]*)/g, (_, braced, bare) => {
    return values[braced ?? bare] ?? "";
  });
}
const withReferences = (list: string[]) =>
  list.map((text, index) => `${text}${["$LP_A", "${LP_B2}", "$HOME", "$1$LP_A"][index % 4]}${list.at(-1 - index)}`);

describe("through the real sh", () => {
  test("10,000 hostile strings stay what they are", () => {
    const all = sample(10_000, 1);
    for (let from = 0; from < all.length; from += 500) {
      const batch = all.slice(from, from + 500);
      same(sh(prints(batch.map(word)).join("\n")), batch);
    }
  });

  test("as one command line", () => {
    const list = sample(500, 2);
    same(sh(`printf '%s\\0' ${words(list)}`), list);
  });

  test("inside sh -c", () => {
    const list = sample(300, 3);
    same(sh(nested(list).join("\n")), list);
  });

  test("references to the environment live, nothing else does", () => {
    const list = [...withReferences(sample(1000, 4)), ...sample(1000, 5)];
    same(sh(prints(list.map(wordWithEnvironment)).join("\n")), list.map(expanded));
  });
});

describe("through the real go-task", () => {
  test.each([11, 12, 13, 14])("400 hostile strings stay what they are, and the flake's source lives (%i)", (seed) => {
    const list = withSource(sample(400, seed));
    same(goTask({ cmds: prints(list.map(word)) }), resolved(list));
  });

  test("in one command beside a template", () => {
    const list = sample(400, 21);
    const body = { vars: { ACTION: "a b" }, cmds: [`printf '%s\\0' ${words(list)} {{.ACTION | q}}`] };
    same(goTask(body), [...list, "a b"]);
  });

  test("inside sh -c", () => {
    const list = withSource(sample(300, 22));
    same(goTask({ cmds: nested(list) }), resolved(list));
  });

  test("references to the environment live, nothing else does", () => {
    const list = withSource([...withReferences(sample(300, 23)), ...sample(100, 24)]);
    same(goTask({ cmds: prints(list.map(wordWithEnvironment)) }), resolved(list.map(expanded)));
  });

  test("template is what a description shows", () => {
    const list = sample(300, 26);
    const expected = list.map((text) =>
      text.includes("{{") ? text.replaceAll("<no value>", "<no\u00a0value>") : text,
    );
    expect(descriptions(yaml(described(list.map(template))))).toEqual(expected);
  });

  test("the yaml package writes what go-task reads", () => {
    const list = sample(2000, 27).filter((text) => !text.includes("{{"));
    const document = new Document(described(list));
    const Scalar = (_: unknown, node: Scalar) => {
      if (needsYamlString(String(node.value))) node.type = "QUOTE_DOUBLE";
    };
    visit(document, { Scalar });
    expect(list.filter(needsYamlString).length).toBeGreaterThan(300);
    expect(list.filter((text) => !needsYamlString(text)).length).toBeGreaterThan(300);
    expect(descriptions(escapeUnprintable(document.toString()))).toEqual(list);
  });
});

const described = (list: readonly string[]) => {
  const tasks = list.map((desc, index) => [`t${index}`, { desc }]);
  return { version: "3.51.1", tasks: Object.fromEntries(tasks) };
};

function descriptions(text: string): string[] {
  const file = join(directory, "Taskfile.yml");
  writeFileSync(file, text);
  const output = execFileSync(task, ["-t", file, "--list-all", "--json", "--no-status"], { env, maxBuffer: 1 << 26 });
  const { tasks }: { tasks: { name: string; desc: string }[] } = JSON.parse(output.toString());
  return tasks.sort((a, b) => Number(a.name.slice(1)) - Number(b.name.slice(1))).map(({ desc }) => desc);
}
