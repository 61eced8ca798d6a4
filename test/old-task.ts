/** A real go-task from before 3.51.1, to see what is said to it. */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { mustRun, root, run } from "./hosts.ts";

/** The directory that holds the program `task` of this version; kept in .cache. Throws if it cannot be had. */
export async function oldTask(version: string): Promise<string> {
  const directory = join(root, ".cache", `go-task-${version}`);
  const program = join(directory, "task");
  if (existsSync(program)) return directory;
  const fresh = `${directory}.${process.pid}`;
  mkdirSync(fresh, { recursive: true });
  try {
    if (!(await fromPypi(version, fresh))) await fromGo(version, fresh);
    mkdirSync(directory, { recursive: true });
    renameSync(join(fresh, "task"), program);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
  return directory;
}

/** The wheel holds the released binary. */
async function fromPypi(version: string, directory: string): Promise<boolean> {
  const download = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", directory];
  const { exitCode } = await run("python3", [...download, `go-task-bin==${version}`]);
  const wheel = readdirSync(directory).find((file) => file.endsWith(".whl"));
  if (exitCode !== 0 || wheel === undefined) return false;
  await mustRun("python3", ["-m", "zipfile", "-e", join(directory, wheel), directory]);
  await mustRun("sh", ["-c", 'mv "$1"/*/scripts/task "$1" && chmod +x "$1/task"', "sh", directory]);
  return true;
}

async function fromGo(version: string, directory: string): Promise<void> {
  await mustRun("go", ["install", `github.com/go-task/task/v3/cmd/task@v${version}`], { env: { GOBIN: directory } });
}
