// A task as go-task 3.54 reads it. go-task itself passes over a key that it does not know, or not in that place,
// without a word: here that is an error.
import { z } from "zod";
import { didYouMean } from "./nearest.ts";

const text = z.string();
const filled = text.min(1, "must not be empty");
const flag = z.boolean();
const texts = z.array(text);
const quoted = (key: string) => `\`${key}\``;

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const has = (value: unknown, key: string) => isMap(value) && Object.hasOwn(value, key);

/** Reads a value by the one schema that its look asks for, so that a mistake is told in terms of what was meant. */
const choose = <T extends z.ZodType>(pick: (value: unknown) => T) =>
  z.unknown().transform((input, context): z.output<T> => {
    const result = pick(input).safeParse(input, { error: explain });
    if (result.success) return result.data;
    for (const { path, message } of result.error.issues) context.issues.push({ code: "custom", path, message, input });
    return z.NEVER;
  });

/** A map of these keys only; `where` ends the sentence about a key that belongs elsewhere. */
const map = <T extends z.ZodRawShape>(where: string, shape: T) => {
  const keys = Object.keys(shape);
  for (const key of keys) knownKeys.add(key);
  const unknown = (key: string) =>
    knownKeys.has(key)
      ? `go-task ignores ${quoted(key)} ${where}`
      : `unknown key ${quoted(key)}${didYouMean(key, keys) || `; known here: ${keys.map(quoted).join(", ")}`}`;
  return z.strictObject(shape, {
    error: (issue) => (issue.code === "unrecognized_keys" ? issue.keys.map(unknown).join("\n") : explain(issue)),
  });
};
const knownKeys = new Set<string>();

const types: Record<string, string> = {
  string: "a text",
  boolean: "true or false",
  array: "a list",
  object: "a map",
  record: "a map",
};

/** One clause about what is wrong with a value. */
function explain(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === "invalid_value") return `must be ${issue.values.map((value) => quoted(String(value))).join(", ")}`;
  if (issue.code !== "invalid_type") return undefined;
  if (issue.input === undefined) return "is missing";
  const { input } = issue;
  const kind = Array.isArray(input) ? "array" : typeof input;
  return `must be ${types[issue.expected] ?? issue.expected}, not ${input === null ? "null" : (types[kind] ?? `a ${kind}`)}`;
}

const duration = text.refine(
  (value) => /^\+?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.test(value) && /[1-9]/.test(value),
  "must be a time above zero, such as `90s` or `5m`",
);

const systems = new Set(
  "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos".split(
    " ",
  ),
);
const machines = new Set(
  `386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc ppc64
   ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm`.split(/\s+/),
);
const platforms = z.array(
  text.refine((value) => {
    const [first = "", second, ...rest] = value.split("/");
    if (second === undefined) return systems.has(first) || machines.has(first);
    return rest.length === 0 && systems.has(first) && machines.has(second);
  }, "must be an OS, an architecture or both as Go names them, such as `linux`, `arm64` or `linux/amd64`"),
);

const setOptions = z.array(
  z.enum(["allexport", "a", "errexit", "e", "noexec", "n", "noglob", "f", "nounset", "u", "xtrace", "x", "pipefail"]),
);
const shoptOptions = z.array(z.enum(["dotglob", "expand_aliases", "extglob", "globstar", "nocaseglob", "nullglob"]));

const scalar = z.union([text, z.number(), flag], { error: "must be a text, a number, true or false, a list or a map" });
const variableMap = map("in a variable", {
  sh: text.optional(),
  ref: text.optional(),
  map: z.record(text, z.unknown()).optional(),
  value: z.unknown().optional(),
  secret: flag.optional(),
}).refine((value) => ["sh", "ref", "map", "value"].filter((key) => has(value, key)).length === 1, {
  error: "takes exactly one of `sh`, `ref`, `map` and `value`",
  when: ({ issues }) => issues.length === 0,
});
const variable = choose((value) => {
  if (Array.isArray(value)) return z.array(z.unknown());
  return isMap(value) ? variableMap : scalar;
});
const variables = z.record(text, variable);

const reference = map("beside `ref`", { ref: filled });
const matrixRow = choose((value) => (isMap(value) ? reference : z.array(z.unknown())));
const matrix = z.record(text, matrixRow).refine((rows) => Object.keys(rows).length > 0, "must not be empty");
const forVariable = map("beside `var`", { var: filled, split: text.optional(), as: text.optional() });
const forMatrix = map("beside `matrix`", { matrix, as: text.optional() });
const loop = choose((value) => {
  if (Array.isArray(value)) return z.array(z.unknown());
  if (!isMap(value)) return z.enum(["sources", "generates"]);
  return has(value, "var") ? forVariable : forMatrix;
});

