// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
/** Systems that are evaluated and built on this machine, several at a time before a deployment: the real nix, no host. */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { mustRun, temporaryDirectory } from "./hosts.ts";
import { type CallOptions, call, shells, sparePath } from "./runtime.ts";

const system = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux`;
const good = ["zed", "same2", "web.1", "same1", "a1", "a2", "a3", "a4", "a5", "a6"];
let flake: string;
let bin: string;
let cwd: string;
let nix: string;

/** A flake whose systems need nothing; `salt` makes them new to the store. */
function flakeOf(salt: string): string {
  return `{ outputs = _: let
  made = name: command: { config.system.build.toplevel = derivation {
    inherit name; salt = "${salt}"; system = "${system}"; builder = "/bin/sh"; args = [ "-c" command ]; }; };
  good = name: { inherit name; value = made "nixos-system-\${name}" "echo \${name} >$out"; };
  in { nixosConfigurations = builtins.listToAttrs (map good [ ${good.map((name) => `"${name}"`).join(" ")} ]) // {
    same2 = made "nixos-system-same1" "echo same1 >$out";
    throws = throw "throws has no system";
    fails = made "nixos-system-fails" "echo words of the builder >&2; exit 3";
    fails2 = made "nixos-system-fails2" "echo other words >&2; exit 3";
  }; }; }`;
}

/** Puts a program on the PATH of the calls. */
function program(name: string, text: string): void {
  writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`);
  chmodSync(join(bin, name), 0o755);
}

beforeAll(async () => {
  nix = (await mustRun("sh", ["-c", "command -v nix"])).stdout.trim();
});
beforeEach(() => {
  [flake, bin, cwd] = [temporaryDirectory(), temporaryDirectory(), temporaryDirectory()];
  mkdirSync(join(cwd, "run"));
  writeFileSync(join(flake, "flake.nix"), flakeOf(flake));
  program("nix", `echo "$*" >>${cwd}/nix.log; exec ${nix} "$@"`);
  program("awk", "echo 8"); // that many hosts at a time, however little memory is free
});

function runtimeCall(words: string[], options: Pick<CallOptions, "variables" | "only"> = {}) {
  return call(words, {
    cwd,
    path: bin,
    ...options,
    env: { XDG_RUNTIME_DIR: join(cwd, "run") },
  });
}
const prebuild = (words: string[], variables: Record<string, string> = {}, options: CallOptions = {}) =>
  runtimeCall(["prebuild", "--flake", `path:${flake}`, ...words], { variables, ...options });
/** The step `build` of a host, which prints the path of its system. */
const build = (host: string, more: Record<string, string> = {}, where = ["--build-on", "local"]) =>
  runtimeCall(
    ["rebuild", "--host", host, "--to", "root@192.0.2.1", "--flake", `path:${flake}`, "--local-evaluation", ...where],
    { variables: { TASK: `fleet:${host}:build`, ...more } },
  );

/** What nix was asked for, one line a process. */
const asked = () =>
  existsSync(join(cwd, "nix.log")) ? readFileSync(join(cwd, "nix.log"), "utf8").split("\n").slice(0, -1) : [];
const evaluations = () =>
  asked().filter((line) => line.includes("path-info --derivation") || line.includes("--dry-run"));
/** What is known of the hosts, by the name of the note. */
function notes(): Record<string, string> {
  const lollypops = join(cwd, "run/lollypops");
  const dir = join(lollypops, readdirSync(lollypops)[0] ?? "", "0");
  const files = readdirSync(dir).filter((file) => /^(drv|broken)\./.test(file));
  return Object.fromEntries(files.map((file) => [file, readFileSync(join(dir, file), "utf8").split("\n")[0] ?? ""]));
}
const contentOf = async (host: string) => readFileSync((await build(host)).stdout.trim(), "utf8");

