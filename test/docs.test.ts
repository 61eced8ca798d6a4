// What README and docs/ tell a reader to type is typed here, in the directory of a fleet; nothing is deployed.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { type Fleet, fleet, mustRun, root, run } from "./hosts.ts";

const pages = ["README.md", ...readdirSync(join(root, "docs")).map((page) => `docs/${page}`)];
const blocks = (language: string) =>
  pages.flatMap((page) =>
    [...readFileSync(join(root, page), "utf8").matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, "gms"))].map(
      ([, text]) => [page, text ?? ""] as const,
    ),
  );
const lines = blocks("sh").flatMap(([page, text]) =>
  text
    .split("\n")
    .map((line) => line.replace(/ +#.*/, ""))
    .filter((line) => line !== "" && !line.startsWith("npm "))
    .map((line) => [page, line] as const),
);

let place: Fleet;
beforeAll(async () => {
  const smoke = { desc: "Ask this host", cmds: ["echo {{.REMOTE_HOST}}"] };
  place = await fleet({ all: { lollypops: { extraTasks: { smoke }, tasks: ["deploy-flake", "smoke"] } } });
  await mustRun("node", [join(root, "dist/cli.js"), "-o", "Taskfile.yml"], { cwd: place.dir });
});

it("has something to type", () => expect(lines.length).toBeGreaterThan(10));

it.each(lines)("%s: %s", async (_, line) => {
  const cli = `node '${join(root, "dist/cli.js")}'`;
  const typed = line.replace("nix run .#lollypops --", `${cli} run --`).replace(/^(npx )?lollypops-gen/, cli);
  const { exitCode, stderr } = await run("sh", ["-c", typed], { cwd: place.dir, env: { LOLLYPOPS_DRY_RUN: "1" } });
  expect([exitCode, stderr.replace(/^task: \[.*\n(.*\\\n)*/gm, "")]).toEqual([
    0,
    expect.not.stringMatching(/error|failed/i),
  ]);
});

it.each(blocks("nix"))("%s has nix that parses", async (_, text) => {
  const expression = text.startsWith("{") ? text : `{ pkgs }: {\n${text}}`;
  await mustRun("nix-instantiate", ["--parse", "-"], { input: expression });
});

it.each(blocks("yaml"))("%s has a Taskfile that go-task loads", async (_, text) => {
  const dir = join(place.dir, "part");
  await mustRun("sh", ["-c", `mkdir -p '${dir}/fleet' && cp Taskfile.yml '${dir}/fleet'`], { cwd: place.dir });
  writeFileSync(join(dir, "Taskfile.yml"), text);
  await mustRun("task", ["--list-all"], { cwd: dir });
});