const commandMap = map("on a command", {
  cmd: filled,
  for: loop.optional(),
  if: text.optional(),
  silent: flag.optional(),
  ignore_error: flag.optional(),
  timeout: duration.optional(),
  platforms: platforms.optional(),
  set: setOptions.optional(),
  shopt: shoptOptions.optional(),
});
const callMap = map("on a call of a task", {
  task: filled,
  vars: variables.optional(),
  for: loop.optional(),
  if: text.optional(),
  silent: flag.optional(),
  ignore_error: flag.optional(),
  timeout: duration.optional(),
});
const deferredCall = map("in a deferred call", { task: filled, vars: variables.optional(), silent: flag.optional() });
const deferCommand = map("on a deferred command", {
  defer: filled,
  silent: flag.optional(),
  timeout: duration.optional(),
});
const deferCall = map("beside `defer` with a task", { defer: deferredCall, timeout: duration.optional() });

const command = choose((value) => {
  if (!isMap(value)) return text;
  if (has(value, "defer")) return isMap(value["defer"]) ? deferCall : deferCommand;
  return has(value, "task") ? callMap : commandMap;
});
const dependencyMap = map("on a dependency", {
  task: filled,
  vars: variables.optional(),
  for: loop.optional(),
  silent: flag.optional(),
  timeout: duration.optional(),
});
const dependency = choose((value) => (isMap(value) ? dependencyMap : filled));

const excluded = map("in a pattern", { exclude: filled });
const globs = z.array(choose((value) => (isMap(value) ? excluded : text)));
const preconditionMap = map("in a precondition", { sh: filled, msg: text.optional() });
const precondition = choose((value) => (isMap(value) ? preconditionMap : filled));
const requiredMap = map("in a required variable", {
  name: filled,
  enum: choose((value) => (isMap(value) ? reference : texts)).optional(),
});
const required = choose((value) => (isMap(value) ? requiredMap : filled));

const alias = text.regex(
  /^:?[A-Za-z0-9_][\w.@*:-]*$/,
  "may hold letters, digits and `_.@*:-` only: go-task reads it as a regular expression",
);
/** A fixed choice, or a template that go-task resolves. */
const oneOf = <const T extends readonly [string, ...string[]]>(choices: T) =>
  choose((value) => (typeof value === "string" && value.includes("{{") ? text : z.enum(choices)));

const taskMap = map("on a task", {
  desc: text.optional(),
  summary: text.optional(),
  label: text.optional(),
  prefix: text.optional(),
  aliases: z.array(alias).optional(),
  internal: flag.optional(),
  interactive: flag.optional(),
  silent: flag.optional(),
  watch: flag.optional(),
  run: oneOf(["always", "once", "when_changed"]).optional(),
  prompt: choose((value) => (Array.isArray(value) ? texts : text)).optional(),
  if: text.optional(),
  platforms: platforms.optional(),
  requires: map("in `requires`", { vars: z.array(required) }).optional(),
  preconditions: z.array(precondition).optional(),
  method: oneOf(["checksum", "timestamp", "none"]).optional(),
  sources: globs.optional(),
  generates: globs.optional(),
  use_gitignore: flag.optional(),
  status: texts.optional(),
  dir: text.optional(),
  dotenv: texts.optional(),
  env: variables.optional(),
  vars: variables.optional(),
  set: setOptions.optional(),
  shopt: shoptOptions.optional(),
  ignore_error: flag.optional(),
  failfast: flag.optional(),
  deps: z.array(dependency).optional(),
  cmds: z.array(command).optional(),
  cmd: z
    .unknown()
    .refine((value) => !Array.isArray(value), { error: "must be one command; a list is `cmds`", abort: true })
    .pipe(command)
    .optional(),
})
  .refine((value) => !(has(value, "cmd") && has(value, "cmds")), "has both `cmd` and `cmds`; go-task takes one of them")
  .transform(({ cmd, ...rest }) => (cmd === undefined ? rest : { ...rest, cmds: [cmd] }));

const commandList = z.array(command).transform((cmds): z.output<typeof taskMap> => ({ cmds }));
const oneCommand = text.transform((cmd): z.output<typeof taskMap> => ({ cmds: [cmd] }));

/** A task, also in go-task's short forms (one command, or a list); the result is always the long form. */
export const taskSchema = choose((value) => {
  if (Array.isArray(value)) return commandList;
  return typeof value === "string" ? oneCommand : taskMap;
});

/** A task in its long form. */
export type TaskBody = z.output<typeof taskMap>;
/** One entry of `cmds`. */
export type Command = z.output<typeof command>;
/** One entry of `deps`. */
export type Dependency = z.output<typeof dependency>;
