// Hosts in parallel, in waves, with a beginning and an end: the fleet, a group, a host, one step of them, or those chosen at run time.
import { type HostTasks, planned, type Task } from "./host-tasks.ts";
import { word } from "./quote.ts";
import { attribute, type Context, computed, flake, row, type Shared } from "./steps.ts";
import { table } from "./table.ts";

/**
 * The tasks of a fan-out. Our steps never fail where this runs: go-task would tell the first error alone, and end the others
 * if the user has set failfast; so `end` tells all, and fails. As a `defer` it is there for what stops go-task before.
 */
export function fanOut(
  name: string,
  members: readonly HostTasks[],
  context: Context,
  more: Task,
  step = "",
): Record<string, Task> {
  const flags = isStep(step) ? [`--step ${step}`] : [];
  const waves = looksOnly.includes(step) ? [members] : inWaves(members);
  const begin = { cmd: beginCall(name, waves.flat(), context, step), silent: true };
  const before = [begin, awake(context), ...prebuild(flags, builtHere(members, step), context)];
  if (isAlone(name, members)) {
    return table([
      [name, { ...more, ...framed(context, flags, [...before, { task: `${name}:steps`, silent: true }]) }],
    ]);
  }
  const parts = waves.map((wave) => ({
    hosts: plans(wave, step).join(" "),
    task: { internal: true, deps: calls(wave, step) },
  }));
  const called = parts.map(({ hosts }, index) => ({ hosts, call: { task: part(name, index), silent: true } }));
  return {
    [name]: { ...more, ...framed(context, flags, [...before, ...gated(called, flags, context)]) },
    ...Object.fromEntries(parts.map(({ task }, index) => [part(name, index), task])),
  };
}

/** `task deploy -- SELECTOR…` and `retry`: the same with hosts that are chosen when it runs. */
export function chosen(
  all: readonly HostTasks[],
  groups: readonly (readonly [string, readonly HostTasks[]])[],
  context: Context,
): Record<string, Task> {
  const { launcher } = context;
  const waves = inWaves(all);
  const sets = groups.map(([name, members]) => `@${name}=${members.map(({ host }) => host.name).join(",")}`);
  const hostNames = waves.map((wave) => plans(wave, "").join(" ")).join(" / ");
  // On standard input, since a word of the command line may not be as long as a large group is.
  const call = [`${launcher} selected`, ...place(context), "-- {{.CLI_ARGS}} <<'EOF'"].join(" ");
  const selected = [call, hostNames, ...sets, "EOF\n"].join("\n");
  const hosts: Shared = { anchor: "selected", content: computed(selected, context) };
  const begin = [`${launcher} begin`, ...place(context), "--table --chosen {{.HOSTS}}"].join(" ");
  const begun: Shared = { anchor: "chosen", content: withTable(begin, waves.flat(), "") };
  const called = waves.map((_, index) => {
    const ref = waves.length === 1 ? ".HOSTS" : `index (splitList "/" .HOSTS) ${index}`;
    return { hosts: `{{${ref}}}`, call: { task: "deploy:hosts", silent: true, vars: { HOSTS: { ref } } } };
  });
  const task = (desc: string): Task => ({
    desc,
    vars: { HOSTS: { sh: hosts } },
    ...framed(
      context,
      [],
      [
        { cmd: begun, silent: true },
        awake(context),
        ...prebuild([], builtHere(all, ""), context, "{{.HOSTS}}"),
        ...gated(called, [], context),
      ],
    ),
  });
  return {
    deploy: task("Deploy the hosts selected, as in: task deploy -- web1 '@web' '!web2'"),
    retry: task("Deploy the hosts that were not deployed the last time; task retry -- web1 only web1 of these"),
    "deploy:hosts": {
      internal: true,
      deps: [{ for: { var: "HOSTS" }, task: '{{.ITEM | splitList ":" | first}}:steps', silent: true }],
    },
  };
}

const isStep = (step: string) => !["", "without-secrets"].includes(step);
const looksOnly = ["check-vars", "check-secrets", "build", "diff", "status"];
const part = (name: string, index: number) => (index === 0 ? `${name}:hosts` : `${name}:hosts:${index + 1}`);
const place = (context: Context) => [...flake(context), ...attribute(context)];
const isAlone = (name: string, [first, ...others]: readonly HostTasks[]) =>
  first?.host.name === name && others.length === 0;

