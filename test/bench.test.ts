// What `npm run bench` compares is worth comparing: both files are whole, and name the same tasks; nothing that fails or
// does nothing is measured.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { dirname, join } from "node:path";
import { beforeAll, expect, test, vi } from "vitest";
import {
  benchDeploy,
  checkUnchanged,
  deploy as deployAll,
  prepareFlake,
  prepareFleet as prepareFleets,
} from "../bench/deploy.ts";
import { deploymentCalls, prepareFleet as preparePlain, readTaskfile, xargs } from "../bench/fleet.ts";
import { type BenchHost, benchHosts, secondsOf, simulatedHosts } from "../bench/hosts.ts";
import { type Command, less, measureRounds, ratio } from "../bench/measure.ts";
import { sideBySide } from "../bench/realhosts.ts";
import { serve } from "../bench/relay.ts";
import { idealSeconds, prepareFleet as prepareSimulated, simulate } from "../bench/scale.ts";
import { benchSecrets, deploy, prepareFleet } from "../bench/secrets.ts";
import { upstreamShape } from "../bench/upstream.ts";
import { descendants, parseStat, usage } from "../bench/usage.ts";
import { mustRun, root, run, temporaryDirectory } from "./hosts.ts";

process.env["NO_COLOR"] = "1"; // go-task paints its prefixes where CI is set

const hosts = benchHosts(20);
const directories: Record<"ours" | "upstream", string> = { ours: "", upstream: "" };

async function tasksOf(cwd: string): Promise<string[]> {
  const { stdout } = await mustRun("task", ["--list-all", "--json", "--no-status"], { cwd });
  return JSON.parse(stdout).tasks.map(({ name }: { name: string }) => name);
}

function writeFiles(directory: string, files: Readonly<Record<string, string>>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), text);
  }
}

beforeAll(async () => {
  directories.ours = temporaryDirectory();
  writeFiles(directories.ours, { "hosts.json": JSON.stringify(hosts) });
  const { stdout } = await mustRun(process.execPath, [join(root, "dist/cli.js"), "--from", "hosts.json"], {
    cwd: directories.ours,
  });
  writeFiles(directories.ours, { "Taskfile.yml": stdout });
  directories.upstream = temporaryDirectory();
  writeFiles(directories.upstream, upstreamShape(hosts, "."));
});

test("the bench's fleet is what it says", () => {
  const all: BenchHost[] = Object.values(hosts);
  expect(Object.keys(hosts)).toHaveLength(20);
  expect(new Set(all.map(({ deployment }) => deployment.group)).size).toBe(6);
  expect(all.map(({ secrets }) => Object.keys(secrets.files).length)).toEqual(all.map(() => 10));
  expect(all.filter(({ extraTasks }) => "backup" in extraTasks)).toHaveLength(2);
});

test("go-task loads both files, with the same tasks of every host", async () => {
  const expected = Object.entries(hosts).flatMap(([name, { extraTasks }]) =>
    ["check-vars", "deploy-flake", "deploy-secrets", "rebuild", ...Object.keys(extraTasks)].map(
      (task) => `${name}:${task}`,
    ),
  );
  const names = [...Object.keys(hosts), "build", "cache", "db", "edge", "mail", "web"];
  const theirs = await tasksOf(directories.upstream);
  expect(theirs.toSorted()).toEqual([...expected, ...names, "all"].toSorted());
  expect(await tasksOf(directories.ours)).toEqual(expect.arrayContaining([...expected, ...names]));
});

test("upstream's shape fills in the host's own variables, and LP_ ones", async () => {
  const dry = async (...args: string[]) =>
    (await run("task", ["--dry", ...args], { cwd: directories.upstream })).stderr;
  const plain = await dry("web2", "-v");
  expect(plain).toContain("ssh -p 2222 root@web2.example.org");
  expect(plain).toContain("pass show web2/tls-key");
  expect(plain).not.toContain("{{");
  expect(await dry("web2:rebuild", "-v", "LP_REMOTE_HOST=10.0.0.1")).toContain("root@10.0.0.1");
});

test("rounds take the commands in turn, after what isn't measured of each", () => {
  const cwd = temporaryDirectory();
  const command = (name: string): Command => ({
    argv: ["sh", "-c", `echo ${name} >>log`],
    cwd,
    before: () => writeFileSync(join(cwd, "log"), `before ${name}\n`, { flag: "a" }),
  });
  const times = measureRounds({ a: command("a"), b: command("b") }, 2);
  expect(readFileSync(join(cwd, "log"), "utf8")).toBe("before a\na\nbefore b\nb\n".repeat(3));
  expect([times.a.length, times.b.length]).toEqual([2, 2]);
  expect([less([3, 9], [1, 2]), ratio([2, 9, 4], [1, 3, 1])]).toEqual([[2, 7], 3]);
});

