// How long a command takes and how much memory: pairs of runs one after the other, so that a busy machine slows both.
import { spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";

export type Command = {
  readonly argv: readonly [string, ...string[]];
  readonly cwd: string;
  readonly output?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** What has to be done each time, and isn't measured. */
  readonly before?: () => void;
};

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
  const { a, b } = measureRounds({ a: first, b: second }, rounds);
  const difference = less(b, a);
  return {
    first: median(a),
    second: median(b),
    ratio: ratio(b, a),
    difference: median(difference),
    least: Math.min(...difference),
  };
}

/** The seconds of each command, round by round; a first round doesn't count. */
export function measureRounds<Name extends string>(
  commands: Readonly<Record<Name, Command>>,
  rounds: number,
): Readonly<Record<Name, readonly number[]>> {
  const entries = Object.entries<Command>(commands);
  const times = Array.from({ length: rounds + 1 }, () => entries.map(([, command]) => seconds(command))).slice(1);
  const columns = entries.map(([name], column) => [name, times.map((round) => round[column] ?? 0)]);
  return Object.fromEntries(columns);
}

/** What two commands of the same rounds differ by, round by round. */
export const less = (times: readonly number[], others: readonly number[]) =>
  times.map((value, round) => value - (others[round] ?? 0));

/** How many times as long as the others, each beside the one of the same round. */
export const ratio = (times: readonly number[], others: readonly number[]) =>
  median(times.map((value, round) => value / (others[round] ?? 0)));

/** The median time of a command, after one run that doesn't count. */
export function measure(command: Command, rounds: number): number {
  return median(Array.from({ length: rounds + 1 }, () => seconds(command)).slice(1));
}

function seconds({ argv: [program, ...args], cwd, output, env, before }: Command): number {
  before?.();
  const target = openSync(output ?? "/dev/null", "w");
  const since = process.hrtime.bigint();
  const { status, error, stderr } = spawnSync(program, args, {
    cwd,
    ...(env === undefined ? {} : { env: { ...process.env, ...env } }),
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

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}
