// What `npm run bench` compares is worth comparing: both files are whole, and name the same tasks.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { type BenchHost, benchHosts } from "../bench/hosts.ts";
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