describe("prebuild", () => {
  test("evaluates several hosts in one process, builds them, and each host gets its own", async () => {
    const { stdout, exitCode } = await prebuild(good);
    expect(exitCode).toBe(0);
    expect(evaluations().length).toBeLessThan(good.length);
    const builds = asked().filter((line) => line.includes("build --no-link"));
    expect(stdout.match(/ will be built:/g)).toHaveLength(builds.length);
    expect(builds).toHaveLength(2);
    for (const host of good)
      expect(notes()[`drv.${host}`]).toMatch(new RegExp(`-nixos-system-${host === "same2" ? "same1" : host}.drv$`));

    writeFileSync(join(cwd, "nix.log"), "");
    for (const host of good) expect(await contentOf(host)).toBe(`${host === "same2" ? "same1" : host}\n`);
    expect(evaluations()).toEqual([]);
    const before = notes();
    await prebuild([...good].reverse()); // by the evaluation cache
    expect(notes()).toEqual(before);
  });

  test.each(shells)("with %s as sh and nothing of GNU", async (shell) => {
    const only = [bin, await sparePath(shell, ["nix-store"])].join(delimiter);
    expect(await prebuild(["a1", "throws", "fails", "a2"], {}, { only })).toMatchObject({ exitCode: 0, stderr: "" });
    expect(Object.keys(notes()).sort()).toEqual(["broken.fails", "broken.throws", "drv.a1", "drv.a2", "drv.fails"]);
  });

  test("one host that does not evaluate costs the others nothing", async () => {
    expect(await prebuild(["a1", "throws", "a2"])).toMatchObject({ exitCode: 0 });
    expect(notes()).toMatchObject({
      "drv.a1": expect.stringContaining("-a1.drv"),
      "drv.a2": expect.stringContaining("-a2.drv"),
      "broken.throws": "error: throws has no system",
    });
    writeFileSync(join(cwd, "nix.log"), "");
    const failed = await build("throws");
    expect(failed).toMatchObject({ exitCode: 1, stdout: "" });
    expect(failed.stderr).toBe("throws: build failed: error: throws has no system\n");
    expect(asked()).toEqual([]);
    expect(await contentOf("a2")).toBe("a2\n");
  });

  test("nor does one that does not build, whose words are kept, and which is built once", async () => {
    expect(await prebuild(["a1", "fails", "a2"])).toMatchObject({ exitCode: 0 });
    expect(notes()).toMatchObject({ "broken.fails": expect.stringMatching(/words of the builder/) });
    expect(notes()).not.toHaveProperty("broken.a2");
    expect(asked().filter((line) => line.includes("build --no-link"))).toHaveLength(1);
    expect((await build("fails")).stderr).toMatch(/^fails: build failed: .*words of the builder\n$/);
    expect(await contentOf("a2")).toBe("a2\n");
  });

  test("two that do not build have words of their own", async () => {
    await prebuild(["fails2", "a1", "fails"]);
    expect(notes()).toMatchObject({
      "broken.fails": expect.stringMatching(/words of the builder/),
      "broken.fails2": expect.stringMatching(/other words/),
    });
    expect(await prebuild(["a1"])).toMatchObject({ exitCode: 0 });
  });

  test("those that are built elsewhere are just evaluated", async () => {
    expect(await prebuild(["a1=target", "a2=ops@builder", "fails=target"])).toMatchObject({ exitCode: 0 });
    expect(Object.keys(notes()).sort()).toEqual(["drv.a1", "drv.a2", "drv.fails"]);
    expect(asked()).toHaveLength(1);
  });

  test("only those selected that have a rebuild to come", async () => {
    await prebuild([
      "a1",
      "a2:deploy-flake",
      "a3:deploy-flake,rebuild",
      "zed",
      "--",
      "a1",
      "a2",
      "a3=target",
      "a4",
      "throws",
    ]);
    expect(Object.keys(notes()).sort()).toEqual(["drv.a1", "drv.a3"]);
    await prebuild(["--step", "deploy-flake", "a4"]);
    await prebuild(["a4"], { LOLLYPOPS_DRY_RUN: "1" });
    expect(notes()).not.toHaveProperty("drv.a4");
  });

  test("what is edited meanwhile is evaluated anew, and a note of another flake does not count", async () => {
    await prebuild(["a1", "fails"]);
    const before = notes()["drv.a1"];
    writeFileSync(join(flake, "flake.nix"), flakeOf("other").replace("exit 3", "echo >$out"));
    await prebuild(["a1", "fails"]);
    expect(notes()["drv.a1"]).not.toBe(before);
    expect(notes()).not.toHaveProperty("broken.fails");
    const [one, other] = [flake, temporaryDirectory()];
    writeFileSync(join(other, "flake.nix"), flakeOf("another"));
    const built = (await build("a1")).stdout;
    flake = other;
    expect((await build("a1")).stdout).not.toBe(built);
    flake = one;
  });

  test("as many at a time as memory allows", async () => {
    rmSync(join(bin, "awk"));
    expect(await prebuild(["a1=target", "a2=target"])).toMatchObject({ exitCode: 0 });
    expect(Object.keys(notes()).sort()).toEqual(["drv.a1", "drv.a2"]);
  });

  test("an interruption ends it", async () => {
    program("nix", `echo "$*" >>${cwd}/nix.log; kill -INT $(cat ${cwd}/pid); exit 1`);
    const words = ["prebuild", "--flake", `path:${flake}`, "a1", "a2"];
    program("sh", `echo $$ >${cwd}/pid; rm ${bin}/sh; exec /bin/sh "$@"`);
    expect(await runtimeCall(words)).toMatchObject({ exitCode: 130 });
    expect(asked()).toHaveLength(1);
    expect(Object.keys(notes())).toEqual([]);
  });
});

