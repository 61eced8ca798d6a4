// Reads saved `nix eval` output: our manifest, or upstream's shape.
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { configProblems, usageError } from "./errors.ts";
import { word } from "./quote.ts";

/** The options of each host in all the files, which `-` and globs may name. Throws usageError, or configError with all problems. */
export async function readSaved(
  patterns: readonly string[],
  stdin: NodeJS.ReadableStream,
): Promise<Record<string, unknown>> {
  const files = (await Promise.all(patterns.map(expand))).flat();
  const problems: string[] = [];
  const hosts: Record<string, unknown> = {};
  const from: Record<string, string> = {};
  for (const name of [...new Set(files)]) {
    const content = name === "-" ? await text(stdin) : await read(name);
    const file = name === "-" ? "standard input" : name;
    const parsed = parse(content, file);
    problems.push(...parsed.problems);
    for (const [host, value] of Object.entries(parsed.hosts)) {
      if (Object.hasOwn(from, host)) problems.push(`${host}: stands in both ${from[host]} and ${file}`);
      from[host] = file;
      hosts[host] = value;
    }
  }
  if (problems.length > 0) throw configProblems(problems);
  return hosts;
}

async function expand(pattern: string): Promise<string[]> {
  if (!/[*?[{(]/.test(pattern) || existsSync(pattern)) return [pattern];
  const { default: fastGlob } = await import("fast-glob");
  const files = await fastGlob(pattern);
  if (files.length === 0) throw usageError(`--from ${pattern}: no file matches`);
  return files.sort();
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    const why = { ENOENT: "there is no such file", EISDIR: "is a directory", EACCES: "may not be read" }[code ?? ""];
    throw usageError(`--from ${word(file)}: ${why ?? (cause as Error).message}`, { cause });
  }
}

type Parsed = { hosts: Record<string, unknown>; problems: string[] };

function parse(content: string, file: string): Parsed {
  const wrong = (problem: string): Parsed => ({ hosts: {}, problems: [`${file}: ${problem}`] });
  if (content.trim() === "") return wrong("is empty; did the command that wrote it fail?");
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (error) {
    const { message } = error as Error;
    const position = Number(/at position (\d+)/.exec(message)?.[1]);
    return wrong(
      /Unexpected end|Unterminated/.test(message) || position >= content.trimEnd().length
        ? "is cut off in the middle of its JSON; did the command that wrote it fail?"
        : "is not JSON, as `lollypops-gen eval` prints it",
    );
  }
  if (!isSet(value)) return wrong("must be a JSON object of hosts, as `lollypops-gen eval` prints it");
  if ("hosts" in value && "schema" in value && !isSet(value["schema"])) return manifest(value, wrong);
  if (isSet(value["deployment"]) || isSet(value["secrets"])) {
    return wrong('holds the options of one host; write {"NAME": {…}} around them');
  }
  return { hosts: value, problems: [] };
}

function manifest({ schema, hosts }: Record<string, unknown>, wrong: (problem: string) => Parsed): Parsed {
  if (schema !== 1) return wrong(`has schema ${JSON.stringify(schema)}; this lollypops-gen reads schema 1`);
  return isSet(hosts) ? { hosts, problems: [] } : wrong("`hosts` must be an object");
}

const isSet = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
