// What go-task costs when it runs a fleet: deploy-all of steps that connect to nothing, beside the very same calls started by
// xargs, as many at a time. For each command go-task copies all variables once for each of them, so both get a login's few;
// what many cost is told as well.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { plainHosts } from "./hosts.ts";
import { type Command, measureRounds, ratio } from "./measure.ts";
import { line } from "./print.ts";
import { run, typical, write, writeTaskfile } from "./realhosts.ts";

const atATime = "50";
const login = ["PATH", "HOME", "USER", "LANG", "TERM"].map((name) => `${name}=${process.env[name] ?? ""}`);
const crowd = Array.from({ length: 60 }, (_, index) => `VARIABLE_${index}=of a shell that has many`);

export function benchFleet(scratch: string): void {
  const [one, three] = [
    prepareFleet(join(scratch, "one"), 1000, ["check-vars"]),
    prepareFleet(join(scratch, "three"), 1000),
  ];
  besideXargs("1000 hosts, check-vars alone", one);
  // A step can stand once in a host's tasks: so it is the usual three, in a dry run.
  besideXargs("1000 hosts, their 3 steps, dry run", three, { LOLLYPOPS_DRY_RUN: "1" });
}

function besideXargs(title: string, directory: string, settings: Settings = {}): void {
  const taskfile = readTaskfile(directory);
  const calls = deploymentCalls(taskfile);
  const [ours, others] = [deployAll(directory, settings), xargs(directory, taskfile, calls, settings)];
  checkDone(run(ours.argv, directory, ours.env), calls.length);
  const idle: Command = { ...ours, argv: ["task", "-n", "deploy-all", "-C", atATime] };
  const commands = { ours: withOnly(login, ours), others: withOnly(login, others), idle: withOnly(login, idle) };
  const times = measureRounds({ ...commands, crowded: withOnly([...login, ...crowd], ours) }, 3);
  const most = ratio(times.ours, times.others);
  const text = `${typical(times.ours)}, ${calls.length} calls by xargs ${typical(times.others)}: ${most.toFixed(2)} times as long`;
  const besides = `task -n ${typical(times.idle)}; with ${crowd.length} variables more ${typical(times.crowded)}`;
  line(title, `${text}; ${besides}`, "at most 1.5 times", most <= 1.5);
}

/** The same command, with none of the variables that this process has. */
const withOnly = (variables: readonly string[], { env = {}, ...command }: Command): Command => ({
  ...command,
  argv: ["env", "-i", ...variables, ...Object.entries(env).map(([name, value]) => `${name}=${value}`), ...command.argv],
});

type Settings = Readonly<Record<string, string>>;
/** What is used here of a Taskfile. */
export type Taskfile = {
  readonly env: Readonly<Record<string, string>>;
  readonly tasks: Readonly<Record<string, { env?: Record<string, string>; cmd?: string; cmds?: string[] }>>;
};

/** A directory with the Taskfile of so many hosts, and a flake. */
export function prepareFleet(directory: string, count: number, tasks?: readonly string[]): string {
  write(join(directory, "flake", "flake.nix"), "{ outputs = _: { }; }\n");
  writeTaskfile(directory, plainHosts(count, tasks), join(directory, "flake"));
  return directory;
}

export const readTaskfile = (directory: string): Taskfile =>
  parse(readFileSync(join(directory, "Taskfile.yml"), "utf8"), { maxAliasCount: -1 }); // all tasks share their settings

/** The calls of the hosts' deployments, each as the words for the runtime. */
export const deploymentCalls = ({ tasks }: Taskfile): string[] =>
  Object.entries(tasks)
    .filter(([name]) => /^h\d+:steps$/.test(name))
    .flatMap(([, { cmd, cmds = [cmd ?? ""] }]) => cmds)
    .map((call) => call.replace(/^\$LOLLYPOPS_\w+ /, "").replaceAll("\\\n", " "));

const deployAll = (cwd: string, env: Settings): Command => ({ argv: ["task", "deploy-all", "-C", atATime], cwd, env });

/** One process a call, with the variables that go-task would set; it begins as such a call does, and has no other parent than xargs. */
export function xargs(cwd: string, { env, tasks }: Taskfile, calls: readonly string[], settings: Settings): Command {
  const shared = Object.values(tasks).find((task) => task.env !== undefined)?.env ?? {};
  const given: Settings = { TASK: "check-vars", ...settings };
  const filledIn = Object.entries({ ...env, ...shared }).map(([name, text]) => {
    return [name, text.replace(/\{\{\.(\w+)[^}]*\}\}/g, (_, variable: string) => given[variable] ?? "")];
  });
  const runtime = Object.keys(env).find((name) => name.startsWith("LOLLYPOPS_SH_")) ?? "";
  write(join(cwd, "calls"), `${calls.join("\n")}\n`);
  const each = ["sh", "-c", `eval "\${${runtime}}"`, "lollypops"];
  const argv = ["sh", "-c", 'exec xargs "$@" <calls', "xargs", "-L", "1", "-P", atATime, ...each] as const;
  return { argv, cwd, env: Object.fromEntries(filledIn) };
}

function checkDone(said: string, calls: number): void {
  const [, done, all] = /^(\d+) of (\d+) hosts /m.exec(said) ?? [];
  if (done === undefined || done !== all || calls % Number(all) !== 0)
    throw new Error(`not all hosts were done: ${said.slice(-400)}`);
}
