// What a flake says of its hosts, checked once at the door: from here on every field has its type and its default.
import { z } from "zod";
import { localNames, parseExtraTask, type TaskBody } from "./extra-tasks.ts";
import { didYouMean } from "./nearest.ts";
import { word } from "./quote.ts";

/** One secret: `cmd` prints it on the control machine, `path` is where it goes; `as` is the account that writes it. */
export type Secret = {
  readonly name: string;
  readonly cmd: string;
  readonly path: string;
  readonly mode: string;
  readonly owner: string;
  readonly group: string | null;
  readonly as: string;
};

/** A host to deploy. `error` is set instead of anything else when it could not be evaluated. */
export type Host = {
  readonly name: string;
  readonly user: string | null;
  readonly address: string;
  readonly ssh: { readonly command: string; readonly opts: readonly string[] };
  readonly sudo: { readonly command: string; readonly opts: readonly string[] } | null;
  readonly localEvaluation: boolean;
  readonly deployMethod: "auto" | "copy" | "archive";
  readonly configDir: string;
  readonly groups: readonly string[];
  readonly secrets: readonly Secret[];
  readonly tasks: readonly string[];
  readonly extraTasks: Readonly<Record<string, TaskBody>>;
  readonly derivations: readonly string[];
  readonly error?: string;
};

/** Whether a path leads where it says. */
export function isStraight(path: string): boolean {
  return !/\/\.{0,2}(?:\/|$)/.test(path);
}

/** Where a `user@host` is used: nothing that ssh reads as an option, or a store URI as a parameter. */
const destination = (what: string) =>
  z
    .string()
    .regex(
      /^(?:[A-Za-z0-9_][A-Za-z0-9_.:%-]*|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?\])$/,
      `is not a ${what}`,
    );
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are meant
const controlFree = /^[^\u0000-\u001f\u007f]+$/;
const plain = z.string().regex(controlFree, { error: "must be text without control characters", abort: true });
const text = z.string().refine((value) => !value.includes("\0"), "holds a NUL");
const filled = text.min(1, "must not be empty");
const absolute = plain
  .regex(/^\/.*[^/]$/s, { error: "must be an absolute path that does not end in /", abort: true })
  .refine(isStraight, "must not hold //, /./ or /../");
const hidden = absolute.refine((path) => !/^\/nix\/store(\/|$)/.test(path), "is in the store, which anyone can read");
const groupName = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_-]*$/, "is not a group name ([A-Za-z0-9_-]+)");
const account = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$/, "is not the name of a user or group");

const sshSchema = z.strictObject({
  command: filled.default("ssh"),
  opts: z.array(text).default([]),
  host: destination("host name or address").optional(),
  user: destination("user name").nullable().default(null),
  login: z.unknown().optional(),
  run: z.unknown().optional(),
});
const deploymentSchema = z.strictObject({
  "local-evaluation": z.boolean().default(false),
  "deploy-method": z.enum(["auto", "copy", "archive"]).default("auto"),
  "config-dir": absolute.default("/var/src/lollypops"),
  group: groupName.nullable().default(null),
  groups: z.array(groupName).default([]),
  sudo: z
    .strictObject({
      enable: z.boolean().default(false),
      command: filled.default("sudo"),
      opts: z.array(text).default([]),
    })
    .prefault({}),
  ssh: sshSchema.prefault({}),
});
const secretSchema = z.strictObject({
  name: plain.optional(),
  "vault-name": text.optional(),
  cmd: filled.optional(),
  path: hidden.optional(),
  mode: z
    .string()
    .regex(/^0?[0-7]{3,4}$/, "is not an octal mode such as 0400")
    .default("0400"),
  owner: account.optional(),
  "group-name": account.nullable().default(null),
});
const secretsSchema = z.strictObject({
  "default-cmd": filled.default("pass"),
  "cmd-name-prefix": text.default(""),
  "default-dir": hidden.optional(),
  "default-user": z.unknown().optional(),
  files: z.record(plain, secretSchema).default({}),
});
const hostSchema = z.strictObject({
  schema: z.literal(1).optional(),
  deployment: deploymentSchema.prefault({}),
  secrets: secretsSchema.prefault({}),
  "home-manager": z
    .strictObject({ users: z.record(account, z.strictObject({ secrets: secretsSchema.prefault({}) })) })
    .optional(),
  tasks: z.array(z.string()).default(["deploy-flake", "deploy-secrets", "rebuild"]),
  extraTasks: z.record(z.string(), z.unknown()).default({}),
  problems: z.array(z.string()).default([]),
  derivations: z.array(z.string()).default([]),
});
type HostInput = z.output<typeof hostSchema>;

