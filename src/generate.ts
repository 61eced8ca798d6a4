// What the program does, step by step: read, check, select, build, write.
import { configError, configProblems, nixError } from "./errors.ts";
import type { Host } from "./hosts.ts";
import { type Format, matrixOf } from "./matrix.ts";
import { type Evaluated, evaluate, explainFailure, type Flake, type Watch } from "./nix.ts";
import { checkHosts, type Input } from "./rules.ts";
import { readSaved } from "./saved.ts";
import { selectHosts } from "./select.ts";
import { buildTaskfile } from "./taskfile.ts";
import { readTemplates } from "./templates.ts";
import { render } from "./yaml.ts";

/** What is asked for. `from` holds files of saved input; without any, the flake is evaluated. */
export type Request = {
  readonly selectors: readonly string[];
  readonly flake: Flake;
  readonly from: readonly string[];
  readonly keepGoing: boolean;
};
/** The outer world: standard input, and who is told of nix commands, progress and warnings. */
export type World = {
  readonly stdin: NodeJS.ReadableStream;
  readonly watch: Watch;
  readonly warn: (text: string) => void;
  readonly detail: (text: string) => void;
};

/** The Taskfile of the hosts asked for. Throws an AppError of any kind; then nothing of it exists. */
export async function generate(request: Request, world: World): Promise<string> {
  const input = await readInput(request, world);
  const hosts = selectChecked(request, input, world);
  const { reference, attribute, options } = request.flake;
  refuseOverrides(hosts, options);
  return render(buildTaskfile(hosts, await readTemplates(), { flake: reference, attribute, nixOptions: options }));
}

/** What was read of the hosts asked for, as JSON that `--from` takes. Throws as `generate`. */
export async function evaluated(request: Request, world: World): Promise<string> {
  const input = await readInput(request, world);
  const names = selectChecked(request, input, world).map(({ name }) => name);
  const hosts = Object.fromEntries(names.flatMap((name) => (name in input.hosts ? [[name, input.hosts[name]]] : [])));
  return `${JSON.stringify({ schema: 1, hosts }, undefined, 2)}\n`;
}

/** The hosts asked for as a matrix of jobs for a CI runner, one line of JSON. Throws as `generate`. */
export async function matrix(request: Request, world: World, format: Format, shards?: number): Promise<string> {
  return matrixOf(selectChecked(request, await readInput(request, world), world), format, shards);
}

async function readInput({ from, flake, selectors }: Request, world: World): Promise<Evaluated> {
  if (from.length > 0) return { hosts: await readSaved(from, world.stdin), failures: {}, skipped: [], unread: [] };
  try {
    return await evaluate(flake, selectors, world.watch);
  } catch (error) {
    throw explainFailure(flake, error);
  }
}

function selectChecked({ selectors, keepGoing, flake, from }: Request, input: Evaluated, world: World): Host[] {
  if (!keepGoing) refuseFailures(input);
  if (input.skipped.length > 0) world.detail(`without lollypops, left out: ${input.skipped.join(", ")}`);
  const asked = input.skipped.filter((name) => selectors.includes(name));
  if (asked.length > 0)
    throw configError(`${asked.join(", ")}: this host has no lollypops options; import the module in it`);
  const { hosts, problems } = checkHosts(input);
  if (problems.length > 0) throw configProblems(problems);
  if (hosts.length === 0) {
    const where = from.length > 0 ? from.join(", ") : `${flake.reference}#${flake.attribute}`;
    throw configError(`there is no host in ${where}${skippedHint(input.skipped)}`);
  }
  // `!web1` names a host that was not read
  const unread = input.unread.map((name) => ({ name, groups: [] }));
  const selected = new Set(selectHosts([...hosts, ...unread], selectors));
  const broken = hosts.filter(({ name, error }) => selected.has(name) && error !== undefined);
  for (const { name } of broken) world.warn(`${name} does not evaluate and cannot be deployed`);
  return hosts.filter(({ name }) => selected.has(name));
}

const skippedHint = (skipped: readonly string[]) =>
  skipped.length > 0 ? ` that imports the lollypops module (${skipped.length} without it)` : "";

function refuseFailures({ failures }: Input): void {
  const all = Object.entries(failures).map(([name, message]) => `  - ${name}: ${message.replaceAll("\n", "\n    ")}`);
  if (all.length === 0) return;
  const hint = "--keep-going generates the others";
  throw nixError(`${all.length === 1 ? "a host does" : `${all.length} hosts do`} not evaluate:\n${all.join("\n")}`, {
    hint,
  });
}

/** A target evaluates what it has: inputs that were replaced here would silently be the locked ones there. */
function refuseOverrides(hosts: readonly Host[], options: readonly string[]): void {
  const remote = hosts.filter(({ localEvaluation }) => !localEvaluation).map(({ name }) => name);
  if (!options.includes("--override-input") || remote.length === 0) return;
  const hint = "set lollypops.deployment.local-evaluation there, or deploy without --override-input";
  throw configError(`--override-input cannot reach ${remote.join(", ")}, evaluated on the target`, { hint });
}
