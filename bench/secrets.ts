// deploy-secrets on real hosts, which test/testhosts boots: beside a bare tar over ssh, and upstream's shape of the step.
// What the secrets' own commands take is measured apart and not counted, since that is up to the user.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { type BenchHost, hostOfSecrets } from "./hosts.ts";
import { type Command, less, measureRounds, ratio } from "./measure.ts";
import { line } from "./print.ts";
import { addressOf, names, onHosts, quote, sideBySide, ssh, typical, write, writeTaskfile } from "./realhosts.ts";
import { upstreamShape } from "./upstream.ts";

/** `web1` to `web8` with 20 secrets each, and `many`, the first of them again, with 200. */
export type Fleet = {
  readonly sshConfig: string;
  readonly hosts: Readonly<Record<string, BenchHost>>;
  /** A directory for each host, of the files that its secrets' commands read. */
  readonly values: string;
  /** Where to run go-task: with the Taskfile of this program, and with upstream's. */
  readonly ours: string;
  readonly upstream: string;
};

export function benchSecrets(scratch: string): Promise<void> {
  return onHosts({
    title: "secrets to real hosts",
    measure: (sshConfig) => {
      const fleet = prepareFleet(scratch, sshConfig);
      besideTar("20 secrets to one host", fleet, ["web1"], 9);
      inOtherWays(fleet);
      besideTar("20 secrets to 8 hosts at once", fleet, names, 5);
      tenTimesAsMany(fleet);
      besideUpstream(fleet);
    },
  });
}

function besideTar(title: string, fleet: Fleet, chosen: readonly string[], rounds: number): void {
  const login = sideBySide(
    fleet.ours,
    chosen.map((name) => there(fleet, name, "true")),
  );
  const measured = { login, tar: tar(fleet, chosen), commands: commandsOf(fleet, chosen), ours: deploy(fleet, chosen) };
  const times = measureRounds(measured, rounds);
  for (const name of chosen) checkArrived(fleet, name);
  const own = less(times.ours, times.commands);
  const most = ratio(own, times.tar);
  const text = `${without(own, times.commands)}, tar over ssh ${typical(times.tar)}: ${most.toFixed(2)} times as long`;
  line(title, `${text}; login alone ${typical(times.login)}`, "at most 1.3 times", most <= 1.3);
}

function inOtherWays(fleet: Fleet): void {
  const { before: _, ...again } = deploy(fleet, ["web1"]);
  const times = measureRounds(
    { commands: commandsOf(fleet, ["web1"]), ours: deploy(fleet, ["web1"]), again, task: task(fleet, fleet.ours) },
    5,
  );
  line("the same, nothing changed", without(less(times.again, times.commands), times.commands));
  line("the same, changed, by go-task", without(less(times.task, times.commands), times.commands));
}

function tenTimesAsMany(fleet: Fleet): void {
  const few = { commands: commandsOf(fleet, ["web1"]), ours: deploy(fleet, ["web1"]) };
  const many = { manyCommands: commandsOf(fleet, ["many"]), many: deploy(fleet, ["many"]) };
  const times = measureRounds({ ...few, ...many }, 5);
  checkArrived(fleet, "many");
  const [of20, of200] = [less(times.ours, times.commands), less(times.many, times.manyCommands)];
  const most = ratio(of200, of20);
  const text = `${without(of200, times.manyCommands)}, 20 of them ${typical(of20)}: ${most.toFixed(2)} times as long`;
  line("200 secrets to one host", text, "at most 2 times", most <= 2);
}

function besideUpstream(fleet: Fleet): void {
  const { ours, upstream } = measureRounds({ ours: task(fleet, fleet.ours), upstream: task(fleet, fleet.upstream) }, 3);
  checkArrived(fleet, "web1");
  const least = ratio(upstream, ours);
  const text = `${typical(ours)}, upstream's shape ${typical(upstream)}: ${least.toFixed(1)} times faster`;
  line("20 secrets by go-task", text, "at least 25 times faster", least >= 25);
}

const without = (own: readonly number[], commands: readonly number[]) =>
  `${typical(own)} without the commands' ${typical(commands)}`;