/** Turns the options of one host, as nix printed them, into a Host; or tells all that is wrong with them. */
export function parseHost(name: string, value: unknown): { host?: Host; problems: string[] } {
  const parsed = hostSchema.safeParse(value);
  if (!parsed.success) {
    const extra = z.object({ extraTasks: z.record(z.string(), z.unknown()) }).safeParse(value).data?.extraTasks ?? {};
    const problems = parsed.error.issues.flatMap((issue) => sentences(name, issue, value));
    return { problems: [...problems, ...ownTasks(name, extra).problems] };
  }
  const input = parsed.data;
  const tasks = ownTasks(name, input.extraTasks);
  const problems = [...input.problems.map((problem) => `${name}: ${problem}`), ...tasks.problems];
  return problems.length > 0 ? { problems } : { host: toHost(name, input, tasks.tasks), problems };
}

/** The stand-in of a host that could not be evaluated. */
export function brokenHost(name: string, error: string): Host {
  return { ...toHost(name, hostSchema.parse({}), {}), error };
}

/** The steps that every host has. */
export const commonSteps = ["check-vars", "deploy-flake", "deploy-secrets", "rebuild", "without-secrets"];

function ownTasks(host: string, extraTasks: HostInput["extraTasks"]) {
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
  if (name === "hosts") return [`${host}: extraTasks.hosts: this name is taken by the tasks of groups`];
  if (/^[A-Za-z0-9_][A-Za-z0-9_-]*$/.test(name)) return [];
  const rule = "a task's name is made of A-Z a-z 0-9 _ - and begins with a letter, digit or _";
  return [`${host}: extraTasks.${JSON.stringify(name)}: ${rule}`];
}

function toHost(name: string, input: HostInput, extraTasks: Host["extraTasks"]): Host {
  const { ssh, sudo, group, groups } = input.deployment;
  const home = Object.entries(input["home-manager"]?.users ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    name,
    user: ssh.user,
    address: ssh.host ?? name,
    ssh: { command: ssh.command, opts: withoutLogin(ssh.opts, ssh.user) },
    sudo: sudo.enable ? { command: sudo.command, opts: sudo.opts } : null,
    localEvaluation: input.deployment["local-evaluation"],
    deployMethod: input.deployment["deploy-method"],
    configDir: input.deployment["config-dir"],
    // `default` is what upstream's module says of a host that is in no group
    groups: [...new Set(group === null || group === "default" ? groups : [group, ...groups])].sort(),
    secrets: [
      ...secretsOf(input.secrets, "root", "/var/src/lollypops-secrets"),
      ...home.flatMap(([user, { secrets }]) => secretsOf(secrets, user, `/home/${user}/lollypops-secrets`)),
    ],
    tasks: input.tasks,
    extraTasks,
    derivations: input.derivations,
  };
}

function secretsOf(secrets: z.output<typeof secretsSchema>, as: string, directory: string): Secret[] {
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
      };
    });
}

/** Upstream's module adds `-l USER`, which would beat LP_REMOTE_USER. */
function withoutLogin(opts: readonly string[], user: string | null): string[] {
  const at = opts.findIndex((opt, index) => user !== null && opt === "-l" && opts[index + 1] === user);
  return at === -1 ? [...opts] : [...opts.slice(0, at), ...opts.slice(at + 2)];
}

function sentences(name: string, issue: z.core.$ZodIssue, value: unknown): string[] {
  const option = optionName(issue.path);
  if (issue.code === "unrecognized_keys") {
    const known = knownKeys(issue.path.map(String));
    return issue.keys.map((key) => `${name}: there is no option ${option}.${key}${didYouMean(key, known)}`);
  }
  if (issue.code === "invalid_key") return issue.issues.map(({ message }) => `${name}: the name ${option} ${message}`);
  const found = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], value);
  const shown = found === undefined ? "nothing" : JSON.stringify(found).slice(0, 80);
  if (issue.code === "invalid_type") return [`${name}: ${option} must be ${kinds[issue.expected]}, not ${shown}`];
  if (issue.code === "invalid_value") return [`${name}: ${option} must be ${issue.values.join(" or ")}, not ${shown}`];
  return [`${name}: ${option} ${issue.message}: ${shown}`];
}

const kinds: Record<string, string> = {
  array: "a list",
  boolean: "true or false",
  object: "a set",
  record: "a set",
  string: "a string",
};

/** As Nix writes it, with the place in a list in brackets. */
function optionName(path: readonly PropertyKey[]): string {
  const parts = path.map((key) => {
    if (typeof key === "number") return `[${key}]`;
    return `.${/^[A-Za-z_][\w'-]*$/.test(String(key)) ? String(key) : JSON.stringify(key)}`;
  });
  return `lollypops${parts.join("")}`;
}

/** The option names of the level where a wrong one stands. */
function knownKeys(path: readonly string[]): string[] {
  const at = path.at(-1);
  if (path.length === 0) return Object.keys(hostSchema.shape);
  if (at === "deployment") return Object.keys(deploymentSchema.shape);
  if (at === "sudo") return ["enable", "command", "opts"];
  if (at === "ssh") return Object.keys(sshSchema.shape);
  if (at === "secrets") return Object.keys(secretsSchema.shape);
  return path.includes("files") ? Object.keys(secretSchema.shape) : [];
}
