// The options of a host, as the module has them: their types, their defaults, and what is wrong with a value in words.
import { z } from "zod";
import { didYouMean } from "./nearest.ts";
import { flakeSource } from "./quote.ts";

/** Whether a path leads where it says. */
export function isStraight(path: string): boolean {
  return !/\/\.{0,2}(?:\/|$)/.test(path);
}

/** Where a `user@host` is used: nothing that ssh reads as an option, or a store URI as a parameter. */
const user = "[A-Za-z0-9_][A-Za-z0-9_.:%-]*";
const address = `(?:${user}|\\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?\\])`;
const destination = (what: string) => z.string().regex(new RegExp(`^${address}$`), `is not a ${what}`);
const hop = `(?:${user}@)?${address}(?::[0-9]+)?`;
const jumps = z
  .string()
  .regex(new RegExp(`^${hop}(?:,${hop})*$`), "is not an ssh destination ([USER@]HOST[:PORT], or several with commas)");
const login = z.string().regex(new RegExp(`^(?:${user}@)?${address}$`), "is not an ssh destination ([USER@]HOST)");
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are meant
const controlFree = /^[^\u0000-\u001f\u007f]+$/;
const plain = z.string().regex(controlFree, { error: "must be text without control characters", abort: true });
const text = z.string().refine((value) => !value.includes("\0"), "holds a NUL");
const filled = text.min(1, "must not be empty");
const absolute = plain
  .regex(/^\/.*[^/]$/s, { error: "must be an absolute path that does not end in /", abort: true })
  .refine(isStraight, "must not hold //, /./ or /../");
const notInStore = (path: string) => !/^\/nix\/store(\/|$)/.test(path) && !path.startsWith(flakeSource);
const hidden = absolute.refine(notInStore, "is in the store, which anyone can read");
const identityFile = filled.refine(notInStore, "is in the store, which anyone can read");
const groupName = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_-]*$/, "is not a group name ([A-Za-z0-9_-]+)");
const unit = z
  .string()
  .regex(
    /^[A-Za-z0-9:_.\\@-]+\.(?:service|socket|target|timer|path|mount|slice|swap|automount|device|scope)$/,
    "is not the full name of a systemd unit, such as nginx.service",
  );
const unitPattern = z.string().regex(/^[A-Za-z0-9:_.\\@*?[\]-]+$/, "is not a pattern for names of systemd units");
const positive = z.int().min(1, "must be a whole number above 0");
const keyKind =
  "(?:ssh-(?:rsa|ed25519)|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\\.com)";
const hostKey = z
  .string()
  .regex(
    new RegExp(`^(?:strict|accept-new|${keyKind} AAAA[A-Za-z0-9+/]+={0,2}(?: [^\\n]*)?)$`),
    "is neither strict, accept-new nor a public key such as ssh-ed25519 AAAA…",
  );
const plainWord = z
  .string()
  .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/, "is made of A-Z a-z 0-9 _ . - and begins with a letter, digit or _");
const specialisation = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.+-]*$/, "is not the name of a specialisation");
const account = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$/, "is not the name of a user or group");

/** What steps.ts leaves out of a call, since the runtime takes it to be so. */
export const usualGuard = {
  confirmTimeout: 60,
  activationTimeout: 600,
  ignoreUnits: ["*-wait-online.service"],
} as const;
export const usualCheck = { timeout: 10, retries: 3 } as const;

const sshSchema = z.strictObject({
  command: filled.default("ssh"),
  opts: z.array(text).default([]),
  host: destination("host name or address").optional(),
  user: destination("user name").nullable().default(null),
  port: z
    .int()
    .min(1, "must be a port from 1 to 65535")
    .max(65535, "must be a port from 1 to 65535")
    .nullable()
    .default(null),
  "identity-file": identityFile.nullable().default(null),
  "jump-host": jumps.nullable().default(null),
  "host-key": hostKey.nullable().default(null),
  "confirm-host": destination("host name or address").nullable().default(null),
  multiplex: z.boolean().default(true),
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
const guardSchema = z.strictObject({
  enable: z.boolean().default(true),
  "confirm-timeout": positive.default(usualGuard.confirmTimeout),
  "activation-timeout": positive.default(usualGuard.activationTimeout),
  "on-failed-units": z.enum(["rollback", "keep"]).default("rollback"),
  "ignore-units": z.array(unitPattern).default([...usualGuard.ignoreUnits]),
});
const checkSchema = z.strictObject({
  command: filled,
  on: z.enum(["target", "control"]).default("target"),
  timeout: positive.default(usualCheck.timeout),
  retries: z.int().min(0, "must be a whole number, 0 or more").default(usualCheck.retries),
});
const deploymentSchema = z
  .strictObject({
    local: z.boolean().default(false),
    "local-evaluation": z.boolean().default(false),
    "build-on": login.optional(),
    "deploy-method": z.enum(["auto", "copy", "archive"]).default("auto"),
    "config-dir": absolute.default("/var/src/lollypops"),
    order: z.int().default(0),
    group: groupName.nullable().default(null),
    groups: z.array(groupName).default([]),
    sudo: sudoSchema.prefault({}),
    ssh: sshSchema.prefault({}),
    specialisation: specialisation.nullable().default(null),
    guard: guardSchema.prefault({}),
    "health-checks": z.record(plainWord, checkSchema).default({}),
  })
  .refine((deployment) => deployment["local-evaluation"] || (deployment["build-on"] ?? "target") === "target", {
    error: "needs local-evaluation, or must be target",
    path: ["build-on"],
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
  int: "a whole number",
  number: "a whole number",
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
  if (path.at(-2) === "health-checks") return Object.keys(checkSchema.shape);
  if (at === "deployment") return Object.keys(deploymentSchema.shape);
  if (at === "sudo") return Object.keys(sudoSchema.shape);
  if (at === "ssh") return Object.keys(sshSchema.shape);
  if (at === "guard") return Object.keys(guardSchema.shape);
  if (at === "secrets") return Object.keys((path.length === 1 ? systemSecretsSchema : secretsSchema).shape);
  return path.includes("files") ? Object.keys(secretSchema.shape) : [];
}
