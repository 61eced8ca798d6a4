// npm run bench: how long it takes to generate a Taskfile, go-task to load it and to run a fleet, secrets to reach real hosts,
// and whole deployments of these, beside upstream's shape of the same hosts. `npm run bench -- secrets` runs that part alone,
// `npm run bench -- scale` the tables of docs/scale.md, which take some minutes and are no part of the others. It prints and
// never fails because of a figure: that is for a reader to judge, on a quiet machine.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { benchDeploy } from "./deploy.ts";
import { benchFleet } from "./fleet.ts";
import { benchHosts } from "./hosts.ts";
import { type Command, measure, measurePair, type Pair, peakMemory } from "./measure.ts";
import { line, time } from "./print.ts";
import { benchScale } from "./scale.ts";
import { benchSecrets } from "./secrets.ts";
import { upstreamShape } from "./upstream.ts";

const rounds = 5;
const cli = resolve("dist/cli.js");
const scratch = mkdtempSync(join(tmpdir(), "lollypops-bench-"));

const parts: Readonly<Record<string, () => void | Promise<void>>> = {
  taskfile: async () => {
    compareGenerating(1000);
    await compareLoading(1000);
    for (const count of [100, 5000]) scale(count);
  },
  fleet: () => benchFleet(join(scratch, "fleet")),
  secrets: () => benchSecrets(scratch),
  deploy: () => benchDeploy(scratch),
  scale: () => benchScale(join(scratch, "scale")),
};
const whenAsked = ["scale"];

async function main(chosen: readonly string[]): Promise<void> {
  const unknown = chosen.find((name) => !(name in parts));
  if (unknown !== undefined) throw new Error(`there is no part ${unknown}, only ${Object.keys(parts).join(" and ")}`);
  const load = loadavg().map((value) => value.toFixed(2));
  const version = execFileSync("task", ["--version"], { encoding: "utf8" }).trim();
  console.log(`${cpus().length} cores, load ${load.join(" ")}, node ${process.version}, go-task ${version}`);
  console.log("medians of runs one after the other in turn; targets are those of a quiet machine\n");
  const wanted = chosen.length > 0 ? chosen : Object.keys(parts).filter((name) => !whenAsked.includes(name));
  for (const [name, part] of Object.entries(parts)) if (wanted.includes(name)) await part();
}

function compareGenerating(count: number): void {
  const idle: Command = { argv: [process.execPath, "-e", "0"], cwd: scratch };
  const times = measurePair(idle, generating(count), rounds);
  const text = `${time(times.second)}, \`node -e 0\` ${time(times.first)}: ${time(times.difference)} more (${time(times.least)} at best)`;
  line(`generate ${count} hosts`, text, "less than 1 s more", times.difference < 1);
}

async function compareLoading(count: number): Promise<void> {
  const [ours, theirs] = [oursOf(count), upstreamOf(count)];
  const list = ["task", "--list-all", "--json", "--no-status"] as const;
  const lists = measurePair({ argv: list, cwd: ours }, { argv: list, cwd: theirs }, rounds);
  compared(`task --list-all, ${count} hosts`, lists, "at least 2 times faster", lists.ratio >= 2);
  const dry = ["task", "--dry", "web7:rebuild"] as const;
  const runs = measurePair({ argv: dry, cwd: ours }, { argv: dry, cwd: theirs }, rounds);
  compared(`task --dry web7:rebuild, ${count} hosts`, runs, "no slower", runs.ratio >= 1);
  for (const argv of [list, dry]) {
    const [own, other] = [await peakMemory({ argv, cwd: ours }), await peakMemory({ argv, cwd: theirs })];
    if (own === undefined || other === undefined) continue;
    line(`memory of ${argv.slice(0, 2).join(" ")}`, `${own.toFixed(0)} MiB, upstream's shape ${other.toFixed(0)} MiB`);
  }
}

function scale(count: number): void {
  const cwd = oursOf(count);
  const generated = measure(generating(count), 3);
  const listed = measure({ argv: ["task", "--list-all", "--json", "--no-status"], cwd }, 3);
  const dry = measure({ argv: ["task", "--dry", "web7:rebuild"], cwd }, 3);
  line(`${count} hosts, ours`, `generate ${time(generated)}, --list-all ${time(listed)}, --dry ${time(dry)}`);
}

function generating(count: number): Command {
  const cwd = join(scratch, `ours-${count}`);
  const input = join(cwd, "hosts.json");
  mkdirSync(cwd, { recursive: true });
  writeFileSync(input, JSON.stringify(benchHosts(count)));
  return { argv: [process.execPath, cli, "--from", input], cwd, output: join(cwd, "Taskfile.yml") };
}

function oursOf(count: number): string {
  const command = generating(count);
  measure(command, 1);
  return command.cwd;
}

function upstreamOf(count: number): string {
  const cwd = join(scratch, `upstream-${count}`);
  for (const [path, text] of Object.entries(upstreamShape(benchHosts(count), "."))) {
    mkdirSync(dirname(join(cwd, path)), { recursive: true });
    writeFileSync(join(cwd, path), text);
  }
  return cwd;
}

function compared(title: string, { first, second, ratio }: Pair, target: string, holds: boolean): void {
  line(title, `${time(first)}, upstream's shape ${time(second)}: ${ratio.toFixed(2)} times faster`, target, holds);
}

try {
  await main(process.argv.slice(2));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
