// The tasks of one host: its deployment, its steps, and a user's own tasks with what the report must know of them.
import { builtinSteps, commonSteps, type Host } from "./hosts.ts";
import { ownTask } from "./own-task.ts";
import { flakeSource, word } from "./quote.ts";
import { type BuiltinStep, type Context, sourceVariable, stepCall } from "./steps.ts";

/** A command that stands in several tasks: written out once, with an anchor, and referred to after that. */
export type Shared = { readonly anchor: string; readonly command: string };
/** A go-task task, by go-task's own keys. */
export type Task = Readonly<Record<string, unknown>>;
type Tasks = Readonly<Record<string, Task>>;

/**
 * `deploy` is the whole deployment, `steps` its parts by name. `reported` holds, for each step that is a user's own, the
 * task that deployments call instead: it notes beginning and end, whatever the user's task is made of.
 */
export type HostTasks = { readonly host: Host; readonly deploy: Task; readonly steps: Tasks; readonly reported: Tasks };

/** Builds the tasks of one host; `summaries` tell what each built-in step does. */
export function hostTasks(host: Host, summaries: Readonly<Record<string, string>>, context: Context): HostTasks {
  if (host.error !== undefined) return brokenTasks(host, host.error, context);
  const own = Object.entries(host.extraTasks);
  const calls = Object.fromEntries(builtinSteps.map((step) => [step, call(host, step, context)]));
  const commands: Record<string, unknown> = {
    ...calls,
    ...Object.fromEntries(own.map(([name]) => [name, { task: `${host.name}:${name}:reported` }])),
  };
  const deployment = (first: Task, tasks: readonly string[]): Task => {
    const cmds = tasks.map((task) => commands[task]);
    return { ...first, prefix: host.name, run: "once", ...vars(cmds, context), cmds };
  };
  const less = host.tasks.filter((task) => task !== "deploy-secrets");
  return {
    host,
    deploy: deployment({ desc: `Deploy ${host.name} (${host.tasks.join(", ")})` }, host.tasks),
    steps: {
      ...Object.fromEntries(
        // The runtime knows by the task's name that it is only to check.
        Object.entries({ ...calls, "check-secrets": calls["deploy-secrets"] }).map(([step, shared]) => [
          step,
          { summary: summaries[step], prefix: host.name, ...vars([shared], context), cmd: shared },
        ]),
      ),
      "without-secrets": deployment({ summary: summaries["without-secrets"] }, less),
      ...Object.fromEntries(own.map(([name, task]) => [name, ownTask(host, task, context)])),
    },
    reported: Object.fromEntries(own.map(([name]) => [name, reportedTask(host, name, context)])),
  };
}

/** How a host stands in the words of `begin`: with the steps of this deployment, where they are not the usual ones. */
export function planned({ host, steps }: HostTasks, deployment: "whole" | "without-secrets" | "step"): string {
  if (deployment === "step") return host.name;
  const less = deployment === "without-secrets" && steps["without-secrets"]?.["run"] === "once";
  const plan = host.tasks.filter((task) => !less || task !== "deploy-secrets").join(",");
  return plan === "deploy-flake,deploy-secrets,rebuild" ? host.name : `${host.name}:${plan}`;
}

function call(host: Host, step: BuiltinStep, context: Context): Shared {
  return { anchor: anchor(host, step), command: stepCall(step, host, context) };
}

/** What go-task skips by `status` or `if` counts as done; what fails has said why. A dry run of ours runs nothing of theirs. */
function reportedTask(host: Host, name: string, { launcher }: Context): Task {
  const flags = `--host ${word(host.name)} --step ${word(name)}`;
  return {
    internal: true,
    prefix: host.name,
    cmds: [
      { cmd: `${launcher} start ${flags}`, silent: true },
      { task: `${host.name}:${name}`, if: '[ "{{.LOLLYPOPS_DRY_RUN}}" != 1 ]' },
      { cmd: `${launcher} done ${flags}`, silent: true },
    ],
  };
}

/** A host that could not be evaluated: its tasks say so, and the others are deployed. */
function brokenTasks(host: Host, error: string, context: Context): HostTasks {
  const command = `${context.launcher} broken --host ${word(host.name)} -- ${word(error)}`;
  const task = { prefix: host.name, cmd: { anchor: anchor(host, "broken"), command } satisfies Shared };
  const steps = Object.fromEntries(commonSteps.map((step) => [step, task]));
  const deploy = { desc: `Deploy ${host.name} (it could not be evaluated)`, run: "once", ...task };
  return { host, deploy, steps, reported: {} };
}

/** go-yaml knows anchors of letters, digits, `_` and `-`; one that comes again counts anew. */
const anchor = (host: Host, step: string) => `${host.name.replace(/[^A-Za-z0-9_-]/g, "_")}-${step}`;

function vars(commands: readonly unknown[], context: Context): Task {
  const mentions = commands.some((command) => (command as Partial<Shared>).command?.includes(flakeSource));
  return mentions ? { vars: { LOCAL_FLAKE_SOURCE: sourceVariable(context) } } : {};
}
