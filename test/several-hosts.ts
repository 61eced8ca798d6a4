/** Helpers of the tests of deployments of several hosts: a fleet of three or more, its Taskfile, and what a run of it told. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { expectNothingLeft, type Running, start, until } from "./faults.ts";
import { cli, fleet, fleetHosts, markNixos, type Settings, ssh, sshConfig, temporaryDirectory } from "./hosts.ts";

/** Laid over what `eval` told of the fleet: for all hosts, and for each. */
export type Changes = { all?: object } & { [name: string]: object };

/** A line of LOLLYPOPS_RESULTS. */
type Line = { host: string; step: string; outcome: string; message: string; seconds: number };

/** What a run told people (its report, line by line) and machines. */
export type Told = { output: string; report: string[]; results: Line[]; exitCode: number | undefined };

/** What is to become of a host: `done` is deployed or unchanged, and what is neither is told with its step and words. */
export type Expected = "deployed" | "unchanged" | "done" | { outcome: string; step: string; words: RegExp | string };

export type SeveralHosts = Awaited<ReturnType<typeof severalHosts>>;

/** ssh's options of a host that a test cuts off: its silence is noticed at once. */
export const hasty = {
  opts: [
    "-F",
    sshConfig,
    ...["ServerAliveInterval=1", "ServerAliveCountMax=1", "ConnectTimeout=2"].flatMap((o) => ["-o", o]),
  ],
};

/** Hosts right after their installation, and their flake: the three of `fixtures/fleet`, and what more there are. */
export async function severalHosts(more: Record<string, string> = {}) {
  const others = Object.entries(more).map(([host, name]) => [name, { lollypops: { deployment: { ssh: { host } } } }]);
  const made = await fleet({ all: everywhere, hosts: Object.fromEntries(others) });
  await Promise.all(Object.entries({ ...fleetHosts, ...more }).map(([host, name]) => markNixos(host, made.dir, name)));
  let place = state();
  let evaluated: string | undefined;

  /** No earlier run is known any more. */
  const forget = () => {
    place = state();
  };
  /** The flake with these settings of its hosts, and a Taskfile of what evaluates. */
  async function change(hosts: Settings["hosts"] = {}): Promise<void> {
    await made.change({ all: everywhere, hosts: { ...Object.fromEntries(others), ...hosts } });
    await generate(["-k", "-o", "Taskfile.yml"]);
    evaluated = undefined;
  }
  /** A Taskfile of the same flake, with changes. */
  async function configure(changes: Changes = {}): Promise<void> {
    evaluated ??= await generate(["eval"]);
    const told = JSON.parse(evaluated);
    const hosts = Object.entries(told.hosts).map(([name, host]) => {
      return [name, merge(merge(host, changes.all ?? {}), changes[name] ?? {})];
    });
    const input = JSON.stringify({ ...told, hosts: Object.fromEntries(hosts) });
    await generate(["--from", "-", "-o", "Taskfile.yml"], input);
  }
  async function generate(args: string[], input = ""): Promise<string> {
    const { stdout, stderr, exitCode } = await cli(args, { cwd: made.dir, input });
    expect([exitCode, exitCode === 0 ? "" : stderr]).toEqual([0, ""]);
    return stdout;
  }
  /** Starts go-task, and goes on. */
  function begin(args: string[], env: Record<string, string> = {}): Running {
    const own = { XDG_RUNTIME_DIR: place.dir, TMPDIR: place.tmp, LOLLYPOPS_RESULTS: place.results };
    writeFileSync(place.results, "");
    return start(made.dir, args, { LP_REMOTE_SSH_OPTS: "", ...own, ...env });
  }
  /** What came of it. */
  async function ended(running: Running): Promise<Told> {
    const { exitCode } = await running.child;
    const output = running.said();
    const lines = readFileSync(place.results, "utf8").split("\n").slice(0, -1);
    return { output, report: reportOf(output), results: lines.map((line) => JSON.parse(line)), exitCode };
  }
  const deploy = async (args: string[], env: Record<string, string> = {}) => ended(begin(args, env));

  /** Neither side, of this host and here, has a process, a socket or a file of a run that is over, but notes and the memory for `retry`. */
  async function expectTidy(running: Running, host = "pop1"): Promise<void> {
    await until("nothing of it runs here", () => running.processes().length === 0);
    expect(readdirSync(place.tmp)).toEqual([]);
    expect(notes(join(place.dir, "lollypops")).filter((file) => !isNote.test(file))).toEqual([]);
    await expectNothingLeft(host);
  }
  return { dir: made.dir, change, configure, forget, begin, ended, deploy, expectTidy, state: () => place };
}

