// The options of a host, as the module has them: their types, their defaults, and what is wrong with a value in words.
import { z } from "zod";
import { didYouMean } from "./nearest.ts";

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
const unit = z
  .string()
  .regex(
    /^[A-Za-z0-9:_.\\@-]+\.(?:service|socket|target|timer|path|mount|slice|swap|automount|device|scope)$/,
    "is not the full name of a systemd unit, such as nginx.service",
  );
const account = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$/, "is not the name of a user or group");

const sshSchema = z.strictObject({
  command: filled.default("ssh"),
  opts: z.array(text).default([]),
  host: destination("host name or address").optional(),
  user: destination("user name").nullable().default(null),
  login: z.unknown().optional(),
  run: z.unknown().optional(),
});
const sudoSchema = z
  .strictObject({
    enable: z.boolean().default(false),
    command: filled.default("sudo"),
    opts: z.array(text).default([]),
    "password-command": filled.nullable().default(null),
  })
  .refine((sudo) => sudo["password-command"] === null || sudo.enable, {
    error: "needs sudo.enable",
    path: ["password-command"],
  })
  .refine((sudo) => sudo["password-command"] === null || /(?:^|\/)sudo$/.test(sudo.command), {
    error: "must be sudo for password-command, with its options in sudo.opts",
    path: ["command"],
  });
const deploymentSchema = z.strictObject({
  local: z.boolean().default(false),
  "local-evaluation": z.boolean().default(false),
  "deploy-method": z.enum(["auto", "copy", "archive"]).default("auto"),
  "config-dir": absolute.default("/var/src/lollypops"),
  group: groupName.nullable().default(null),
  groups: z.array(groupName).default([]),
  sudo: sudoSchema.prefault({}),
  ssh: sshSchema.prefault({}),
});
const secretSchema = z
  .strictObject({
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
    "restart-units": z.array(unit).default([]),
    "reload-units": z.array(unit).default([]),
    when: z.enum(["before", "after"]).default("before"),
    "allow-empty": z.boolean().default(false),
    "in-initrd": z.boolean().default(false),
  })
  .refine((secret) => secret.when === "before" || !secret["in-initrd"], {
    error: "must be before with in-initrd, since the boot entry is to hold it",
    path: ["when"],
  });
const secretsSchema = z.strictObject({
  "default-cmd": filled.default("pass"),
  "cmd-name-prefix": text.default(""),
  "default-dir": hidden.optional(),
  "default-user": z.unknown().optional(),
  files: z.record(plain, secretSchema).default({}),
});
const systemSecretsSchema = secretsSchema.extend({ prune: z.boolean().default(false) });
const hostSchema = z.strictObject({
  schema: z.literal(1).optional(),
  deployment: deploymentSchema.prefault({}),
  secrets: systemSecretsSchema.prefault({}),
  "home-manager": z
    .strictObject({ users: z.record(account, z.strictObject({ secrets: secretsSchema.prefault({}) })) })
    .optional(),
  tasks: z.array(z.string()).default(["deploy-flake", "deploy-secrets", "rebuild"]),
  extraTasks: z.record(z.string(), z.unknown()).default({}),
  problems: z.array(z.string()).default([]),
  derivations: z.array(z.string()).default([]),
});
/** The options of one host with their defaults, and one set of secrets in there. */
export type Options = z.output<typeof hostSchema>;
export type SecretOptions = z.output<typeof secretsSchema>;

/** Reads the options of a host; `options` is missing if there are problems. */
export function readOptions(name: string, value: unknown): { options?: Options; problems: string[] } {
  const parsed = hostSchema.safeParse(value);
  if (!parsed.success) return { problems: parsed.error.issues.flatMap((issue) => sentences(name, issue, value)) };
  return { options: parsed.data, problems: parsed.data.problems.map((problem) => `${name}: ${problem}`) };
}

/** The extra tasks in options that are wrong elsewhere, so that their own mistakes are told as well. */
export function extraTasksIn(value: unknown): Record<string, unknown> {
  return z.object({ extraTasks: z.record(z.string(), z.unknown()) }).safeParse(value).data?.extraTasks ?? {};
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
  if (at === "sudo") return Object.keys(sudoSchema.shape);
  if (at === "ssh") return Object.keys(sshSchema.shape);
  if (at === "secrets") return Object.keys((path.length === 1 ? systemSecretsSchema : secretsSchema).shape);
  return path.includes("files") ? Object.keys(secretSchema.shape) : [];
}
