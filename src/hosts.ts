// What the rest of the program works with: hosts, checked once at the door.
import { localNames, parseExtraTask, type TaskBody } from "./extra-tasks.ts";
import { extraTasksIn, type Options, readOptions, type SecretOptions } from "./options.ts";
import { word } from "./quote.ts";

/**
 * One secret: `cmd` prints it on the control machine, `path` is where it goes; `as` is the account that writes it. Units are
 * the system's.
 */
export type Secret = {
  readonly name: string;
  readonly cmd: string;
  readonly path: string;
  readonly mode: string;
  readonly owner: string;
  readonly group: string | null;
  readonly as: string;
  readonly when: "before" | "after";
  readonly restart: readonly string[];
  readonly reload: readonly string[];
  readonly allowEmpty: boolean;
  readonly inInitrd: boolean;
};

/** How ssh gets there, beyond user and address; `hostKey` is a policy or `TYPE KEY`. */
type Ssh = {
  readonly command: string;
  readonly opts: readonly string[];
  readonly port: number | null;
  readonly identityFile: string | null;
  readonly jumpHost: string | null;
  readonly hostKey: string | null;
  readonly multiplex: boolean;
};

/** What decides whether a new system is kept. */
type Guard = {
  readonly enable: boolean;
  readonly confirmTimeout: number;
  readonly activationTimeout: number;
  readonly confirmHost: string | null;
  readonly keepFailedUnits: boolean;
  readonly ignoreUnits: readonly string[];
  readonly healthChecks: readonly HealthCheck[];
};
export type HealthCheck = {
  readonly name: string;
  readonly command: string;
  readonly on: "target" | "control";
  readonly timeout: number;
  readonly retries: number;
};

/** How to become root. */
type Sudo = { readonly command: string; readonly opts: readonly string[]; readonly passwordCommand: string | null };

/** A host to deploy. `error` is set instead of anything else when it could not be evaluated. */
export type Host = {
  readonly name: string;
  readonly local: boolean;
  readonly user: string | null;
  readonly address: string;
  readonly ssh: Ssh;
  readonly sudo: Sudo | null;
  readonly localEvaluation: boolean;
  readonly buildOn: string;
  readonly specialisation: string | null;
  readonly guard: Guard;
  readonly deployMethod: "auto" | "copy" | "archive";
  readonly configDir: string;
  readonly groups: readonly string[];
  readonly order: number;
  readonly secrets: readonly Secret[];
  readonly prune: boolean;
  readonly tasks: readonly string[];
  readonly extraTasks: Readonly<Record<string, TaskBody>>;
  readonly derivations: readonly string[];
  readonly error?: string;
};

/** Turns the options of one host, as nix printed them, into a Host; or tells all that is wrong with them. */
export function parseHost(name: string, value: unknown): { host?: Host; problems: string[] } {
  const read = readOptions(name, value);
  const { tasks, problems } = ownTasks(name, read.options?.extraTasks ?? extraTasksIn(value));
  const all = [...read.problems, ...problems];
  if (read.options === undefined || all.length > 0) return { problems: all };
  return { host: toHost(name, read.options, tasks), problems: [] };
}

/** The stand-in of a host that could not be evaluated. */
export function brokenHost(name: string, error: string): Host {
  const { options } = readOptions(name, {});
  return { ...toHost(name, options as Options, {}), error };
}

/** The steps of the tool's own that a deployment can have, in its order; and all steps that every host has. */
export const builtinSteps = ["check-vars", "deploy-flake", "deploy-secrets", "rebuild"] as const;
export const commonSteps: readonly string[] = [
  ...builtinSteps,
  "check-secrets",
  "without-secrets",
  "build",
  "diff",
  "status",
  "rollback",
  "reboot",
  "gc",
  "ssh",
  "exec",
];

function ownTasks(host: string, extraTasks: Options["extraTasks"]) {
  const names = [...new Set([...commonSteps, ...Object.keys(extraTasks)])];
  const problems: string[] = [];
  const tasks: Record<string, TaskBody> = {};
  for (const name of Object.keys(extraTasks).sort()) {
    const parsed = parseExtraTask(host, name, extraTasks[name]);
    const renamed = localNames(host, name, parsed.task, names);
    problems.push(...taskName(host, name), ...parsed.problems, ...renamed.problems);
    tasks[name] = renamed.task;
  }
  return { tasks, problems };
}