/** By `deployment.order`, lower first. */
function inWaves(members: readonly HostTasks[]): HostTasks[][] {
  const orders = [...new Set(members.map(({ host }) => host.order))].sort((a, b) => a - b);
  return orders.map((order) => members.filter(({ host }) => host.order === order));
}

/** Beside it, who hears Ctrl-C while only tasks of the user's own run: go-task's `&` leaves it that, unlike sh's. */
const awake = ({ launcher }: Context) => ({ cmd: `${launcher} awake </dev/null >/dev/null 2>&1 &`, silent: true });

/** Between two waves the runtime looks whether the first one went well. */
function gated(
  waves: readonly { hosts: string; call: Task }[],
  flags: readonly string[],
  { launcher }: Context,
): Task[] {
  const gate = (hosts: string) => ({ cmd: [`${launcher} wave`, ...flags, hosts].join(" "), silent: true });
  return waves.flatMap(({ call }, index) => [...(index === 0 ? [] : [gate(waves[index - 1]?.hosts ?? "")]), call]);
}

/** The commands with `end` after them, whatever happens; its words are nobody's but the deployment's, so without a prefix. */
function framed({ launcher }: Context, flags: readonly string[], cmds: readonly Task[]): Task {
  const end = [`${launcher} end`, ...flags].join(" ");
  return { interactive: true, cmds: [{ defer: end, silent: true }, ...cmds, { cmd: end, silent: true }] };
}

function plans(members: readonly HostTasks[], step: string): string[] {
  return members.map((member) => planned(member, isStep(step) ? "step" : step === "" ? "whole" : "without-secrets"));
}

function beginCall(name: string, members: readonly HostTasks[], context: Context, step: string): string {
  const call = [`${context.launcher} begin`, ...place(context)];
  if (isStep(step)) return [...call, `--step ${step}`, ...plans(members, step)].join(" ");
  if (!isAlone(name, members)) return withTable([...call, "--table"].join(" "), members, step);
  // A dot in a task's name matches any character, so `task web-1` would deploy web.1.
  const called = name.includes(".") ? [`--host ${word(name)}`, "--called {{.ALIAS | q}}"] : [];
  return [...call, ...called, ...plans(members, step)].join(" ");
}

/** Of several whole hosts `begin` asks first whether they are there: on its standard input is how to reach each. */
function withTable(call: string, members: readonly HostTasks[], step: string): string {
  const names = plans(members, step);
  return [`${call} <<'EOF'`, ...members.map(({ host }, index) => row(names[index] ?? "", host)), "EOF\n"].join("\n");
}

/**
 * The hosts that are evaluated here and whose system this deployment or step needs, each with where it is built: HOST
 * (here), HOST=target, or HOST=DESTINATION.
 */
function builtHere(members: readonly HostTasks[], step: string): string[] {
  const name = step === "" || step === "without-secrets" ? "rebuild" : step;
  if (!["rebuild", "build", "diff"].includes(name)) return [];
  const whole = name !== step;
  return members
    .filter(({ host }) => host.localEvaluation && (!whole || host.tasks.includes(name)))
    .filter(({ host }) => ![name, step].some((own) => Object.hasOwn(host.extraTasks, own)))
    .map(({ host }) => (host.buildOn === "local" ? host.name : word(`${host.name}=${host.buildOn}`)));
}

/**
 * The systems of such hosts are built before the hosts' own steps: so it is bounded how many are evaluated at a time. The words
 * are those hosts; before them and `--` may stand what `selected` printed, of which the others are left out.
 */
function prebuild(flags: readonly string[], hosts: readonly string[], context: Context, selected = ""): Task[] {
  if (hosts.length === 0) return [];
  const words = [...flags, ...flake(context), ...attribute(context), ...(selected ? [selected, "--"] : []), ...hosts];
  return [{ cmd: [`${context.launcher} prebuild`, ...words].join(" "), silent: true }];
}

/** Each host's task, or its step; a step that is a user's own is called so that the report hears of it. */
function calls(members: readonly HostTasks[], step: string): Task[] {
  const task = `{{.ITEM}}:${step || "steps"}`;
  const own = members.filter(({ reported }) => Object.hasOwn(reported, step));
  const others = members.filter((member) => !own.includes(member));
  const call = (some: readonly HostTasks[], name: string) =>
    some.length === 0 ? [] : [{ for: some.map(({ host }) => host.name), task: name, silent: true }];
  return [...call(others, task), ...call(own, `${task}:reported`)];
}
