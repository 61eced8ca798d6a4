// The Taskfile as text. Everything is a string for go-task's reader too: it knows more of YAML's old scalars than ours.
import { Alias, Document, isScalar, Pair, Scalar, YAMLMap, YAMLSeq } from "yaml";
import { escapeUnprintable, needsYamlString } from "./quote.ts";
import type { Shared } from "./steps.ts";
import type { Section, Taskfile } from "./taskfile.ts";

/** Writes the file, the same bytes for the same model. */
export function render({ header, sections, env }: Taskfile): string {
  const document = new Document({}, { version: "1.1", aliasDuplicateObjects: false });
  const write = writer();
  const tasks = new YAMLMap();
  for (const section of sections) addSection(tasks, section, write);
  const root = new YAMLMap();
  const apart = (key: string) => Object.assign(new Scalar(key), { spaceBefore: true });
  root.items = [
    new Pair(new Scalar("version"), write("3.51.1")),
    new Pair(new Scalar("output"), write("prefixed")),
    new Pair(apart("tasks"), tasks),
    new Pair(apart("env"), write(env)),
  ];
  document.contents = root as never;
  const comment = header.map((line) => `# ${line}`.trimEnd()).join("\n");
  const schema = "# yaml-language-server: $schema=https://taskfile.dev/schema.json";
  const text = document.toString({ lineWidth: 0, blockQuote: "literal", flowCollectionPadding: false });
  return `${comment}\n#\n${schema}\n${escapeUnprintable(text)}`;
}

function addSection(tasks: YAMLMap, { title, tasks: own }: Section, write: Write): void {
  Object.entries(own).forEach(([name, task], index) => {
    const key = { spaceBefore: tasks.items.length > 0, ...(index === 0 ? { commentBefore: heading(title) } : {}) };
    tasks.items.push(named(name, write(task), key));
  });
}

const heading = (title: string) => ` ---- ${title} ${"-".repeat(Math.max(4, 100 - title.length))}\n`;

/** A task under its name, which is data: `on` or `1` are strings too. */
function named(name: string, task: unknown, more: Partial<Scalar>): Pair {
  return new Pair(Object.assign(new Scalar(name), { type: "QUOTE_SINGLE" as const, ...more }), task);
}

type Write = (value: unknown) => Scalar | Alias | YAMLMap | YAMLSeq;

/** Turns data into nodes, one for all that is said again. What is Shared gets its anchor where it stands first. */
function writer(): Write {
  const written = new Map<Shared, Scalar | YAMLMap>();
  const plain = new Map<unknown, Scalar>();
  const once = (value: unknown) => {
    const node = plain.get(value) ?? scalar(value);
    plain.set(value, node);
    return node;
  };
  const shared = (value: Shared) => {
    const known = written.get(value);
    if (known) {
      known.anchor = value.anchor;
      return new Alias(value.anchor);
    }
    const node = (typeof value.content === "string" ? scalar(value.content) : write(value.content)) as Scalar | YAMLMap;
    written.set(value, node);
    return node;
  };
  const write: Write = (value) => {
    if (isShared(value)) return shared(value);
    if (Array.isArray(value)) return Object.assign(new YAMLSeq(), { items: value.map(write), flow: isShort(value) });
    if (typeof value !== "object" || value === null) return once(value);
    const map = new YAMLMap();
    map.items = Object.entries(value).map(([key, item]) => new Pair(once(key), write(item)));
    map.flow = isShort(map.items.map((item) => item.value));
    return map;
  };
  return write;
}

const isShared = (value: unknown): value is Shared =>
  typeof value === "object" && value !== null && "anchor" in value && "content" in value;

/** Whether it reads well on one line: a few plain values, such as a call of another task. */
function isShort(values: readonly unknown[]): boolean {
  const texts = values.map((value) => (isScalar(value) ? value.value : value));
  return (
    texts.every((text) => typeof text !== "object" && !String(text).includes("\n")) && texts.join(", ").length < 90
  );
}

function scalar(value: unknown): Scalar {
  const node = new Scalar(value);
  if (typeof value !== "string") return node;
  if (needsYamlString(value)) node.type = "QUOTE_DOUBLE";
  else if (value.includes("\n")) node.type = "BLOCK_LITERAL";
  return node;
}