function taskName(host: string, name: string): string[] {
  if (["hosts", "steps"].includes(name))
    return [`${host}: extraTasks.${name}: this name is taken by the tool's own tasks`];
  if (/^[A-Za-z0-9_][A-Za-z0-9_-]*$/.test(name)) return [];
  const rule = "a task's name is made of A-Z a-z 0-9 _ - and begins with a letter, digit or _";
  return [`${host}: extraTasks.${JSON.stringify(name)}: ${rule}`];
}

function toHost(name: string, input: Options, extraTasks: Host["extraTasks"]): Host {
  const { ssh, sudo, group, groups, specialisation } = input.deployment;
  const localEvaluation = input.deployment["local-evaluation"];
  const home = Object.entries(input["home-manager"]?.users ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    name,
    local: input.deployment.local,
    user: ssh.user,
    address: ssh.host ?? name,
    ssh: sshOf(ssh),
    sudo: sudo.enable ? { command: sudo.command, opts: sudo.opts, passwordCommand: sudo["password-command"] } : null,
    localEvaluation,
    buildOn: input.deployment["build-on"] ?? (localEvaluation ? "local" : "target"),
    specialisation,
    guard: guardOf(input.deployment),
    deployMethod: input.deployment["deploy-method"],
    configDir: input.deployment["config-dir"],
    // `default` is what upstream's module says of a host that is in no group
    groups: [...new Set(group === null || group === "default" ? groups : [group, ...groups])].sort(),
    order: input.deployment.order,
    secrets: [
      ...secretsOf(input.secrets, "root", "/var/src/lollypops-secrets"),
      ...home.flatMap(([user, { secrets }]) => secretsOf(secrets, user, `/home/${user}/lollypops-secrets`)),
    ],
    prune: input.secrets.prune,
    tasks: input.tasks,
    extraTasks,
    derivations: input.derivations,
  };
}

function secretsOf(secrets: SecretOptions, as: string, directory: string): Secret[] {
  return Object.entries(secrets.files)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, file]) => {
      const name = file.name ?? key;
      const vaultName = file["vault-name"] ?? secrets["cmd-name-prefix"] + name;
      return {
        name,
        cmd: file.cmd ?? `${secrets["default-cmd"]} ${word(vaultName)}`,
        path: file.path ?? `${secrets["default-dir"] ?? directory}/${name}`,
        mode: file.mode,
        owner: file.owner ?? as,
        group: file["group-name"],
        as,
        when: file.when,
        restart: file["restart-units"],
        reload: file["reload-units"],
        allowEmpty: file["allow-empty"],
        inInitrd: file["in-initrd"],
      };
    });
}

function sshOf(ssh: Options["deployment"]["ssh"]): Ssh {
  return {
    command: ssh.command,
    opts: withoutLogin(ssh.opts, ssh.user),
    port: ssh.port,
    identityFile: ssh["identity-file"],
    jumpHost: ssh["jump-host"],
    // without the comment of a key
    hostKey: ssh["host-key"]?.split(" ", 2).join(" ") ?? null,
    multiplex: ssh.multiplex,
  };
}

function guardOf({ guard, ssh, ...deployment }: Options["deployment"]): Guard {
  return {
    enable: guard.enable,
    confirmTimeout: guard["confirm-timeout"],
    activationTimeout: guard["activation-timeout"],
    confirmHost: ssh["confirm-host"],
    keepFailedUnits: guard["on-failed-units"] === "keep",
    ignoreUnits: guard["ignore-units"],
    healthChecks: Object.entries(deployment["health-checks"])
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, check]) => ({ name, ...check })),
  };
}

/** Upstream's module adds `-l USER`, which would beat LP_REMOTE_USER. */
function withoutLogin(opts: readonly string[], user: string | null): string[] {
  const at = opts.findIndex((opt, index) => user !== null && opt === "-l" && opts[index + 1] === user);
  return at === -1 ? [...opts] : [...opts.slice(0, at), ...opts.slice(at + 2)];
}
