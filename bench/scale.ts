// The tables of docs/scale.md: what it takes to generate and to load the Taskfile of a large fleet, and to deploy one that is
// simulated. Of a simulation all is real but ssh and what is behind it: standin.sh waits, and answers that nothing had to change.
import { existsSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { secondsOf, simulatedHosts } from "./hosts.ts";
import { type Command, median } from "./measure.ts";
import { time } from "./print.ts";
import { quote, write } from "./realhosts.ts";
import { type Usage, usage } from "./usage.ts";

const cli = resolve("dist/cli.js");
const standin = resolve("bench/standin.sh");

export async function benchScale(scratch: string): Promise<void> {
  const fleet = (count: number) => prepareFleet(join(scratch, `${count}`), count);
  console.log("generating, and what go-task needs to load it; 3 secrets a host; memory is the peak of the process");
  await table([
    () => loading(fleet(1000), "1000", 3),
    () => loading(fleet(5000), "5000", 1),
    () => loading(fleet(10000), "10000", 1),
    () => loading({ ...fleet(10000), selectors: ["h00*"] }, "1000 of 10000", 1),
  ]);
  console.log("\ndeploy-all of simulated hosts, which take 1 to 3 s each");
  await table([
    () => deploying(fleet(1000), 1000, 50),
    () => deploying(fleet(1000), 1000, 200),
    () => deploying(fleet(5000), 5000, 50),
    () => deploying(fleet(5000), 5000, 200),
  ]);
}

/** A directory with the saved input of a fleet, and a flake; of its hosts the selected ones are generated. */
export type Fleet = { readonly directory: string; readonly selectors: readonly string[] };
type Row = Readonly<Record<string, string>>;

/** Writes what stands for a fleet of so many hosts. */
export function prepareFleet(directory: string, count: number): Fleet {
  write(join(directory, "flake", "flake.nix"), "{ outputs = _: { }; }\n");
  write(join(directory, "hosts.json"), JSON.stringify(simulatedHosts(count, quote(standin))));
  return { directory, selectors: [] };
}

async function loading(fleet: Fleet, hosts: string, rounds: number): Promise<Row> {
  const generate = await typicalUsage(generating(fleet), rounds);
  const load = async (...args: string[]) => typicalUsage(runningTask(fleet, args), rounds);
  const [list, all, one] = [await load("--list"), await load("--list-all"), await load("-n", "h00001")];
  return {
    hosts,
    generate: time(generate.seconds),
    "node's memory": mebibytes(generate.memory),
    file: `${(statSync(join(fleet.directory, "Taskfile.yml")).size / 1e6).toFixed(1)} MB`,
    "`--list`": time(list.seconds),
    "`--list-all`": time(all.seconds),
    "`-n h00001`": time(one.seconds),
    "go-task's memory": mebibytes(Math.max(list.memory, all.memory, one.memory)),
  };
}

async function deploying(fleet: Fleet, count: number, atATime: number): Promise<Row> {
  const used = await simulate(fleet, count, atATime);
  const ideal = idealSeconds(count, atATime);
  return {
    hosts: `${count}`,
    "`-C`": `${atATime}`,
    time: time(used.seconds),
    ideal: time(ideal),
    "times as long": (used.seconds / ideal).toFixed(2),
    CPU: time(used.cpu),
    "CPU a host": time(used.cpu / count),
    "CPU of others": time(used.others),
    "go-task's memory": mebibytes(used.memory),
    "of its processes": mebibytes(used.theirs),
    processes: `${used.processes}`,
    "go-task's open files": `${used.files}`,
  };
}

/** Deploys all hosts of a fleet that is not real. Throws unless all of them were. */
export async function simulate(fleet: Fleet, count: number, atATime: number): Promise<Usage> {
  if (!existsSync(join(fleet.directory, "Taskfile.yml"))) await usage(generating(fleet));
  const log = join(fleet.directory, "log");
  const used = await usage({ ...runningTask(fleet, ["deploy-all", "-C", `${atATime}`]), output: log });
  const said = readFileSync(log, "utf8");
  const end = `${count} of ${count} hosts deployed, ${count} of them unchanged\n`;
  if (!said.includes(`\n${end}took `)) throw new Error(`not all hosts were deployed: ${said.slice(-400)}`);
  return used;
}

/** How long it would take if only the hosts took time. */
export function idealSeconds(count: number, atATime: number): number {
  const seconds = Array.from({ length: count }, (_, index) => secondsOf(index));
  return seconds.reduce((sum, value) => sum + value, 0) / atATime;
}

function generating({ directory, selectors }: Fleet): Command {
  const from = ["--from", "hosts.json", "--flake", join(directory, "flake")];
  return {
    argv: [process.execPath, cli, ...from, ...selectors],
    cwd: directory,
    output: join(directory, "Taskfile.yml"),
  };
}

const runningTask = ({ directory }: Fleet, args: readonly string[]): Command => ({
  argv: ["task", ...args],
  cwd: directory,
});

async function typicalUsage(command: Command, rounds: number): Promise<Pick<Usage, "seconds" | "memory">> {
  const all: Usage[] = [];
  for (let round = 0; round < rounds; round++) all.push(await usage(command));
  return { seconds: median(all.map(({ seconds }) => seconds)), memory: median(all.map(({ memory }) => memory)) };
}

const mebibytes = (value: number) => (value === 0 ? "not known" : `${value.toFixed(0)} MiB`);

/** Prints a table in Markdown, each row when it is known. */
async function table(rows: readonly (() => Promise<Row>)[]): Promise<void> {
  const print = (cells: readonly string[]) => console.log(`| ${cells.join(" | ")} |`);
  for (const [index, row] of rows.entries()) {
    const cells = await row();
    if (index === 0) for (const heading of [Object.keys(cells), Object.keys(cells).map(() => "---")]) print(heading);
    print(Object.values(cells));
  }
}
