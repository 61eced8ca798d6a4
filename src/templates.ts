// What ends up in front of the user is kept in its own language under templates/: shell, YAML and Nix.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";

/**
 * The shell runtime of the Taskfile: `hash` is part of its variables' names, so that no other version is picked up. `text` runs
 * on the control machine; `targets` holds the programs that it sends to targets, each as a function that prints it.
 */
export type Runtime = {
  readonly hash: string;
  readonly text: string;
  readonly targets: string;
  readonly settings: readonly string[];
};

/** What the templates hold: the runtime, and for each built-in step the summary of what it does. */
export type Templates = { readonly runtime: Runtime; readonly summaries: Readonly<Record<string, string>> };

const root = fileURLToPath(new URL("../templates/", import.meta.url));

/** Reads the templates that make a Taskfile. */
export async function readTemplates(): Promise<Templates> {
  const files = (await readdir(root, { recursive: true })).filter((file) =>
    /^runtime.*\.sh$|^tasks.*\.yml$/.test(file),
  );
  const texts = await Promise.all(files.sort().map(async (file) => [file, await readTemplate(file)] as const));
  const tasks = texts.filter(([file]) => file.startsWith("tasks/"));
  return {
    runtime: assembleRuntime(Object.fromEntries(texts.filter(([file]) => file.startsWith("runtime/")))),
    summaries: Object.fromEntries(tasks.map(([file, text]) => [basename(file, ".yml"), parse(text).summary])),
  };
}

/** One template, as text. */
export async function readTemplate(file: string): Promise<string> {
  return readFile(new URL(file, `file://${root}`), "utf8");
}

/** One program of all files, in which main.sh comes last, and one of those of targets: a variable has room for 128 KiB. */
export function assembleRuntime(files: Readonly<Record<string, string>>): Runtime {
  const texts = Object.entries(files).map(
    ([file, text]) => [file, text.replace(/^ *# shellcheck .*\n/gm, "")] as const,
  );
  const isTarget = ([file]: readonly [string, string]) => file.startsWith("runtime/target/");
  const isMain = ([file]: readonly [string, string]) => file === "runtime/main.sh";
  const here = texts.filter((part) => !isTarget(part));
  const text = [...here.filter((part) => !isMain(part)), ...here.filter(isMain)].map(([, part]) => part).join("\n");
  const targets = texts
    .filter(isTarget)
    .map(([file, program]) => `target_${basename(file, ".sh")}() { cat <<'TARGET'\n${program}TARGET\n}\n`)
    .join("\n");
  const settings = [...new Set(text.match(/^settings='([^']*)'$/m)?.[1]?.split(" "))];
  const hash = createHash("sha256").update(text).update(targets).digest("hex").slice(0, 6);
  return { hash, settings, text: text.replaceAll("@HASH@", hash), targets };
}