test("commands side by side run at the same time, and fail if one of them does", () => {
  const cwd = temporaryDirectory();
  const there = "until [ -e b ]; do sleep 0.01; done";
  expect(() => measureRounds({ one: sideBySide(cwd, [there, ": >b"]) }, 1)).not.toThrow();
  expect(() => measureRounds({ one: sideBySide(cwd, ["true", "false", "true"]) }, 1)).toThrow();
});

test("both sides deploy the same secrets, and ours is called as go-task calls it", async () => {
  const fleet = prepareFleet(temporaryDirectory(), "/etc/none");
  const dry = async (cwd: string) => (await run("task", ["--dry", "-v", "web8:deploy-secrets"], { cwd })).stderr;
  const [ours, theirs] = [await dry(fleet.ours), await dry(fleet.upstream)];
  const commands = (text: string) => text.match(/cat "[^"]*"/g)?.toSorted();
  expect(commands(ours)).toHaveLength(20);
  expect(commands(theirs)).toEqual(commands(ours));
  expect(theirs.match(/ssh -F \/etc\/none root@pop8/g)).toHaveLength(60);
  const { argv, env } = deploy(fleet, ["web8"]);
  expect(ours).toContain(String(argv[2]).replace("exec ", ""));
  expect(Object.values(env ?? {}).join("\n")).not.toContain("{{");
});

test("both sides deploy the same systems of the same source", async () => {
  const directory = temporaryDirectory();
  const fleet = prepareFleets(directory, prepareFlake(join(directory, "flake")), ["-F", "/etc/none"]);
  const dry = async (way: string) => {
    const { argv, cwd } = deployAll(fleet, way, ["web1", "web2"]);
    return (await run("task", ["--dry", "-v", ...argv.slice(1)], { cwd })).stderr;
  };
  const theirs = (await dry("upstream")).match(/--to ssh:\/\/root@pop\d \S+/g);
  expect(theirs?.toSorted()).toEqual(
    [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `--to ssh://root@pop${number} ${fleet.source}`),
  );
  for (const way of ["shared", "apart", "secrets"]) {
    const ours = await dry(way);
    expect(ours.match(/ rebuild --host web\d --to root@pop\d/g)).toHaveLength(8);
    expect(ours.match(/ --no-multiplex /g) ?? []).toHaveLength(way === "apart" ? 24 : 0);
    expect(ours).toContain(`--flake ${fleet.flake}`);
  }
});

test("a deployment that was to do nothing is refused when it did something", () => {
  const said = "[web1] rebuild: unchanged, /nix/store/a\n";
  expect(() => checkUnchanged(said, ["web1"])).not.toThrow();
  expect(() => checkUnchanged(`${said}[web2] rebuild: switched to /nix/store/b\n`, ["web1", "web2"])).toThrow(
    "switched",
  );
});

