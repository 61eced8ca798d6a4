// The notes that a run of our Taskfile keeps while go-task runs it; templates/runtime/run.sh says where they are.
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Has no further step of this go-task begin, be it ours or a task of the user's own. Without notes there is nothing to stop. */
export function stopRun(task: number, signal: NodeJS.Signals): void {
  const runs = runsDirectory();
  for (const name of namesIn(runs)) {
    const run = join(runs, name);
    if (name.startsWith(`${task}-`) && isOurs(run)) writeFileSync(join(run, "stop"), `${signal.replace(/^SIG/, "")}\n`);
  }
}

/** As `find_run` does it: a socket's path has to be short. */
function runsDirectory(): string {
  const own = process.env["XDG_RUNTIME_DIR"];
  if (own && isOurs(own)) return join(own, "lollypops");
  const shared = process.env["TMPDIR"] || "/tmp";
  return join(shared.length <= 40 ? shared : "/tmp", `lollypops-${process.geteuid?.()}`);
}

function namesIn(directory: string): string[] {
  return isOurs(directory) ? readdirSync(directory) : [];
}

/** What another user made in a directory of all users is not to be written to. */
function isOurs(directory: string): boolean {
  const found = statSync(directory, { throwIfNoEntry: false });
  return found?.isDirectory() === true && found.uid === process.geteuid?.();
}
