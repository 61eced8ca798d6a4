// What ends up in front of the user is kept in its own language under templates/: shell, YAML and Nix.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";

/** The shell runtime of the Taskfile: `hash` is part of its variables' names, so that no other version is picked up. */
export type Runtime = { readonly hash: string; readonly text: string; readonly settings: readonly string[] };

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

/** One program of all files: what runs on a target becomes a function that prints it, and main.sh comes last. */
export function assembleRuntime(files: Readonly<Record<string, string>>): Runtime {
  const names = Object.keys(files).filter((file) => file !== "runtime/main.sh");
  const parts = [...names, "runtime/main.sh"].map((file) => {
    const text = (files[file] ?? "").replace(/^ *# shellcheck .*\n/gm, "");
    if (!file.startsWith("runtime/target/")) return text;
    return `target_${basename(file, ".sh")}() { cat <<'TARGET'\n${text}TARGET\n}\n`;
  });
  const text = parts.join("\n");
  const settings = [...new Set(text.match(/^settings='([^']*)'$/m)?.[1]?.split(" "))];
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 6);
  return { hash, settings, text: text.replaceAll("@HASH@", hash) };
}
