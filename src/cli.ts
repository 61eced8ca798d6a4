#!/usr/bin/env node
// argv to a request, and the result to where it goes. Nothing else prints, or sets the exit code.
import { fstatSync, readFileSync } from "node:fs";
import { cac } from "cac";
import { AppError, usageError } from "./errors.ts";
import { evaluated, generate, matrix, type Request, type World } from "./generate.ts";
import { type Format, formats } from "./matrix.ts";
import { checkFiles, withConcurrency, writeIfChanged } from "./output.ts";

type Flags = Readonly<Record<string, unknown>>;

const program = cac("lollypops-gen");
const common = [
  ["--flake <ref>", "the flake, default `.`; REF#attr reads attr instead of nixosConfigurations"],
  ["--from <file>", "read saved `nix eval` output instead: a file, `-` or a glob; repeatable"],
  ["-k, --keep-going", "keep hosts that fail to evaluate: their tasks fail with nix's message"],
  ["--override-input <name=ref>", "use another input, in every nix call; repeatable"],
  ["--option <name=value>", "a nix setting, for every nix call; repeatable"],
  ["--impure", "evaluate impurely"],
  ["-q, --quiet", "no progress and no warnings"],
  ["-v, --verbose", "show each nix command with its time, and the hosts left out"],
] as const;

const print = program.command("[...selectors]", "print the Taskfile");
print.option("-o, --output <file>", "write FILE, atomically and only if it changed");
print.option("--force", "with --output: replace a file that lollypops-gen did not write");
print.option("--check", "compare with --output (default Taskfile.yml); exit 5 if it differs");
print.option("--concurrency <n>", "with --output: also write .taskrc.yml beside FILE, for n hosts at a time");
print.action(printTaskfile);
const evaluation = program.command("eval [...selectors]", "print what was read, as JSON (feeds --from)");
evaluation.action(printEvaluation);
const shares = program.command("matrix [...selectors]", "print a JSON matrix for CI runners");
shares.option("--shards <n>", "share the hosts out among n jobs, groups together; default one job a host");
shares.option("--format <format>", "github (default) or gitlab");
shares.action(printMatrix);
const run = program.command("run [...stray]", "generate, then run go-task with what follows --");
run.usage("run [options] [-- TASK ARGS…]");
run.action(runCommand);
for (const command of [print, evaluation, shares, run]) for (const [flags, text] of common) command.option(flags, text);
program.option("-V, --version", "print the version");
program.help(help);

async function main(): Promise<void> {
  // The reader of a pipe may go before we are done (`| head`).
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
  try {
    program.parse([...process.argv.slice(0, 2), ...marked(process.argv.slice(2))], { run: false });
    if (program.options["version"]) process.stdout.write(`${version()}\n`);
    else if (!program.options["help"]) await program.runMatchedCommand();
  } catch (error) {
    report(error);
  }
}

async function printTaskfile(selectors: string[], flags: Flags): Promise<void> {
  const request = toRequest(selectors, flags);
  refuseTaskArgs(flags);
  const [named] = list(flags["output"]);
  const output = named === "-" ? undefined : named;
  if (flags["force"] && output === undefined) throw usageError("--force goes with --output");
  const limit = wholeNumber(flags, "concurrency");
  if (limit !== undefined && output === undefined && !flags["check"])
    throw usageError("--concurrency goes with --output");
  const text = await generate(request, world(flags));
  const file = output ?? "Taskfile.yml";
  const texts = limit === undefined ? [{ file, text }] : withConcurrency({ file, text }, limit);
  if (flags["check"])
    await checkFiles(texts, `lollypops-gen -o ${file}${limit === undefined ? "" : ` --concurrency ${limit}`}`);
  else if (output !== undefined) await writeIfChanged(texts, { force: flags["force"] === true });
  else process.stdout.write(text);
}

async function printMatrix(selectors: string[], flags: Flags): Promise<void> {
  refuseTaskArgs(flags);
  const request = toRequest(selectors, flags);
  const format = one(flags, "format", "github");
  if (!isFormat(format)) throw usageError(`--format is ${Object.keys(formats).join(" or ")}, not ${format}`);
  process.stdout.write(await matrix(request, world(flags), format, wholeNumber(flags, "shards")));
}

const isFormat = (name: string): name is Format => Object.hasOwn(formats, name);

async function printEvaluation(selectors: string[], flags: Flags): Promise<void> {
  refuseTaskArgs(flags);
  process.stdout.write(await evaluated(toRequest(selectors, flags), world(flags)));
}

async function runCommand([stray]: string[], flags: Flags): Promise<void> {
  if (stray !== undefined) throw usageError(`run: what go-task is to do goes after --, as in: run -- ${stray}`);
  // What only `run` needs is loaded only then.
  const { findTask, fromHere, runTask } = await import("./run.ts");
  const task = await findTask();
  const request = toRequest([], flags);
  const flake = { ...request.flake, reference: fromHere(request.flake.reference) };
  const text = await generate({ ...request, flake, keepGoing: true }, world(flags));
  process.exitCode = await runTask(task, text, flags["--"] as string[]);
}

function refuseTaskArgs(flags: Flags): void {
  const [first] = flags["--"] as string[];
  if (first !== undefined)
    throw usageError(`only run takes arguments after --; did you mean: lollypops-gen run -- ${first}`);
}

