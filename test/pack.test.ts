/** What users install: the packed package, with its dependencies and nothing else of this checkout. */
import { chmodSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { cli, mustRun, root, task, temporaryDirectory } from "./hosts.ts";

let directory: string;
let program: string;
let files: string[];

beforeAll(async () => {
  await cli(["--version"]); // tells if the build is stale
  directory = temporaryDirectory();
  const pack = ["pack", "--json", "--ignore-scripts", "--pack-destination", directory];
  const [packed] = JSON.parse((await mustRun("npm", pack)).stdout);
  files = packed.files.map((file: { path: string }) => file.path);
  await mustRun("tar", ["-xzf", packed.filename], { cwd: directory });
  const home = join(directory, "package");
  const { bin, dependencies } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  mkdirSync(join(home, "node_modules"));
  for (const name of Object.keys(dependencies))
    symlinkSync(join(root, "node_modules", name), join(home, "node_modules", name));
  // as npm does when it installs
  program = join(directory, "lollypops-gen");
  symlinkSync(join(home, bin["lollypops-gen"]), program);
  chmodSync(program, 0o755);
}, 120_000);

test("holds the program and its templates", () => {
  expect(files).toContain("dist/cli.js");
  expect(files).toContain("templates/hosts.nix");
  expect(files).toContain("templates/runtime/main.sh");
  const others = files.filter((file) => !/^(dist|templates)\//.test(file));
  expect(others.filter((file) => !["CHANGELOG.md", "LICENSE", "README.md", "package.json"].includes(file))).toEqual([]);
});

test("its program writes a Taskfile in an empty directory, which task takes", async () => {
  const cwd = temporaryDirectory();
  const hosts = join(root, "fixtures/example/hosts.json");
  await mustRun("sh", ["-c", '"$1" --from "$2" >Taskfile.yml', "sh", program, hosts], { cwd });
  const { stdout } = await task(["--list"], { cwd });
  expect(stdout).toMatch(/^\* deploy-all: +Deploy all 3 hosts in parallel/m);
  const dry = await task(["deploy-all"], { cwd, env: { LOLLYPOPS_DRY_RUN: "1" } });
  expect(dry.exitCode, dry.stderr).toBe(0);
  expect(dry.stdout).toContain("3 of 3 hosts shown");
});

test("its program reads a flake", async () => {
  const cwd = temporaryDirectory();
  const text = "{ outputs = _: { nixosConfigurations.web1.config.lollypops = { }; }; }";
  await mustRun("sh", ["-c", 'printf "%s\\n" "$1" >flake.nix', "sh", text], { cwd });
  const { stdout } = await mustRun(program, ["--flake", `path:${cwd}`], { cwd });
  expect(stdout).toContain("# ---- web1: web1 -");
});
