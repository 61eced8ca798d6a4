// The tasks of one host: its deployment, its steps, and a user's own tasks with what the report must know of them.

import type { TaskBody } from "./extra-tasks.ts";
import { commonSteps, type Host } from "./hosts.ts";
import { ownFlags, ownTask } from "./own-task.ts";
import { flakeSource, word } from "./quote.ts";
import { type CalledStep, type Context, calledSteps, mentions, type Shared, stepCall } from "./steps.ts";

/** A go-task task, by go-task's own keys. */
export type Task = Readonly<Record<string, unknown>>;
type Tasks = Readonly<Record<string, Task>>;

/**
 * `whole` is the deployment, called by that of the host as by the others'; `steps` are its parts by name. `reported` holds, for each step that is a user's own, the
 * task that deployments call instead: it notes beginning and end, whatever the user's task is made of.
 */
export type HostTasks = { readonly host: Host; readonly whole: Task; readonly steps: Tasks; readonly reported: Tasks };

/** Builds the tasks of one host; `summaries` tell what each built-in step does. */
export function hostTasks(host: Host, summaries: Readonly<Record<string, string>>, context: Context): HostTasks {
  if (host.error !== undefined) return brokenTasks(host, host.error, context);
  const own = Object.entries(host.extraTasks);
  const calls = Object.fromEntries(calledSteps.map((step) => [step, call(host, step, context)])) as Calls;
  const replaced = Object.fromEntries(own.map(([name]) => [name, { task: `${host.name}:${name}:reported` }]));
  const commands: Commands = { ...calls, ...replaced };
  const cmds = host.tasks.map((task) => commands[task]);
  return {
    host,
    whole: { internal: true, prefix: host.name, run: "once", ...vars(cmds, context), cmds },
    steps: {
      ...Object.fromEntries(
        Object.entries(stepCommands(host, calls, commands)).map(([step, some]) => {
          const body = some.length === 1 ? { cmd: some[0] } : { cmds: some };
          return [
            step,
            { summary: summaries[step], prefix: host.name, ...more[step], ...vars(some, context), ...body },
          ];
        }),
      ),
      ...Object.fromEntries(own.map(([name, task]) => [name, ownTask(host, name, task, context)])),
    },
    reported: Object.fromEntries(own.map(([name, task]) => [name, reportedTask(host, name, task, context)])),
  };
}

type Calls = Readonly<Record<CalledStep, Shared>>;
type Commands = Readonly<Record<string, unknown>>;

/** What each step runs, in the order of `commonSteps`. Where it is another step's call, the runtime knows by the task's name. */
function stepCommands(host: Host, calls: Calls, commands: Commands): Record<string, unknown[]> {
  const { rebuild } = calls;
  const deploySecrets = host.secrets.length > 0 ? [commands["deploy-secrets"]] : [];
  const others: Record<string, unknown[]> = {
    "check-secrets": [calls["deploy-secrets"]],
    "without-secrets": host.tasks.filter((task) => task !== "deploy-secrets").map((task) => commands[task]),
    // boots; puts back what a volatile file system lost; looks whether all is up
    reboot: [rebuild, ...deploySecrets, rebuild],
  };
  return Object.fromEntries(commonSteps.map((step) => [step, others[step] ?? [(calls as Commands)[step] ?? rebuild]]));
}

const more: Readonly<Record<string, Task>> = {
  "without-secrets": { run: "once" },
  ssh: { interactive: true },
  // its standard output is a path and nothing else: no prefix, no echo
  build: { interactive: true, silent: true },
};

/** How a host stands in the words of `begin`: with the steps of this deployment, where they are not the usual ones. */
export function planned({ host, steps }: HostTasks, deployment: "whole" | "without-secrets" | "step"): string {
  if (deployment === "step") return host.name;
  if (host.error !== undefined) return `${host.name}:evaluation`;
  const less = deployment === "without-secrets" && steps["without-secrets"]?.["run"] === "once";
  const plan = host.tasks.filter((task) => !less || task !== "deploy-secrets").join(",");
  return plan === "deploy-flake,deploy-secrets,rebuild" ? host.name : `${host.name}:${plan}`;
}

function call(host: Host, step: CalledStep, context: Context): Shared {
  return { anchor: anchor(host, step), content: stepCall(step, host, context) };
}

/**
 * What go-task skips by `status` or `if` counts as done; `ended` has heard what failed, but for the failure of dependencies,
 * which go-task alone knows. A dry run of ours runs nothing of theirs.
 */
function reportedTask(host: Host, name: string, body: TaskBody, { launcher }: Context): Task {
  const flags = ownFlags(host, name);
  const heard = body.cmds !== undefined && body["deps"] === undefined ? { ignore_error: true } : {};
  return {
    internal: true,
    prefix: host.name,
    cmds: [
      { task: `${host.name}:${name}`, if: `${launcher} start ${flags}`, ...heard },
      { cmd: `${launcher} done ${flags}`, silent: true },
    ],
  };
}

/** A host that could not be evaluated: its tasks say so, and the others are deployed. */
function brokenTasks(host: Host, error: string, context: Context): HostTasks {
  const command = `${context.launcher} broken --host ${word(host.name)} -- ${word(error)}`;
  const task = { prefix: host.name, cmd: { anchor: anchor(host, "broken"), content: command } satisfies Shared };
  const steps = Object.fromEntries(commonSteps.map((step) => [step, task]));
  return { host, whole: { internal: true, run: "once", ...task }, steps, reported: {} };
}

/** go-yaml knows anchors of letters, digits, `_` and `-`; one that comes again counts anew. */
const anchor = (host: Host, step: string) => `${host.name.replace(/[^A-Za-z0-9_-]/g, "_")}-${step}`;

function vars(commands: readonly unknown[], context: Context): Task {
  return mentions(commands, flakeSource) ? { vars: { LOCAL_FLAKE_SOURCE: { sh: context.source } } } : {};
}
