// What a command takes of the machine, itself and with all that it starts, as Linux tells in /proc.
import { spawn } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import type { Command } from "./measure.ts";

/** Seconds and MiB. All but `seconds` is 0 where there is no /proc. */
export type Usage = {
  readonly seconds: number;
  /** User and system time, with that of all processes that it started and waited for. */
  readonly cpu: number;
  /** The time of all else on the machine meanwhile: on a quiet one, little. */
  readonly others: number;
  /** The peak of its own memory. */
  readonly memory: number;
  /** At the peak: the processes that it started, what memory is theirs (pages that several share are told once), and its open files. */
  readonly processes: number;
  readonly theirs: number;
  readonly files: number;
};

/** One line of /proc/PID/stat, times in seconds. */
export type Stat = { readonly name: string; readonly parent: number; readonly cpu: number };

/** Runs a command to its end, its output in `output`. Throws with its last words if it fails. */
export async function usage({ argv: [program, ...args], cwd, output, env }: Command): Promise<Usage> {
  const target = openSync(output ?? "/dev/null", "w");
  const [since, busy] = [process.hrtime.bigint(), machineCpu()];
  const child = spawn(program, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", target, "pipe"] });
  const words: Buffer[] = [];
  child.stderr?.on("data", (piece: Buffer) => words.push(piece));
  const peak = { cpu: 0, memory: 0, processes: 0, theirs: 0, files: 0 };
  const raise = (seen: Partial<typeof peak>) => {
    for (const [name, value] of Object.entries(seen))
      peak[name as keyof typeof peak] = Math.max(peak[name as keyof typeof peak], value);
  };
  const timers = [
    setInterval(() => raise(ownUsage(child.pid)), 20),
    setInterval(() => raise(startedUsage(child.pid)), 1000),
  ];
  const status = await new Promise((resolve, reject) => child.on("close", resolve).on("error", reject));
  const seconds = Number(process.hrtime.bigint() - since) / 1e9;
  const all = machineCpu() - busy;
  for (const timer of timers) clearInterval(timer);
  closeSync(target);
  if (status !== 0)
    throw new Error(`${program} ${args.join(" ").slice(0, 200)}: ${Buffer.concat(words).toString().slice(-400)}`);
  return { seconds, others: Math.max(0, all - peak.cpu), ...peak };
}

/** All that its cores have done so far, idle time left out. */
function machineCpu(): number {
  const [user = 0, nice = 0, system = 0, , , ...interrupts] =
    read("stat").split("\n", 1)[0]?.split(/ +/).slice(1, 8).map(Number) ?? [];
  return [user, nice, system, ...interrupts].reduce((sum, value) => sum + value, 0) / 100;
}

function ownUsage(pid: number | undefined) {
  const memory = Number(/^VmHWM:\s+(\d+) kB$/m.exec(read(`${pid}/status`))?.[1] ?? 0) / 1024;
  return { memory, cpu: parseStat(read(`${pid}/stat`))?.cpu ?? 0 };
}

function startedUsage(pid: number | undefined) {
  const all = processes();
  const parents = new Map([...all].map(([one, { parent }]) => [one, parent]));
  // One that still bears its name was just forked, and the memory that it is told is the parent's.
  const started = descendants(pid ?? 0, parents).filter((one) => all.get(one)?.name !== all.get(pid ?? 0)?.name);
  const shares = started.map((one) => Number(/^Pss:\s+(\d+) kB$/m.exec(read(`${one}/smaps_rollup`))?.[1] ?? 0));
  const theirs = shares.reduce((sum, share) => sum + share, 0) / 1024;
  return { processes: started.length, theirs, files: list(`/proc/${pid}/fd`).length };
}

function processes(): Map<number, Stat> {
  const pids = list("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  return new Map(
    pids.flatMap((pid) => {
      const stat = parseStat(read(`${pid}/stat`));
      return stat === undefined ? [] : [[pid, stat] as const];
    }),
  );
}

/** All that `root` started, and what these have started; `parents` tells the parent of each process. */
export function descendants(root: number, parents: ReadonlyMap<number, number>): number[] {
  const children = new Map<number, number[]>();
  for (const [pid, parent] of parents) {
    const siblings = children.get(parent);
    if (siblings) siblings.push(pid);
    else children.set(parent, [pid]);
  }
  const below = (pid: number): number[] => (children.get(pid) ?? []).flatMap((child) => [child, ...below(child)]);
  return below(root);
}

/** Undefined for what is no such line. The program's name stands in it in parentheses and may hold any character. */
export function parseStat(line: string): Stat | undefined {
  const fields = line
    .slice(line.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const [parent, ticks] = [fields[1], fields.slice(11, 15)];
  if (parent === undefined || ticks.length < 4) return undefined;
  const name = line.slice(line.indexOf("(") + 1, line.lastIndexOf(")"));
  return { name, parent, cpu: ticks.reduce((sum, value) => sum + value, 0) / 100 };
}

function read(file: string): string {
  try {
    return readFileSync(`/proc/${file}`, "utf8");
  } catch {
    return "";
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
