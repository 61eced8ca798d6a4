// The built-in steps of a host, each one call of the runtime with plain words.
import type { HealthCheck, Host, Secret } from "./hosts.ts";
import { usualCheck, usualGuard } from "./options.ts";
import { word, wordWithEnvironment } from "./quote.ts";

/** The steps that have a call of their own; the others share one of these, and the runtime tells them by the task's name. */
export const calledSteps = ["check-vars", "deploy-flake", "deploy-secrets", "rebuild", "gc", "exec"] as const;
export type CalledStep = (typeof calledSteps)[number];

/** What stands in several tasks: written out once, with an anchor, and referred to after that. */
export type Shared = { readonly anchor: string; readonly content: unknown };

/** Whether a command, or what it is made of, holds this text. */
export function mentions(value: unknown, text: string): boolean {
  if (typeof value === "string") return value.includes(text);
  return typeof value === "object" && value !== null && Object.values(value).some((part) => mentions(part, text));
}

/** What all calls of a file share: the variable that starts the runtime, and how nix finds the hosts. */
export type Context = {
  readonly launcher: string;
  /** The variable that tells the runtime what this run sets, and what a run can set. */
  readonly settings: { readonly variable: string; readonly names: readonly string[] };
  /** Prints the flake's source. */
  readonly source: Shared;
  readonly flake: string;
  readonly attribute: string;
  readonly nixOptions: readonly string[];
};

/** The call that does one step on one host, in the words of the go-task shell. */
export function stepCall(step: CalledStep, host: Host, context: Context): string {
  const call = `${context.launcher} ${step} --host ${word(host.name)}`;
  switch (step) {
    case "check-vars":
      return [call, ...connection(host)].join(" ");
    case "deploy-flake":
      return [
        call,
        ...connection(host),
        ...flake(context),
        ...attribute(context),
        ...place(host),
        ...method(host),
      ].join(" ");
    case "deploy-secrets":
      return [[call, ...secretFlags(host), "--"].join(" "), ...host.secrets.map(secretWords)].join(" \\\n  ");
    case "rebuild":
      return rebuildCall(call, host, context);
    case "gc":
    case "exec":
      return [call, ...connection(host), "-- {{.CLI_ARGS}}"].join(" ");
  }
}

/**
 * The call that goes before a user's own commands, as go-task lets them begin: it sees whether the run is to end, gets from the
 * store what `text` refers to, and checks the LP_… variables for those that use the connection.
 */
export function readyCall(
  host: Host,
  name: string,
  { text, usesConnection, aliases }: { text: string; usesConnection: boolean; aliases: readonly string[] },
  { launcher }: Context,
): string {
  const named = aliases.every((alias) => alias.startsWith(`${host.name}:`)) ? asCalled(host) : [];
  const flags = [...(usesConnection ? connection(host) : []), ...named, ...needs([text], host.derivations)];
  return [launcher, "ready", "--host", word(host.name), "--step", word(name), ...new Set(flags)].join(" ");
}

/** The flag that tells the flake, left out where it is the usual one. */
export function flake({ flake: reference, nixOptions }: Pick<Context, "flake" | "nixOptions">): string[] {
  const where = reference === "." ? [] : [`--flake ${word(reference)}`];
  return [...where, ...nixOptions.map((option) => `--nix-opt ${word(option)}`)];
}

/** The flake's store path, found out when a task runs: with every commit of the Taskfile it is another. */
export function sourceCall(context: Omit<Context, "source">): Shared {
  return { anchor: "source", content: computed([context.launcher, "source", ...flake(context)].join(" "), context) };
}

/** A call whose output is a variable: go-task runs it without its task's environment. */
export function computed(call: string, { settings: { variable, names } }: Pick<Context, "settings">): string {
  const values = names.map((name) => `${name}='{{${setting(name)} | default "" | toString | q}}'\n`);
  return `${variable}='${values.join("")}' ${call}`;
}

