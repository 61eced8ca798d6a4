/** What `run` does with signals: the real go-task, and steps that are shell with traps. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { describe, expect, test } from "vitest";
import { fromProc, fromPs, type Process, unheard } from "../src/processes.ts";
import { mustRun, root, run, temporaryDirectory } from "./hosts.ts";

// Notes what it hears, and takes its time to clean up by a command of its own. It ends by itself after a long while.
const step = `
trap 'echo "$1 INT" >>log; sleep 0.7 && echo "$1 cleaned" >>log; exit 1' INT
trap 'echo "$1 TERM" >>log; sleep 0.7 && echo "$1 cleaned" >>log; exit 1' TERM
trap 'echo "$1 HUP" >>log; sleep 0.7 && echo "$1 cleaned" >>log; exit 1' HUP
echo "$1 begins" >>log
i=0; while [ $i -lt 200 ]; do i=$((i + 1)); sleep 0.1; done
echo "$1 went on" >>log
`;
const taskfile = (deps: string[], more = "") => `version: '3'
output: prefixed
tasks:
  default: { cmds: [{ defer: 'echo end >>log' }, { task: all }] }
  all: { deps: [${deps.join(", ")}] }
  a: sh ./step a
  b: sh ./step b
  c: sh ./step c
  nested: task -s -C 1 -t nested.yml
${more}`;
const driver = (text: string, args: string[]) => `
import { runTask } from ${JSON.stringify(join(root, "dist/run.js"))};
process.exitCode = await runTask("task", ${JSON.stringify(text)}, ${JSON.stringify(args)});
`;

/** `run` in a process group of its own, on a Taskfile; `before` is what starts it, its last word to follow. */
function start(text: string, args: string[], before: string[] = []) {
  const cwd = temporaryDirectory();
  const tmp = join(cwd, "tmp");
  mkdirSync(tmp);
  writeFileSync(join(cwd, "step"), step);
  writeFileSync(join(cwd, "driver.mjs"), driver(text, args));
  writeFileSync(join(cwd, "nested.yml"), taskfile(["b", "c"]));
  writeFileSync(join(cwd, "log"), "");
  const [command = "", ...words] = [...before, process.execPath, join(cwd, "driver.mjs")];
  const child = spawn(command, words, {
    cwd,
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
    env: { ...process.env, TMPDIR: tmp },
  });
  const log = () => readFileSync(join(cwd, "log"), "utf8").split("\n").slice(0, -1);
  const left = () => readdirSync(tmp).filter((name) => name.startsWith("lollypops-gen-"));
  return { cwd, child, log, left, ended: once(child, "exit") as Promise<[number | null, string | null]> };
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((resolve) => setTimeout(resolve, 20));
}

const group = (child: ChildProcess, signal: NodeJS.Signals) => process.kill(-(child.pid ?? 0), signal);
/** What each of these steps says that hears a signal once, and whose trap is left alone. */
const each = (steps: string[], signal: string) =>
  steps.flatMap((name) => [`${name} ${signal}`, `${name} begins`, `${name} cleaned`]);

describe("a signal", () => {
  test.each<[NodeJS.Signals, number, "alone" | "group"]>([
    ["SIGTERM", 143, "alone"],
    ["SIGTERM", 143, "group"],
    ["SIGHUP", 129, "alone"],
    ["SIGINT", 130, "alone"],
    ["SIGINT", 130, "group"],
  ])("%s: %i, sent to us %s: each step hears it once, those in the queue too", async (signal, code, to) => {
    const { child, log, left, ended } = start(taskfile(["a", "b", "c"]), ["-C", "1"]);
    await until(() => log().some((line) => line.endsWith("begins")));
    if (to === "alone") child.kill(signal);
    else group(child, signal);
    expect(await ended).toEqual([code, null]);
    const lines = log();
    expect(lines.pop()).toBe("end"); // go-task's last act
    expect(lines.sort()).toEqual(each(["a", "b", "c"], signal.slice(3)).sort());
    expect(left()).toEqual([]);
  });

  test("steps that run at once, and a go-task inside of a step", async () => {
    const { child, log, ended } = start(taskfile(["a", "nested"]), []);
    await until(() => log().filter((line) => line.endsWith("begins")).length === 2);
    child.kill("SIGTERM");
    expect(await ended).toEqual([143, null]);
    // the inner one says its own end
    expect(log().sort()).toEqual([...each(["a", "b", "c"], "TERM"), "end", "end"].sort());
  });

  test("once more is told once more", async () => {
    const twice = `trap 'n=$((n + 1)); echo "TERM $n" >>log' TERM; echo begins >>log
      i=0; while [ "\${n:-0}" -lt 2 ] && [ $i -lt 200 ]; do i=$((i + 1)); sleep 0.1; done`;
    const text = `version: '3'\ntasks: { default: { cmds: ['sh ./twice'] } }\n`;
    const { cwd, child, log, ended } = start(text, []);
    writeFileSync(join(cwd, "twice"), twice);
    await until(() => log().length === 1);
    child.kill("SIGTERM");
    await until(() => log().length === 2);
    child.kill("SIGTERM");
    expect(await ended).toEqual([143, null]);
    expect(log()).toEqual(["begins", "TERM 1", "TERM 2"]);
  });

  test("the terminal goes away", async () => {
    const place = start(taskfile(["a"]), [], ["sh", "-c", 'exec script -qec "exec $*" /dev/null', "sh"]);
    await until(() => place.log().length > 0);
    place.child.kill("SIGKILL"); // the terminal is script's
    await until(() => place.log().includes("end") && place.left().length === 0);
    expect(place.log()).toEqual(["a begins", "a HUP", "a cleaned", "end"]);
  });
});