test("a slow link brings all bytes, as late as it should", async () => {
  const echo = createServer((socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
  const far = { host: "127.0.0.1", port: (echo.address() as AddressInfo).port, milliseconds: 40 };
  const { link, port } = await new Promise<{ link: Server; port: number }>((resolve) => {
    const link = serve(far, (port) => resolve({ link, port }));
  });
  const since = performance.now();
  const came: Buffer[] = [];
  for await (const piece of connect(port, "127.0.0.1").end(Buffer.alloc(300_000, "abc"))) came.push(piece);
  expect(Buffer.concat(came).equals(Buffer.alloc(300_000, "abc"))).toBe(true);
  expect(performance.now() - since).toBeGreaterThan(79);
  for (const server of [echo, link]) server.close();
});

test("without test hosts the bench says so, in one line each", async () => {
  vi.stubEnv("LOLLYPOPS_NO_HOSTS", "1");
  const print = vi.spyOn(console, "log").mockReturnValue();
  await benchSecrets(temporaryDirectory());
  await benchDeploy(temporaryDirectory());
  expect(print.mock.calls).toEqual([
    [expect.stringMatching(/^secrets to real hosts +not measured: .* root on Linux$/)],
    [expect.stringMatching(/^deployments of real hosts +not measured: .* root on Linux$/)],
  ]);
});

test("xargs starts the very calls that go-task does, and they say the same", async () => {
  const cwd = preparePlain(temporaryDirectory(), 3, ["check-vars"]);
  const taskfile = readTaskfile(cwd);
  const calls = deploymentCalls(taskfile);
  const dry = (await run("task", ["--dry", "-v", "deploy-all"], { cwd })).stderr;
  expect(dry.match(/check-vars --host h\d+ .*/g)?.toSorted()).toEqual(calls);
  const { argv, env } = xargs(cwd, taskfile, calls, {});
  expect(Object.values(env ?? {}).join("\n")).not.toContain("{{");
  const others = await mustRun(argv[0], argv.slice(1), { cwd, env: { ...env } });
  const ours = await mustRun("task", ["deploy-all"], { cwd });
  expect(others.stdout).toBe("check-vars: ok\n".repeat(3));
  expect(ours.stdout.match(/(?<=^\[h\d+\] )check-vars: .*\n/gm)?.join("")).toBe(others.stdout);
});

test("xargs starts the usual steps too, and they say the same in a dry run", async () => {
  const cwd = preparePlain(temporaryDirectory(), 2);
  const taskfile = readTaskfile(cwd);
  const calls = deploymentCalls(taskfile);
  expect(calls.map((call) => call.split(" ")[0])).toEqual([
    "deploy-flake",
    "deploy-secrets",
    "rebuild",
    "deploy-flake",
    "deploy-secrets",
    "rebuild",
  ]);
  const dry = { LOLLYPOPS_DRY_RUN: "1" };
  const { argv, env } = xargs(cwd, taskfile, calls, dry);
  const lines = (text: string) =>
    text
      .split("\n")
      .filter((line) => line.includes("nixos-rebuild-switch"))
      .toSorted();
  const [others, ours] = [
    await mustRun(argv[0], argv.slice(1), { cwd, env: { ...env } }),
    await mustRun("task", ["deploy-all"], { cwd, env: dry }),
  ];
  expect(lines(others.stdout + others.stderr)).toHaveLength(4);
  expect(lines((ours.stdout + ours.stderr).replace(/^\[h\d+\] /gm, ""))).toEqual(lines(others.stdout + others.stderr));
});

test("simulated hosts take 1 to 3 seconds, in all as many as the ideal says", () => {
  const seconds = Array.from({ length: 1000 }, (_, index) => secondsOf(index));
  expect([Math.min(...seconds) >= 1, Math.max(...seconds) <= 3]).toEqual([true, true]);
  const waits = Object.values(simulatedHosts(1000, "ssh")).map(({ deployment }) =>
    Number(deployment.ssh.command.split(" ")[1]),
  );
  const sum = waits.reduce((total, wait) => total + 3 * wait, 0);
  expect(idealSeconds(1000, 50)).toBeCloseTo(sum / 50, 1);
});

test("a simulated fleet is deployed by the real runtime, each host with its three steps", async () => {
  const fleet = prepareSimulated(temporaryDirectory(), 2);
  const used = await simulate(fleet, 2, 2);
  expect(used.seconds).toBeGreaterThanOrEqual(secondsOf(1));
  const log = readFileSync(join(fleet.directory, "log"), "utf8");
  expect(log.match(/^\[h0000[01]\] (deploy-flake|deploy-secrets|rebuild): .*unchanged/gm)).toHaveLength(6);
});

test("a simulation in which a host fails is not measured", async () => {
  const fleet = prepareSimulated(temporaryDirectory(), 2);
  const input = join(fleet.directory, "hosts.json");
  writeFileSync(input, readFileSync(input, "utf8").replace("echo age-key", "false"));
  await expect(simulate(fleet, 2, 2)).rejects.toThrow("deploy-all");
});

test("what stands for ssh runs nothing of what it is sent, and refuses a program that it does not know", async () => {
  const cwd = temporaryDirectory();
  const text = "touch here\n";
  const words = ["0", "-T", "--", "host", `text=$(head -c ${text.length}); eval "$text"`];
  const { exitCode, stdout } = await run(join(root, "bench/standin.sh"), words, { cwd, input: `gate\nmark\n${text}` });
  expect([exitCode, stdout]).toEqual([1, expect.stringContaining("does not know this program")]);
  expect(existsSync(join(cwd, "here"))).toBe(false);
});

test("the use of a command is told with that of what it starts; one that fails has its words told", async () => {
  const cwd = temporaryDirectory();
  const used = await usage({ argv: ["sh", "-c", "sleep 4 & sleep 4 & wait"], cwd });
  expect(used).toMatchObject({ processes: 2 });
  expect(used.memory).toBeGreaterThan(0);
  expect(used.theirs).toBeGreaterThan(0);
  await expect(usage({ argv: ["sh", "-c", "echo no such host >&2; false"], cwd })).rejects.toThrow("no such host");
});

test("a line of /proc is read whatever the program is called", () => {
  const times = "4194304 100 0 0 0 150 50 1000 300 20 0 1 0";
  expect(parseStat(`7 (a) S 1 (b)) S 5 7 7 0 -1 ${times}`)).toEqual({ name: "a) S 1 (b)", parent: 5, cpu: 15 });
  expect(parseStat("")).toBeUndefined();
});

test("what a process has started is all below it", () => {
  const parents = new Map([
    [1, 0],
    [2, 1],
    [3, 1],
    [4, 3],
    [5, 4],
    [6, 9],
  ]);
  expect(descendants(3, parents)).toEqual([4, 5]);
  expect(descendants(1, parents).toSorted()).toEqual([2, 3, 4, 5]);
  expect(descendants(2, parents)).toEqual([]);
});