/** What go-task fills in for one of the settings; a Taskfile's number tells its notes from those of others in the same run. */
export const setting = (name: string) => (name === "TASKFILE_ID" ? ".TASKFILE | sha1sum | trunc 8" : `.${name}`);

/** Where ssh goes, as `user@address`. */
export function destination({ user, address }: Host): string {
  return user === null ? address : `${user}@${address}`;
}

/** A host as a line of the table that `begin` reads: what it is called there, and how to ask whether it is there. */
export function row(name: string, host: Host): string {
  const line = [name, ...reach(host)].join(" ");
  // What does not fit into a line is not asked, as if it were this machine.
  return line.includes("\n") ? `${name} --local` : line;
}

/** A dot in a task's name matches any character, so `task web-1:own` would mean web.1. */
const asCalled = ({ name }: Host) => (name.includes(".") ? ["--called {{.ALIAS | q}}"] : []);

function connection(host: Host): string[] {
  const flags = reach(host);
  if (host.sudo) flags.push(`--sudo ${word(host.sudo.command)}`);
  flags.push(...(host.sudo?.opts ?? []).map((opt) => `--sudo-opt ${wordWithEnvironment(opt)}`));
  const password = host.sudo?.passwordCommand ?? null;
  if (password !== null) flags.push(`--password-command ${word(password)}`);
  flags.push(...asCalled(host));
  const programs = [...(host.local ? [] : [host.ssh.command, ...host.ssh.opts]), password ?? ""];
  return [...flags, ...needs(programs, host.derivations)];
}

function reach(host: Host): string[] {
  if (host.local) return ["--local"];
  const flags = [`--to ${word(destination(host))}`];
  if (host.ssh.command !== "ssh") flags.push(`--ssh ${word(host.ssh.command)}`);
  flags.push(...host.ssh.opts.map((opt) => `--ssh-opt ${wordWithEnvironment(opt)}`));
  const { port, identityFile, jumpHost, hostKey, multiplex } = host.ssh;
  if (port !== null) flags.push(`--port ${port}`);
  if (identityFile !== null) flags.push(`--identity ${wordWithEnvironment(identityFile)}`);
  if (jumpHost !== null) flags.push(`--jump ${word(jumpHost)}`);
  if (hostKey !== null) flags.push(`--host-key ${word(hostKey)}`);
  return multiplex ? flags : [...flags, "--no-multiplex"];
}

const place = (host: Host) => (host.configDir === "/var/src/lollypops" ? [] : [`--config-dir ${word(host.configDir)}`]);
const where = ({ localEvaluation, buildOn }: Host) => [
  ...(localEvaluation ? ["--local-evaluation"] : []),
  ...(buildOn === "target" ? [] : [`--build-on ${word(buildOn)}`]),
];
const method = (host: Host) => (host.deployMethod === "auto" ? [] : [`--method ${host.deployMethod}`]);

/** The flag that tells where in the flake the hosts are, likewise. */
export function attribute({ attribute: name }: Context): string[] {
  return name === "nixosConfigurations" ? [] : [`--attribute ${word(name)}`];
}

function rebuildCall(call: string, host: Host, context: Context): string {
  const flags = [...connection(host), ...flake(context), ...attribute(context), ...place(host), ...where(host)];
  const { healthChecks } = host.guard;
  const here = healthChecks.filter(({ on }) => on === "control").map(({ command }) => command);
  flags.push(...guard(host), ...needs(here, host.derivations).filter((flag) => !flags.includes(flag)));
  const line = [call, ...flags].join(" ");
  return healthChecks.length === 0 ? line : [`${line} --`, ...healthChecks.map(checkWords)].join(" \\\n  ");
}

