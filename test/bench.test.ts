// What `npm run bench` compares is worth comparing: both files are whole, and name the same tasks; nothing that fails or
// does nothing is measured.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
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
import { type BenchHost, benchHosts } from "../bench/hosts.ts";
import { type Command, less, measureRounds, ratio } from "../bench/measure.ts";
import { sideBySide } from "../bench/realhosts.ts";
import { serve } from "../bench/relay.ts";
import { benchSecrets, deploy, prepareFleet } from "../bench/secrets.ts";
import { upstreamShape } from "../bench/upstream.ts";
import { mustRun, root, run, temporaryDirectory } from "./hosts.ts";

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