const everywhere = {
  units: { "hello.service": null },
  lollypops: { deployment: { ssh: { opts: ["-F", sshConfig] } } },
};

function state() {
  const dir = temporaryDirectory();
  const tmp = join(dir, "tmp");
  mkdirSync(tmp);
  return { dir, tmp, results: join(mkdtempSync(join(dir, "told-")), "results") };
}

const notes = (dir: string) => readdirSync(dir, { recursive: true, encoding: "utf8" });
const [run, notesOf] = ["\\d+-\\w+", "\\d+-\\w+/[0-9a-f]{8}"];
const isNote = new RegExp(
  `^(last\\.\\d+|${run}|${notesOf}|${notesOf}/((host|changed|after|instead|source|whole|address\\.of)\\.[\\w-]+|source|progress|batch|nothing|remembered)|${run}/(s\\.\\d+\\.\\w+\\.log|stop|terminal|unlocked|turn))$`,
);

/** From the counts to the times. */
function reportOf(output: string): string[] {
  const lines = output.split("\n");
  const first = lines.findIndex((line) => /^\d+ of \d+ hosts /.test(line));
  const last = lines.findIndex((line) => line.startsWith("took "));
  return first === -1 ? [] : lines.slice(first, last + 1);
}

function merge(old: unknown, changes: unknown): unknown {
  const both = [old, changes].every((one) => typeof one === "object" && one !== null && !Array.isArray(one));
  if (!both) return changes;
  const result = { ...(old as Record<string, unknown>) };
  for (const [key, value] of Object.entries(changes as object))
    result[key] = key in result ? merge(result[key], value) : value;
  return result;
}

const good = ["deployed", "unchanged", "done"];

/** People and machines were told just this, and the exit code says it, too: `code` where a host is not as asked. */
export function expectTold(told: Told, expected: Record<string, Expected>, code = 201): void {
  const hosts = told.results.map(({ host }) => host); // in the order of the deployment
  expect([...hosts].sort(), told.output).toEqual(Object.keys(expected).sort());
  const lines = told.results.flatMap((line) => expectLine(line, expected[line.host] as Expected, told.output));
  const kinds = [...new Set(lines.map(({ outcome }) => outcome))];
  const counts = kinds.map((kind) => `${lines.filter(({ outcome }) => outcome === kind).length} ${kind}`);
  expect(told.report[0]?.replace(/, \d of them unchanged/, ""), told.output).toBe(
    `${hosts.length - lines.length} of ${hosts.length} hosts deployed${counts.length > 0 ? `; NOT done: ${counts.join(", ")}` : ""}`,
  );
  expect(told.report.slice(1, -1)).toEqual(
    lines.map(({ host, outcome, step, message }) =>
      expect.stringContaining(`  ${host}: ${outcome} at ${step}: ${message}`),
    ),
  );
  expect(told.report.at(-1)).toMatch(
    lines.length > 0 ? /^took .*; again: task retry$/ : /^took [^;]*(; slowest: [^;]*)?$/,
  );
  expect(told.exitCode).toBe(lines.some(({ outcome }) => outcome !== "skipped") ? code : 0);
}

/** This host's line of the results; nothing for one that is as asked. */
function expectLine(line: Line, expected: Expected, output: string): Line[] {
  expect(line).toEqual({
    host: expect.any(String),
    step: expect.any(String),
    outcome: expect.any(String),
    message: expect.any(String),
    seconds: expect.any(Number),
  });
  if (typeof expected === "object") {
    expect(line, output).toMatchObject({ outcome: expected.outcome, step: expected.step });
    expect(line.message, output).toMatch(expected.words);
    return [line];
  }
  expect(expected === "done" ? good : [expected], output).toContain(line.outcome);
  expect(line.message).toBe("");
  return [];
}

/** Takes from a host what a deployment brings, so that the next one has something to do. */
export const spoil = (host: string) => ssh(host, "rm -rf /var/src/lollypops/flake /var/src/lollypops-secrets/greeting");

/** Makes the seconds of LOLLYPOPS_TIMEOUT pass for the step that this host is at: what counts them beside it sleeps between, and ignores all other signals. */
export async function hasten(running: Running, name: string, seconds: number): Promise<void> {
  const watches = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`\0--host\0${name}\0`);
  const over = new Set<number>();
  while (over.size < seconds - 1) {
    for (const { pid, name: program, parent } of running.processes()) {
      try {
        if (program !== "sleep" || over.has(pid) || !watches(parent)) continue;
        process.kill(pid, "SIGKILL");
        over.add(pid);
      } catch {
        // it ended meanwhile
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
