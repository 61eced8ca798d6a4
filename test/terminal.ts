/** Commands on a terminal of their own, as util-linux's `script` makes one: typing, hanging up, and what is seen there. */
import { launch } from "./faults.ts";

export type OnTerminal = ReturnType<typeof onTerminal>;

/** Starts a command as leader of the terminal's session; `child` is `script`, which exits with what the command does. */
export function onTerminal(cwd: string, words: string[], env: Record<string, string | undefined> = {}) {
  const command = `exec ${words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ")}`;
  const { child, said, processes, kill } = launch("script", ["-qefc", command, "/dev/null"], {
    cwd,
    env: { TERM: "xterm", SHELL: "/bin/sh", ...env },
    stdin: "pipe",
  });
  /** All of the command's, without `script`. */
  const own = () => processes().filter(({ pid }) => pid !== child.pid);
  return {
    child,
    kill,
    processes: own,
    said: () => said().replaceAll("\r", ""),
    /** The command's own process, whose group is the terminal's. */
    leader: () => own().find(({ parent }) => parent === child.pid)?.pid as number,
    type: (text: string) => child.stdin?.write(text),
    /** The terminal goes away, as when its window is closed. */
    hangUp: () => child.kill("SIGKILL"),
  };
}