describe("build", () => {
  test("of this machine", async () => {
    const there = await build("a1", {}, ["--local"]);
    expect([there.exitCode, there.stdout]).toEqual([0, expect.stringMatching(/^\/nix\/store\/\S+-a1\n$/)]);
    expect(await build("a1", {}, ["--local", "--build-on", "local"])).toMatchObject({ stdout: there.stdout });
    const failed = await build("fails", {}, ["--local"]);
    expect(failed).toMatchObject({ exitCode: 1, stdout: "", stderr: expect.stringMatching(/words of the builder\n$/) });
  });

  test("is asked for by the task's name, whatever host and namespace are called", async () => {
    for (const TASK of ["a1:build", "fleet:a1:build", "my:fleet:a1:build"])
      expect(await build("a1", { TASK })).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^\/nix/) });
    for (const TASK of ["a1", "fleet:build", "b:build", "a1:rebuild"]) {
      const { stdout } = await build("a1", { TASK, LOLLYPOPS_DRY_RUN: "1" });
      expect(stdout).toContain("switch-to-configuration");
    }
  });

  test("is shown, and nothing is run", async () => {
    const shown = async (...where: string[]) =>
      (await build("a1", { LOLLYPOPS_DRY_RUN: "1" }, where)).stdout.replace(flake, "/flake");
    expect(
      await shown("--build-on", "ops@[fe80::1]", "--ssh", "ssh -F 'a b'", "--sudo", "sudo"),
    ).toMatchInlineSnapshot(`
      "+ drv=$(nix --extra-experimental-features 'nix-command flakes' path-info --derivation 'path:/flake#nixosConfigurations."a1".config.system.build.toplevel')
      + NIX_SSHOPTS='-F '\\''a b'\\'' -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3' nix --extra-experimental-features 'nix-command flakes' copy --to 'ssh-ng://ops@[fe80::1]' --derivation $drv
      + new=$(ssh -F 'a b' -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3 ops@fe80::1 'nix --extra-experimental-features '\\''nix-command flakes'\\'' build --no-link --print-out-paths '"$drv"'^out')
      build: shown, not run
      "
    `);
    expect(await shown()).toMatchInlineSnapshot(`
      "+ drv=$(nix --extra-experimental-features 'nix-command flakes' path-info --derivation 'path:/flake#nixosConfigurations."a1".config.system.build.toplevel')
      + NIX_SSHOPTS='-o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3' nix --extra-experimental-features 'nix-command flakes' copy --to ssh-ng://root@192.0.2.1 --derivation $drv
      + new=$(ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3 root@192.0.2.1 'nix --extra-experimental-features '\\''nix-command flakes'\\'' build --no-link --print-out-paths '"$drv"'^out')
      build: shown, not run
      "
    `);
    expect(asked()).toEqual([]);
  });
});

describe("LOLLYPOPS_NOM=1", () => {
  const nom = { LOLLYPOPS_NOM: "1" };

  test("nom shows the build, and the exit code is nix's", async () => {
    program("nom", `cat >${cwd}/nom.log; echo "nom $*"`);
    const built = await build("a1", nom);
    expect(built).toMatchObject({ exitCode: 0, stderr: expect.stringContaining("nom --json\n") });
    expect(built.stdout).toMatch(/^\/nix\/store\/[^\n]*-nixos-system-a1\n$/);
    expect(readFileSync(join(cwd, "nom.log"), "utf8")).toMatch(/^@nix \{.*"building/m);
    const failed = await build("fails", nom);
    expect(failed).toMatchObject({ exitCode: 1, stdout: "" });
    expect(failed.stderr).toContain("fails: build failed: nix build failed (its words are above)\n");
  });

  test("without nom, a sentence says so", async () => {
    const { stdout, stderr, exitCode } = await build("a1", nom);
    expect([exitCode, stdout]).toEqual([0, expect.stringMatching(/^\/nix\/store\/[^\n]*-a1\n$/)]);
    expect(stderr).toContain("LOLLYPOPS_NOM: there is no nom on PATH");
  });
});
