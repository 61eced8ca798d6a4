// Which processes there are, and whom a signal still has to reach.
import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { execa } from "execa";

export type Process = { readonly pid: number; readonly parent: number; readonly program: string };

/** All processes of this machine; none if neither /proc nor ps tells. */
export async function processes(): Promise<Process[]> {
  return fromProc() ?? (await fromPs());
}

/** As Linux tells it: small images have no ps. Elsewhere undefined. */
export function fromProc(): Process[] | undefined {
  try {
    const all = readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) ? oneOf(Number(name)) : []));
    return all.some(({ pid }) => pid === process.pid) ? all : undefined;
  } catch {
    return undefined;
  }
}

function oneOf(pid: number): Process[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // the name is in parentheses, and may hold some itself
    const [from, to] = [stat.indexOf("("), stat.lastIndexOf(")")];
    return [{ pid, parent: Number(stat.slice(to + 2).split(" ")[1]), program: stat.slice(from + 1, to) }];
  } catch {
    return []; // it has ended
  }
}

/** As ps tells it, with what macOS's and busybox's understand. */
export async function fromPs(): Promise<Process[]> {
  const args = ["-A", "-o", "pid=", "-o", "ppid=", "-o", "comm="];
  const { stdout = "" } = await execa("ps", args, { reject: false, stdin: "ignore", stderr: "ignore" });
  return [...stdout.matchAll(/^ *(\d+) +(\d+) +(.*?) *$/gm)].map(([, pid, parent, program = ""]) => ({
    pid: Number(pid),
    parent: Number(parent),
    program: basename(program),
  }));
}

/**
 * Whom a signal for `root` still has to reach, parents first: at first `root` and all below it. Later only what a go-task has
 * started since, with what is below that; what else has heard decides itself what it still starts, such as the commands of
 * its trap. What a go-task has only now started (is not in `known`) is left to itself for a moment: a report, or a step
 * that sees by itself that it is to stop, is over then; others have set their traps.
 */
export function unheard(
  all: readonly Process[],
  root: number,
  heard: ReadonlySet<number>,
  known: ReadonlySet<number>,
): number[] {
  const below = childrenOf(all);
  const found: number[] = [];
  const visit = ({ pid, program }: Process, startedBy: "told" | "go-task" | "other") => {
    const tell = !heard.has(pid) && (startedBy === "told" || (startedBy === "go-task" && known.has(pid)));
    if (tell) found.push(pid);
    const next = tell ? "told" : heard.has(pid) && (pid === root || isTask(program)) ? "go-task" : "other";
    for (const child of below.get(pid) ?? []) visit(child, next);
  };
  for (const one of all) if (one.pid === root) visit(one, "told");
  return found;
}

/** An extra task may call go-task again, which starts what it has queued just as ours does. */
const isTask = (program: string) => program === "task" || program === "go-task";

function childrenOf(all: readonly Process[]): Map<number, Process[]> {
  const children = new Map<number, Process[]>();
  for (const one of all) {
    // the kernel is its own parent
    if (one.pid === one.parent) continue;
    const siblings = children.get(one.parent);
    if (siblings === undefined) children.set(one.parent, [one]);
    else siblings.push(one);
  }
  return children;
}
