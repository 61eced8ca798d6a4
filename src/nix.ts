// The only module that runs nix.
import { nixError } from "./errors.ts";
import { flakeSource } from "./quote.ts";
import type { Input } from "./rules.ts";
import { needsGroups, selectHosts } from "./select.ts";
import { readTemplate } from "./templates.ts";

/** A flake reference, the attribute that holds its hosts, and what the user hands to every nix call. */
export type Flake = { readonly reference: string; readonly attribute: string; readonly options: readonly string[] };
/** Told of every nix command and its time in ms (for -v), and of how far the work is. */
export type Watch = { readonly command: (text: string, ms: number) => void; readonly progress: (text: string) => void };
/** `skipped` are hosts without lollypops, `unread` those that the selectors leave out. */
export type Evaluated = Input & { readonly skipped: readonly string[]; readonly unread: readonly string[] };

/**
 * Reads the hosts of a flake. All are evaluated in one go; if that fails, one by one, so that the broken ones are known
 * by name and the others are still read.
 * Throws a nixError if nix is missing, or the flake as a whole does not evaluate; a usageError if a selector is wrong.
 */
export async function evaluate(flake: Flake, selectors: readonly string[], watch: Watch): Promise<Evaluated> {
  const names = await listHosts(flake, watch);
  // Groups stand in the hosts' own configuration: with `@web` all must be read.
  const wanted = needsGroups(selectors) ? names : selectHosts(names.map(ungrouped), selectors);
  watch.progress(`evaluating ${wanted.length} of ${names.length} hosts`);
  const some = await readHosts(flake, wanted, wanted.length === names.length, watch);
  const asked = new Set(wanted);
  const read = { ...some, unread: names.filter((name) => !asked.has(name)) };
  if (!JSON.stringify(read.hosts).includes("/nix/store/")) return read;
  const source = await sourcePath(flake, watch);
  const portable = JSON.stringify(read.hosts).replaceAll(source, flakeSource);
  return { ...read, hosts: JSON.parse(portable) };
}

const ungrouped = (name: string) => ({ name, groups: [] });

async function listHosts(flake: Flake, watch: Watch): Promise<string[]> {
  const names: unknown = JSON.parse(await evalApply(flake, "builtins.attrNames", watch));
  return (names as string[]).sort();
}

type Read = { hosts: Record<string, unknown>; failures: Record<string, string>; skipped: string[] };

async function readHosts(flake: Flake, names: readonly string[], all: boolean, watch: Watch): Promise<Read> {
  try {
    // The names of thousands of hosts would be too long for an argument.
    return { failures: {}, ...(await readTogether(flake, all ? null : names, watch)) };
  } catch (error) {
    if (!(error instanceof FailedEvaluation)) throw error;
    return names.length === 1 ? failed(names[0] ?? "", error) : readOneByOne(flake, names, watch);
  }
}

async function readOneByOne(flake: Flake, names: readonly string[], watch: Watch): Promise<Read> {
  const all: Read = { hosts: {}, failures: {}, skipped: [] };
  for (const [index, name] of names.entries()) {
    watch.progress(`looking for the host that does not evaluate: ${index + 1} of ${names.length}`);
    const one = await readHosts(flake, [name], false, watch);
    Object.assign(all.hosts, one.hosts);
    Object.assign(all.failures, one.failures);
    all.skipped.push(...one.skipped);
  }
  return all;
}

const failed = (name: string, { nixMessage }: FailedEvaluation): Read => ({
  hosts: {},
  // The source's path is another one after each commit; the message should not be.
  failures: { [name]: nixMessage.replaceAll(/\/nix\/store\/[0-9a-z]{32}-source/g, "") },
  skipped: [],
});

async function readTogether(flake: Flake, hosts: readonly string[] | null, watch: Watch) {
  const args = JSON.stringify(JSON.stringify({ system: currentSystem(), hosts })).replaceAll("${", "\\${");
  const apply = `(${await readTemplate("hosts.nix")}) (builtins.fromJSON ${args})`;
  const result = JSON.parse(await evalApply(flake, apply, watch));
  return result as { hosts: Record<string, unknown>; skipped: string[] };
}

function currentSystem(): string {
  const arch = { x64: "x86_64", arm64: "aarch64", ia32: "i686" }[process.arch as string] ?? process.arch;
  return `${arch}-${process.platform}`;
}

/** The store path of the flake itself, as its strings name it. */
async function sourcePath({ reference, options }: Flake, watch: Watch): Promise<string> {
  const output = await nix(["flake", "prefetch", "--json", ...options, reference], watch);
  return (JSON.parse(output) as { storePath: string }).storePath;
}

async function evalApply({ reference, attribute, options }: Flake, apply: string, watch: Watch): Promise<string> {
  // A lock that would have to change is an error, unless the user asks for other inputs.
  const lock = options.includes("--override-input") ? "--no-write-lock-file" : "--no-update-lock-file";
  return nix(["eval", "--json", `${reference}#${attribute}`, "--apply", apply, lock, ...options], watch);
}

/** nix said no: its own message, without the trace that leads there. */
class FailedEvaluation extends Error {
  readonly nixMessage: string;
  constructor(nixMessage: string) {
    super(nixMessage);
    this.nixMessage = nixMessage;
  }
}

async function nix(args: readonly string[], watch: Watch): Promise<string> {
  // Only here: saved input needs no nix, and this takes a tenth of a second to load.
  const { ExecaError, execa } = await import("execa");
  const start = Date.now();
  const shown = args.map((arg) => (arg.includes("\n") ? "…" : arg)).join(" ");
  try {
    const all = ["--extra-experimental-features", "nix-command flakes", ...args];
    const { stdout } = await execa("nix", all, { stdin: "ignore", stripFinalNewline: true });
    return stdout;
  } catch (error) {
    if (!(error instanceof ExecaError)) throw error;
    if (error.code === "ENOENT") {
      const hint = "install nix, or read saved `nix eval` output with --from FILE";
      throw nixError("nix was not found on PATH", { hint, cause: error });
    }
    throw new FailedEvaluation(lastError(error.stderr ?? "") || (error.shortMessage ?? "nix failed"));
  } finally {
    watch.command(`nix ${shown}`, Date.now() - start);
  }
}

/** From the last `error:` on: what comes before is the trace, and warnings. */
function lastError(stderr: string): string {
  const text = stderr.trim();
  const at = text.lastIndexOf("error:");
  const lines = (at === -1 ? text : text.slice(at)).split("\n").map((line) => line.trimEnd());
  return lines
    .filter((line) => line !== "")
    .slice(0, 12)
    .join("\n");
}

/** Turns a failed evaluation of the flake as a whole into an error for the user; passes on anything else. */
export function explainFailure({ reference, attribute }: Flake, error: unknown): unknown {
  if (!(error instanceof FailedEvaluation)) return error;
  const locked = /lock file changes/.test(error.message) ? { hint: "run `nix flake lock` and commit flake.lock" } : {};
  return nixError(`nix cannot evaluate ${reference}#${attribute}:\n${error.nixMessage}`, locked);
}