/** Writes both Taskfiles, and the files that the secrets' commands read. */
export function prepareFleet(scratch: string, sshConfig: string): Fleet {
  const [values, ours, upstream] = [join(scratch, "values"), join(scratch, "ours"), join(scratch, "upstream")];
  const host = (name: string, address: string, count: number) => {
    return [name, hostOfSecrets(address, ["-F", sshConfig], join(values, name), count)] as const;
  };
  const hosts = Object.fromEntries([
    ...names.map((name) => host(name, addressOf(name), 20)),
    host("many", "pop1", 200),
  ]);
  for (const [path, text] of Object.entries(upstreamShape(hosts, "."))) write(join(upstream, path), text);
  writeTaskfile(ours, hosts);
  const fleet = { sshConfig, hosts, values, ours, upstream };
  renew(fleet, Object.keys(hosts));
  return fleet;
}

let version = 0;

/** New values: without them nothing would be written. */
function renew(fleet: Fleet, chosen: readonly string[]): void {
  version++;
  for (const name of chosen)
    for (const file of secretsOf(fleet, name))
      write(join(fleet.values, name, file.name), `${file.name}, version ${version}\n`);
}

const secretsOf = ({ hosts }: Fleet, name: string) => Object.values(hosts[name]?.secrets.files ?? {});

/** The step as go-task calls it. */
export function deploy(fleet: Fleet, chosen: readonly string[]): Command {
  const text = readFileSync(join(fleet.ours, "Taskfile.yml"), "utf8");
  const { tasks, env } = parse(text, { maxAliasCount: -1 }); // all tasks share their settings
  const [first, ...calls] = chosen.map((name) => tasks[`${name}:deploy-secrets`]);
  const filledIn = Object.entries<string>({ ...env, ...first.env }).map(([name, text]) => {
    return [
      name,
      text.replace(/\{\{\.(\w+)[^}]*\}\}/g, (_, variable) => (variable === "TASK" ? "deploy-secrets" : "")),
    ];
  });
  const command = sideBySide(
    fleet.ours,
    [first, ...calls].map(({ cmd }) => `exec ${cmd}`),
  );
  return { ...command, env: Object.fromEntries(filledIn), before: () => renew(fleet, chosen) };
}

function task(fleet: Fleet, cwd: string): Command {
  return { argv: ["task", "web1:deploy-secrets"], cwd, before: () => renew(fleet, ["web1"]) };
}

/** The least that there is to do: one stream of the same files. */
function tar(fleet: Fleet, chosen: readonly string[]): Command {
  const directory = "/var/src/lollypops-bench";
  for (const name of chosen) execFileSync("sh", ["-c", there(fleet, name, `mkdir -p ${directory}`)]);
  const streams = chosen.map((name) => {
    return `tar -C ${quote(join(fleet.values, name))} -cf - . | ${there(fleet, name, `tar -C ${directory} -xf -`)}`;
  });
  return { ...sideBySide(fleet.ours, streams), before: () => renew(fleet, chosen) };
}

function commandsOf(fleet: Fleet, chosen: readonly string[]): Command {
  const each = (name: string) => secretsOf(fleet, name).map(({ cmd }) => `sh -c ${quote(cmd)} >/dev/null`);
  return sideBySide(
    fleet.ours,
    chosen.map((name) => each(name).join("\n")),
  );
}

function there({ sshConfig, hosts }: Fleet, name: string, command: string): string {
  return ssh(["-F", sshConfig], hosts[name]?.deployment.ssh.host ?? "", command);
}

/** A step that does nothing would be the fastest. */
function checkArrived(fleet: Fleet, name: string): void {
  const files = secretsOf(fleet, name);
  const here = files.map((file) => readFileSync(join(fleet.values, name, file.name), "utf8")).join("");
  const show = there(fleet, name, `cat ${files.map(({ path }) => path).join(" ")}`);
  if (execFileSync("sh", ["-c", show], { encoding: "utf8" }) !== here) throw new Error(`${name} has other secrets`);
}