function toRequest(selectors: readonly string[], flags: Flags): Request {
  const [reference = ".", attribute = "nixosConfigurations"] = one(flags, "flake", ".").split("#");
  const from = list(flags["from"]);
  if (from.length > 0 && flags["flake"] !== undefined && reference === "")
    throw usageError("--flake: nothing stands before #");
  const inputs = list(flags["overrideInput"]).flatMap((pair) => [
    "--override-input",
    ...named("--override-input", pair),
  ]);
  const settings = list(flags["option"]).flatMap((pair) => ["--option", ...named("--option", pair)]);
  const options = [...inputs, ...settings, ...(flags["impure"] ? ["--impure"] : [])];
  return {
    selectors,
    flake: { reference: reference || ".", attribute: attribute || "nixosConfigurations", options },
    from,
    keepGoing: flags["keepGoing"] === true,
  };
}

function one(flags: Flags, name: string, otherwise: string): string {
  const values = list(flags[name]);
  if (values.length > 1) throw usageError(`--${name} may stand only once`);
  return values[0] ?? otherwise;
}

function wholeNumber(flags: Flags, name: string): number | undefined {
  if (flags[name] === undefined) return undefined;
  const value = one(flags, name, "");
  if (!/^[1-9]\d{0,5}$/.test(value)) throw usageError(`--${name} must be a whole number above 0, not ${value}`);
  return Number(value);
}

const list = (value: unknown): string[] =>
  value === undefined ? [] : [value].flat().map((one) => String(one).replace(/^=/, ""));

/** The command line library takes `-` for a flag and `1e3` for a number: each value gets a mark, which `list` takes off. */
function marked(args: readonly string[]): string[] {
  const flags = [...print.options, ...shares.options].filter(({ required }) => required).flatMap(({ names }) => names);
  const takesValue = (arg = "") => flags.some((name) => arg === `--${kebab(name)}` || arg === `-${name}`);
  const ends = args.indexOf("--");
  const own = ends === -1 ? args : args.slice(0, ends);
  const mark = (arg: string, index: number) => {
    if (takesValue(own[index - 1]) && isValue(arg)) return `=${arg}`;
    return takesValue(arg.replace(/=.*/s, "")) ? arg.replace("=", "==") : arg;
  };
  return [...own.map(mark), ...args.slice(own.length)];
}

const isValue = (arg: string) => arg === "-" || !arg.startsWith("-");
const kebab = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

function named(flag: string, pair: string): [string, string] {
  const at = pair.indexOf("=");
  if (at < 1) throw usageError(`${flag} takes NAME=VALUE, not ${pair}`);
  return [pair.slice(0, at), pair.slice(at + 1)];
}

function world(flags: Flags): World {
  const loud = !flags["quiet"];
  const tell = (text: string) => process.stderr.write(`${text}\n`);
  return {
    stdin: process.stdin,
    detail: (text) => flags["verbose"] && tell(text),
    warn: (text) => loud && tell(`warning: ${text}`),
    watch: {
      command: (text, ms) => flags["verbose"] && tell(`${text}  (${(ms / 1000).toFixed(1)} s)`),
      progress: (text) => loud && process.stderr.isTTY && tell(text),
    },
  };
}

function report(error: unknown): void {
  const hint = isRun()
    ? "go-task's own options go after --, as in: lollypops-gen run -- deploy-all -C 20"
    : "lollypops-gen --help lists the options";
  const known = isUsage(error) ? usageError(error.message.replace(/^U/, "u"), { hint }) : error;
  process.exitCode = known instanceof AppError ? known.exitCode : 1;
  if (known instanceof AppError) {
    const next = known.hint === undefined ? "" : `hint: ${known.hint}\n`;
    process.stderr.write(`error: ${known.message}\n${next}${emptied()}`);
  } else {
    process.stderr.write(`${(error as Error)?.stack ?? error}\nThis is a bug of lollypops-gen; please report it.\n`);
  }
}

const isRun = () => program.matchedCommandName === "run";

/** The command line library does not export its error. */
const isUsage = (error: unknown): error is Error => error instanceof Error && error.name === "CACError";

/** `> Taskfile.yml` has emptied the file before we began. */
function emptied(): string {
  const { output: file, check } = program.options;
  if (isRun() || (file ?? "-") !== "-" || check) return "";
  try {
    const output = fstatSync(1);
    return output.isFile() && output.size === 0 ? "note: the file that standard output goes to is now empty\n" : "";
  } catch {
    return "";
  }
}

function version(): string {
  return JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")).version;
}

function help(sections: { title?: string; body: string }[]): { title?: string; body: string }[] {
  const words = isRun()
    ? {
        title: "go-task's own options",
        body: "  go after --, as in: run -- deploy-all -C 20 (10 hosts at a time unless you say so)",
      }
    : {
        title: "Selectors",
        body: "  a host, a glob ('web*'), a group (@web), or one of these negated ('!web3'); none means all hosts",
      };
  const codes =
    "  0 done · 1 a bug · 2 wrong usage · 3 nix or go-task is missing or failed · 4 the configuration is wrong\n  5 --check found a difference · run: go-task's own, or 129, 130 or 143 after a signal";
  const all = [...sections.slice(1), words, { title: "Exit codes", body: codes }];
  const said = (body: string) => body.replace("run [...stray]      ", "run [-- TASK ARGS…] ").replaceAll(/ +$/gm, "");
  return all.map((section) => ({ ...section, body: said(section.body) }));
}

await main();
