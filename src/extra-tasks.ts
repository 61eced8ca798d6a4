import { didYouMean } from "./nearest.ts";
import { type Command, type Dependency, type TaskBody, taskSchema } from "./task-schema.ts";

export { type TaskBody, taskSchema };

/** A task, and what is wrong with it: sentences that name the host, the extra task and the place in it. */
export type Checked = { task: TaskBody; problems: string[] };

/** Reads `lollypops.extraTasks.<name>` of a host. */
export function parseExtraTask(host: string, name: string, value: unknown): Checked {
  const result = taskSchema.safeParse(value);
  if (result.success) return { task: result.data, problems: [] };
  const problems = result.error.issues.flatMap(({ path, message }) =>
    message.split("\n").map((sentence) => `${place(host, name, path)}: ${sentence}`),
  );
  return { task: {}, problems };
}

/**
 * Makes the task names in an extra task mean this host's tasks, as go-task does in a Taskfile that is included under the
 * host's name. `names` are the host's steps and extra tasks, without the host.
 */
export function localNames(host: string, name: string, task: TaskBody, names: readonly string[]): Checked {
  const problems: string[] = [];
  const known = new Set(["default", ...names, ...(task.aliases ?? [])]);
  const local = (called: string, ...path: PropertyKey[]) => {
    if (!called.startsWith(":") && !called.includes("{{") && !known.has(called)) {
      problems.push(`${place(host, name, path)}: ${unknownTask(host, called, names)}`);
    }
    return localName(host, called);
  };
  const { aliases, deps, cmds } = task;
  const renamed = {
    ...task,
    ...(aliases && { aliases: aliases.map((alias) => localName(host, alias)) }),
    ...(deps && {
      deps: deps.map((dep, index) => localDependency(dep, (called, ...path) => local(called, "deps", index, ...path))),
    }),
    ...(cmds && {
      cmds: cmds.map((cmd, index) => localCommand(cmd, (called, ...path) => local(called, "cmds", index, ...path))),
    }),
  };
  return { task: renamed, problems };
}

type Rename = (called: string, ...path: PropertyKey[]) => string;

function localDependency(dependency: Dependency, rename: Rename): Dependency {
  if (typeof dependency === "string") return rename(dependency);
  return { ...dependency, task: rename(dependency.task, "task") };
}

function localCommand(command: Command, rename: Rename): Command {
  if (typeof command === "string") return command;
  if ("task" in command) return { ...command, task: rename(command.task, "task") };
  if (!("defer" in command) || typeof command.defer === "string") return command;
  const { defer } = command;
  return { ...command, defer: { ...defer, task: rename(defer.task, "defer", "task") } };
}

/** go-task's rule: the host goes before any name; a leading colon takes it from there as it stands. */
function localName(host: string, called: string): string {
  if (called.startsWith(":")) return called.slice(1);
  return called === "default" ? host : `${host}:${called}`;
}

function unknownTask(host: string, called: string, names: readonly string[]): string {
  const own = called.startsWith(`${host}:`) ? called.slice(host.length + 1) : called;
  const near = names.includes(own) ? `; did you mean \`${own}\`?` : didYouMean(called, names);
  const elsewhere = `; a task of another host or of the fleet is written \`:${called}\``;
  return `there is no task \`${called}\` on this host${near || elsewhere}`;
}

/** `web1: extraTasks.check.cmds[0].task` */
function place(host: string, name: string, path: readonly PropertyKey[]): string {
  const inside = path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`));
  return `${host}: extraTasks.${name}${inside.join("")}`;
}