/** What of the guard is not as usual. */
function guard({ guard: given, local, specialisation }: Host): string[] {
  const flags: string[] = [];
  const ignored = given.ignoreUnits.join(" ");
  if (!given.enable) flags.push("--no-guard");
  if (given.confirmTimeout !== usualGuard.confirmTimeout) flags.push(`--confirm-timeout ${given.confirmTimeout}`);
  if (given.activationTimeout !== usualGuard.activationTimeout)
    flags.push(`--activation-timeout ${given.activationTimeout}`);
  if (given.confirmHost !== null && !local) flags.push(`--confirm-host ${word(given.confirmHost)}`);
  if (given.keepFailedUnits) flags.push("--keep-failed-units");
  if (ignored !== usualGuard.ignoreUnits.join(" ")) flags.push(`--ignore-units ${word(ignored)}`);
  if (specialisation !== null) flags.push(`--specialisation ${word(specialisation)}`);
  return flags;
}

function checkWords({ name, on, timeout, retries, command }: HealthCheck): string {
  const parts = [`name=${name}`];
  if (on !== "target") parts.push(`on=${on}`);
  if (timeout !== usualCheck.timeout) parts.push(`timeout=${timeout}`);
  if (retries !== usualCheck.retries) parts.push(`retries=${retries}`);
  return [...parts, `cmd=${command}`].map(assignment).join(" ");
}

function secretFlags(host: Host): string[] {
  const all = connection(host);
  const commands = host.secrets.map(({ cmd }) => cmd);
  return [...all, ...needs(commands, host.derivations).filter((flag) => !all.includes(flag)), ...settling(host)];
}

/** What is done with secrets beyond writing them; without a `rebuild` to come, units need not wait for one. */
function settling({ tasks, extraTasks, prune }: Host): string[] {
  const at = tasks.indexOf("deploy-secrets");
  const rebuilds = at !== -1 && tasks.indexOf("rebuild") > at && !Object.hasOwn(extraTasks, "rebuild");
  return [...(prune ? ["--prune"] : []), ...(rebuilds ? [] : ["--no-rebuild"])];
}

function secretWords(secret: Secret): string {
  const parts = [`name=${secret.name}`, `path=${secret.path}`];
  if (secret.mode !== "0400") parts.push(`mode=${secret.mode}`);
  if (secret.owner !== "root") parts.push(`owner=${secret.owner}`);
  if (secret.group !== null) parts.push(`group=${secret.group}`);
  if (secret.as !== "root") parts.push(`as=${secret.as}`);
  if (secret.when !== "before") parts.push(`when=${secret.when}`);
  if (secret.restart.length > 0) parts.push(`restart=${secret.restart.join(",")}`);
  if (secret.reload.length > 0) parts.push(`reload=${secret.reload.join(",")}`);
  if (secret.allowEmpty) parts.push("empty=1");
  if (secret.inInitrd) parts.push("initrd=1");
  return [...parts, `cmd=${secret.cmd}`].map(assignment).join(" ");
}

/** `name='a b'` reads better than `'name=a b'`, and is the same word. */
function assignment(part: string): string {
  const at = part.indexOf("=") + 1;
  return part.slice(0, at) + word(part.slice(at));
}

/** Flags that name the store paths in `texts`, each with the derivation that makes it where that is known. */
function needs(texts: readonly string[], derivations: readonly string[]): string[] {
  const paths = texts.flatMap((text) => text.match(/\/nix\/store\/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+/g) ?? []);
  return [...new Set(paths)].sort().map((path) => {
    const maker = derivations.find((derivation) => makes(derivation, path));
    return `--needs ${word(maker === undefined ? path : `${path}=${maker}`)}`;
  });
}

/** An output is named as its derivation, with `-OUTPUT` at the end unless that is `out`. */
function makes(derivation: string, path: string): boolean {
  const [drv = "", output = "out"] = derivation.split("^");
  const name = (store: string) => store.slice("/nix/store/".length + 33);
  return name(path) === name(drv).replace(/\.drv$/, "") + (output === "out" ? "" : `-${output}`);
}