describe("while only tasks of the user's own run, those that wait do not begin, after", () => {
  // As ssh does, it ends with a code of its own.
  const waits = { cmds: ["echo {{.HOSTNAME}} >>log; trap 'exit 255' INT TERM HUP; sleep 60 & wait"], silent: true };
  const host = {
    tasks: ["own"],
    extraTasks: { own: { ...waits, cmds: waits.cmds.map((text) => `sh -c '${text.replaceAll("'", "'\\''")}'`) } },
  };
  test.each<[NodeJS.Signals, "run" | "the group" | "the group of task", number]>([
    ["SIGTERM", "run", 143],
    ["SIGINT", "run", 130],
    ["SIGINT", "the group", 130],
    ["SIGINT", "the group of task", 201],
    ["SIGHUP", "the group of task", 201],
  ])("%s to %s", async (signal, whom, code) => {
    const cwd = temporaryDirectory();
    writeFileSync(join(cwd, "hosts.json"), JSON.stringify({ a: host, b: host, c: host, d: host }));
    const program = join(root, "dist/cli.js");
    const args = ["-C", "2", "deploy-all"];
    const { stdout } = await mustRun(process.execPath, [program, "--from", "hosts.json"], { cwd });
    writeFileSync(join(cwd, "Taskfile.yml"), stdout);
    const call =
      whom === "the group of task"
        ? ["task", ...args]
        : [process.execPath, program, "run", "--from", "hosts.json", "--", ...args];
    const [command = "", ...words] = call;
    const env = { ...process.env, XDG_RUNTIME_DIR: temporaryDirectory(), LOLLYPOPS_RESULTS: join(cwd, "results") };
    const child = spawn(command, words, { cwd, env, detached: true, stdio: "ignore" });
    const ended = once(child, "exit");
    const log = () =>
      existsSync(join(cwd, "log")) ? readFileSync(join(cwd, "log"), "utf8").split("\n").length - 1 : 0;
    await until(() => log() === 2);
    if (whom === "run") child.kill(signal);
    else group(child, signal);
    expect(await ended).toEqual([code, null]);
    const results = readFileSync(join(cwd, "results"), "utf8").trimEnd().split("\n");
    expect([log(), results.map((line) => JSON.parse(line).outcome)]).toEqual([2, Array(4).fill("interrupted")]);
  });
});

describe("who is told", () => {
  const table = (text: string): Process[] =>
    text.split(" ").map((one) => {
      const [pid, parent, program = "sh"] = one.split("-");
      return { pid: Number(pid), parent: Number(parent), program };
    });
  const all = table("1-0 2-1 10-2-task 11-10 12-11-ssh 13-10 14-13-task 15-14 30-1-sleep");

  test.each<[string, number[], number[], number[]]>([
    ["at first all below", [], [], [10, 11, 12, 13, 14, 15]],
    ["nobody twice", [10, 11, 12, 13, 14, 15], [], []],
    ["what go-task has started, and all below that", [10, 13, 14, 15], [11], [11, 12]],
    ["not what has only just begun", [10, 13, 14, 15], [], []],
    ["not what one that has heard starts", [10, 11, 13, 14, 15], [12], []],
    ["what a go-task below has started", [10, 11, 12, 13, 14], [15], [15]],
  ])("%s", (_, heard, known, expected) => {
    expect(unheard(all, 10, new Set(heard), new Set(known))).toEqual(expected);
    expect(unheard(all.toReversed(), 10, new Set(heard), new Set(known)).sort()).toEqual(expected);
  });

  test("nobody when go-task has ended", () => expect(unheard(all, 99, new Set(), new Set())).toEqual([]));
});

describe("the processes of this machine", () => {
  const ours = { pid: process.pid, parent: process.ppid };

  test.runIf(process.platform === "linux")("in /proc", () => {
    expect(fromProc()).toContainEqual(expect.objectContaining(ours));
  });

  test("in ps", async () => expect(await fromPs()).toContainEqual(expect.objectContaining(ours)));

  test("in busybox's ps", async () => {
    const cwd = temporaryDirectory();
    symlinkSync((await mustRun("sh", ["-c", "command -v busybox"])).stdout.trim(), join(cwd, "ps"));
    const script = `import { fromPs } from ${JSON.stringify(join(root, "dist/processes.js"))};
      console.log(JSON.stringify((await fromPs()).find(({ pid }) => pid === process.pid)));`;
    const env = { PATH: [cwd, process.env["PATH"]].join(delimiter) };
    const { stdout } = await run(process.execPath, ["--input-type=module", "-e", script], { env });
    expect(JSON.parse(stdout)).toMatchObject({ parent: process.pid, program: "node" });
  });
});
