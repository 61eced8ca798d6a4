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
  const secrets = { files: { "db-password": { cmd: "echo secret" } } };
  place = await fleet({ all: { lollypops: { extraTasks: { smoke }, tasks: ["deploy-flake", "smoke"], secrets } } });
  const cli = (...args: string[]) => mustRun("node", [join(root, "dist/cli.js"), ...args], { cwd: place.dir });
  await cli("-o", "Taskfile.yml");
  writeFileSync(join(place.dir, "hosts.json"), (await cli("eval")).stdout); // what a page reads with --from
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

it.each(blocks("nix").filter(([, text]) => text.startsWith("{")))("%s has a flake that parses", async (_, text) => {
  await mustRun("nix-instantiate", ["--parse", "-"], { input: text });
});

/** What a page shows of a host's configuration, as the input that `--from` reads. */
const asInput = (text: string) => `
  let
    lib.genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    pkgs.age = "/nix/store/age";
    shown = {\n${text}\n};
  in
  { web1 = shown.lollypops; }`;

it.each(blocks("nix").filter(([, text]) => !text.startsWith("{")))("%s has options that exist: %s", async (_, text) => {
  const evaluated = await mustRun("nix-instantiate", ["--eval", "--strict", "--json", "-"], { input: asInput(text) });
  const command = [join(root, "dist/cli.js"), "--from", "-", "-o", "-"];
  await mustRun("node", command, { input: evaluated.stdout });
});

const runtime = readdirSync(join(root, "templates/runtime"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".sh"))
  .map((name) => readFileSync(join(root, "templates/runtime", name), "utf8"))
  .join("");
const [, table = ""] = readFileSync(join(root, "docs/secrets.md"), "utf8").split("## When it says");
const messages = [...table.matchAll(/^\| (`.*?`) \|/gm)].flatMap(([, cell = ""]) => cell.match(/[^`]{3,}/g) ?? []);

it("explains messages", () => expect(messages.length).toBeGreaterThan(15));

it.each(messages)("there is a message %s", (message) => {
  expect(message.split("…").filter((part) => !runtime.includes(part.trim()))).toEqual([]);
});

it.each(blocks("yaml").filter(([, text]) => text.startsWith("version:")))(
  "%s has a Taskfile that go-task loads",
  async (_, text) => {
    const dir = join(place.dir, "part");
    await mustRun("sh", ["-c", `mkdir -p '${dir}/fleet' && cp Taskfile.yml '${dir}/fleet'`], { cwd: place.dir });
    writeFileSync(join(dir, "Taskfile.yml"), text);
    await mustRun("task", ["--list-all"], { cwd: dir });
  },
);
