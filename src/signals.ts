// What `run` hears while go-task runs, handed on: go-task tells its children nothing, and starts what is queued all the same.
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { processes, unheard } from "./processes.ts";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const everyMs = 200;

/**
 * Hears signals from its making to `end`. What comes is sent once to all that go-task has started and still starts; what
 * comes again is sent again. Never to the process group, which may be that of a script that called us.
 */
export class Relay {
  /** The last signal that came. */
  got: NodeJS.Signals | undefined;
  #task: number | undefined;
  #heard: ReadonlySet<number> = new Set();
  #known: ReadonlySet<number> = new Set();
  #witness = new Witness();
  #again: NodeJS.Timeout | undefined;
  #work: Promise<void> = Promise.resolve();
  #beginning: NodeJS.Signals | undefined;

  constructor() {
    for (const signal of signals) process.on(signal, this.#hear);
  }

  /** From now on this process of go-task is the one to tell. */
  follow(task: number | undefined): void {
    this.#task = task;
  }

  /** go-task has ended: nothing is heard or sent any more. */
  async end(): Promise<void> {
    this.#task = undefined;
    clearInterval(this.#again);
    for (const signal of signals) process.off(signal, this.#hear);
    await this.#work;
    this.#witness.end();
  }

  #hear = (signal: NodeJS.Signals): void => {
    // `timeout` tells us alone, and then the whole group
    if (this.#beginning === signal) return;
    this.#beginning = signal;
    this.got = signal;
    clearInterval(this.#again);
    this.#next(() => this.#begin(signal));
    this.#again = setInterval(() => this.#next(() => this.#spread(signal)), everyMs);
  };

  #next(work: () => Promise<void>): void {
    this.#work = this.#work.then(work);
  }

  async #begin(signal: NodeJS.Signals): Promise<void> {
    const all = await processes();
    this.#known = new Set(all.map(({ pid }) => pid));
    this.#heard = new Set();
    const group = await this.#witness.heard(signal);
    this.#beginning = undefined;
    if (!group) return this.#spread(signal);
    this.#witness = new Witness();
    if (this.#task !== undefined) this.#heard = new Set(unheard(all, this.#task, this.#heard, this.#known));
  }

  async #spread(signal: NodeJS.Signals): Promise<void> {
    const all = await processes();
    if (this.#task === undefined) return;
    const told = unheard(all, this.#task, this.#heard, this.#known);
    for (const pid of told) send(pid, signal);
    this.#known = new Set(all.map(({ pid }) => pid));
    // a number that is free again may come to name another process
    this.#heard = new Set([...this.#heard, ...told].filter((pid) => this.#known.has(pid)));
  }
}

/**
 * Ctrl-C, and `timeout`, tell the whole process group; `kill` and most supervisors tell us alone. A second signal makes a step end
 * at once, so nobody may get one of them twice. Which it was shows in a child that does nothing: it dies of what all were sent.
 */
class Witness {
  #child: ChildProcess;
  #died: Promise<unknown>;

  constructor() {
    this.#child = spawn("cat", { stdio: ["pipe", "ignore", "ignore"] });
    this.#died = new Promise((resolve) => {
      this.#child.once("exit", (_, signal) => resolve(signal));
      this.#child.once("error", resolve); // without it all is handed on
    });
  }

  async heard(signal: NodeJS.Signals): Promise<boolean> {
    return (await Promise.race([this.#died, sleep(300)])) === signal;
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it has ended, or is another user's
  }
}
