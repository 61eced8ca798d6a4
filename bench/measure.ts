// How long a command takes and how much memory: pairs of runs one after the other, so that a busy machine slows both.
import { spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";

export type Command = { readonly argv: readonly [string, ...string[]]; readonly cwd: string; readonly output?: string };

/** Medians in seconds; `ratio` and `difference` are medians over the pairs, of `second` to `first`. */
export type Pair = {
  readonly first: number;
  readonly second: number;
  readonly ratio: number;
  readonly difference: number;
  /** The smallest difference: what else the machine does can only add to it. */
  readonly least: number;
};

/** Runs A B A B … after one run of each that doesn't count. */
export function measurePair(first: Command, second: Command, rounds: number): Pair {
  const times = Array.from({ length: rounds + 1 }, () => ({ a: seconds(first), b: seconds(second) })).slice(1);
  return {
    first: median(times.map(({ a }) => a)),
    second: median(times.map(({ b }) => b)),
    ratio: median(times.map(({ a, b }) => b / a)),
    difference: median(times.map(({ a, b }) => b - a)),
    least: Math.min(...times.map(({ a, b }) => b - a)),
  };
}

/** The median time of a command, after one run that doesn't count. */
export function measure(command: Command, rounds: number): number {
  return median(Array.from({ length: rounds + 1 }, () => seconds(command)).slice(1));
}

function seconds({ argv: [program, ...args], cwd, output }: Command): number {
  const target = openSync(output ?? "/dev/null", "w");
  const since = process.hrtime.bigint();
  const { status, error, stderr } = spawnSync(program, args, {
    cwd,
    stdio: ["ignore", target, "pipe"],
    maxBuffer: 1 << 28,
  });
  const took = Number(process.hrtime.bigint() - since) / 1e9;
  closeSync(target);
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${error?.message ?? stderr.toString().slice(-400)}`);
  return took;
}

/** The peak of a command's memory in MiB, as the kernel counts it; undefined where it doesn't tell (off Linux). */
export async function peakMemory({ argv: [program, ...args], cwd }: Command): Promise<number | undefined> {
  const child = spawn(program, args, { cwd, stdio: "ignore" });
  let peak = 0;
  const timer = setInterval(() => {
    peak = Math.max(peak, highWater(child.pid));
  }, 2);
  await new Promise((resolve, reject) => child.on("close", resolve).on("error", reject));
  clearInterval(timer);
  return peak === 0 ? undefined : peak / 1024;
}

function highWater(pid: number | undefined): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}
