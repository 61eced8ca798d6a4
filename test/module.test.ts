/** The Nix side: templates/hosts.nix on real flakes, the wrapper, and the modules under nixpkgs' own `lib.evalModules`. */
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const lib = libraryIn(process.env["NIXPKGS_LIB"]);
const upstream = process.env["LOLLYPOPS_UPSTREAM"];
const withLib = lib ? "" : " (not run: NIXPKGS_LIB names no checkout of nixpkgs or its lib)";
const withUpstream = upstream ? withLib : " (not run: LOLLYPOPS_UPSTREAM names no checkout of lollypops)";
if (withLib) console.warn(`The Nix modules were NOT tested${withLib}.`);
else if (withUpstream) console.warn(`The original lollypops' module was NOT tested${withUpstream}.`);

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "lollypops-module-"));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** The directory to import as `lib`, given a checkout of nixpkgs, of nixpkgs.lib, or that directory itself. */
function libraryIn(checkout: string | undefined): string | undefined {
  if (!checkout) return undefined;
  const dir = [join(checkout, "lib"), checkout].find((candidate) => existsSync(join(candidate, "modules.nix")));
  if (!dir) throw new Error(`NIXPKGS_LIB=${checkout} is neither nixpkgs' lib nor a directory that has it as lib/`);
  return dir;
}

/** Runs nix with flakes enabled; the result holds its exit code. */
function nix(args: string[]) {
  const features = ["--extra-experimental-features", "nix-command flakes"];
  return execa("nix", [...features, ...args], { reject: false, stdin: "ignore" });
}

/** The value of a Nix expression, in which `lib` and `root` are known. */
async function evaluate(expression: string): Promise<unknown> {
  const { exitCode, stdout, stderr } = await nixExpression(expression);
  if (exitCode !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

function nixExpression(expression: string) {
  const known = `root = ${root};${lib ? ` lib = import ${lib};` : ""}`;
  return nix(["eval", "--json", "--impure", "--expr", `let ${known} in ${expression}`]);
}

/** A JSON value as a Nix expression. */
function nixValue(value: unknown): string {
  return `(builtins.fromJSON ${JSON.stringify(JSON.stringify(value)).replaceAll("${", "\\${")})`;
}

/** The function that the command line tool applies to `nixosConfigurations`. */
function reader(hosts: string[] | null, system = "x86_64-linux"): string {
  return `(${readFileSync(join(root, "templates/hosts.nix"), "utf8")}) ${nixValue({ system, hosts })}`;
}

type Host = Record<string, unknown> & { derivations: string[] };
type Hosts = { schema: number; hosts: Record<string, Host>; skipped: string[] };

/** What templates/hosts.nix makes of the hosts of test/module/flake.nix. */
async function read(hosts: string[] | null) {
  const dir = join(scratch, "flake");
  if (!existsSync(dir)) {
    mkdirSync(dir);
    cpSync(join(root, "test/module/flake.nix"), join(dir, "flake.nix"));
  }
  const { exitCode, stdout, stderr } = await nix([
    "eval",
    "--json",
    `path:${dir}#nixosConfigurations`,
    "--apply",
    reader(hosts),
  ]);
  if (exitCode !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Hosts;
}

/** One host of that flake. */
async function readHost(name: string): Promise<Host> {
  const host = (await read([name])).hosts[name];
  if (!host) throw new Error(`${name} was not read`);
  return host;
}

const packageNames = (host: Host) => host.derivations.map((name) => name.replace(/^\/nix\/store\/[^-]*-/, ""));

describe("templates/hosts.nix", () => {
  it("takes a manifest as it is, and names what its strings refer to", async () => {
    const { hosts, skipped, schema } = await read(["ours.example"]);
    expect({ schema, skipped }).toEqual({ schema: 1, skipped: [] });
    const host = hosts["ours.example"] as Host;
    expect(Object.keys(host).sort()).toEqual(["derivations", "schema", "secrets"]);
    expect(packageNames(host)).toEqual(["other.drv^out", "tool.drv^out"].sort());
    expect([...host.derivations].sort()).toEqual(host.derivations);
  });

  it("has nix write the derivations, so that they can be realised", async () => {
    const { derivations } = await readHost("ours.example");
    const files = derivations.map((name) => name.replace(/\^out$/, ""));
    const { stdout } = await execa("nix-store", ["--realise", ...files]);
    expect(stdout.split("\n").map((file) => readFileSync(file, "utf8").trim())).toEqual(
      packageNames({ derivations }).map((name) => name.replace(".drv^out", "")),
    );
  });

  it("skips what has no lollypops, evaluates only the hosts asked for, and ignores names that are not there", async () => {
    expect(await read(["image", "odd", "nobody"])).toEqual({ schema: 1, hosts: {}, skipped: ["image", "odd"] });
    await expect(read(null)).rejects.toThrow("the broken host was evaluated");
  });

  it("picks the same fields from the original module, without its packages", async () => {
    const host = await readHost("same");
    expect(Object.keys(host).sort()).toEqual(
      ["deployment", "derivations", "extraTasks", "home-manager", "secrets", "tasks"].sort(),
    );
    expect(host["deployment"]).toEqual({
      "deploy-method": "copy",
      group: "default",
      ssh: { host: "192.0.2.2", opts: ["-l", "root"], user: "root" },
    });
    const { files, ...secrets } = host["secrets"] as { files: Record<string, { cmd: string }> };
    expect(secrets).toEqual({ "default-cmd": expect.stringMatching(/-pass-1\.7\.4\/bin\/pass$/) });
    expect(files["derived"]?.cmd).toBe(`${secrets["default-cmd" as keyof typeof secrets]} a`);
    expect(packageNames(host)).toEqual(expect.arrayContaining(["gopass.drv^out", "pass-1.7.4.drv^out"]));
    expect(Object.keys((host["home-manager"] as { users: object }).users)).toEqual(["alice"]);
    const { dir, cmds } = (host["extraTasks"] as { show: { dir: string; cmds: string[] } }).show;
    expect(cmds).toEqual([`echo ${dir}`]);
  });

  it("takes pass from PATH where the original module names one for another system", async () => {
    const host = await readHost("foreign");
    const home = host["home-manager"] as { users: { alice: { secrets: unknown } } };
    for (const secrets of [host["secrets"], home.users.alice.secrets])
      expect(secrets).toMatchObject({
        "default-cmd": "pass",
        files: { derived: { cmd: "pass a" }, own: { cmd: expect.stringMatching(/-gopass\/bin\/gopass b$/) } },
      });
    expect(packageNames(host)).toEqual(["gopass.drv^out"]);
  });

  it("passes on what it does not know, but for packages and functions", async () => {
    expect(await readHost("misspelt")).toEqual({
      deployment: { ssh: { hots: "web1" } },
      secrets: {},
      taskz: [],
      derivations: [],
    });
  });

  it(`reads the original lollypops' own module${withUpstream}`, { skip: withUpstream !== "" }, async () => {
    const host = (await evaluate(
      `(${reader(null)}) { web1 = import (root + "/test/module/upstream.nix") { inherit lib; upstream = ${upstream}; }; }`,
    )) as Hosts;
    expect(host.hosts["web1"]).toMatchObject({
      deployment: {
        ssh: { host: "web1", user: "root", opts: ["-l", "root"] },
        "deploy-method": "copy",
        group: "default",
      },
      secrets: {
        "default-cmd": "pass",
        "default-dir": "/var/src/lollypops-secrets",
        files: { db: { cmd: "pass fleet/db", path: "/var/src/lollypops-secrets/db", "group-name": "users" } },
      },
      "home-manager": { users: { alice: { secrets: { "default-dir": "/home/alice/lollypops-secrets" } } } },
      tasks: ["deploy-flake", "deploy-secrets", "rebuild"],
      extraTasks: { hi: { desc: "Say hi", cmds: ["echo hi"], deps: [], dir: "." } },
    });
  });
});

describe("lib.mkLollypops", () => {
  const git = (dir: string, ...args: string[]) =>
    execa("git", ["-C", dir, "-c", "user.name=t", "-c", "user.email=t@localhost", ...args]);

  /** Makes a git repository with that flake, and gives its commit. */
  async function repository(dir: string, flake: string): Promise<string> {
    mkdirSync(join(dir, "hosts"), { recursive: true });
    writeFileSync(join(dir, "flake.nix"), flake);
    await git(dir, "init", "-q");
    await git(dir, "add", ".");
    await git(dir, "commit", "-qm", "hosts");
    return (await git(dir, "rev-parse", "HEAD")).stdout;
  }

  /** Runs the program that was made for `self` in `cwd`; the tool behind it prints its arguments. */
  async function run(cwd: string, self: Record<string, string>, env: Record<string, string> = {}) {
    const tool = join(scratch, "tool/bin");
    mkdirSync(tool, { recursive: true });
    writeFileSync(join(tool, "lollypops-gen"), "#!/bin/sh\nprintf '[%s]' \"$@\"\n", { mode: 0o755 });
    const script = await evaluate(
      `(import (root + "/nix/lib.nix")).mkLollypops {
        self = ${nixValue(self)};
        pkgs = { writeShellScriptBin = name: text: { inherit name text; }; gitMinimal = "/nowhere"; };
        lollypops-gen = "${join(scratch, "tool")}";
      }`,
    );
    const { name, text } = script as { name: string; text: string };
    expect(name).toBe("lollypops");
    return execa("sh", ["-c", text, "lollypops", "deploy-all", "-C", "1", "--", "a b"], { cwd, env });
  }
  const arguments_ = (flake: string) => `[run][--flake][${flake}][--][deploy-all][-C][1][--][a b]`;

  it("uses the git tree of the current directory when it is that flake, and what was committed since", async () => {
    const dir = join(scratch, "mine");
    const rev = await repository(dir, "{ }");
    const self = { outPath: dir, rev };
    expect((await run(dir, self)).stdout).toBe(arguments_("."));
    expect((await run(join(dir, "hosts"), self)).stdout).toBe(arguments_("."));
    await git(dir, "commit", "-qm", "more", "--allow-empty");
    expect((await run(dir, self)).stdout).toBe(arguments_("."));
    expect((await run(dir, { outPath: dir, dirtyRev: `${rev}-dirty` })).stdout).toBe(arguments_("."));
    expect((await run(dir, { outPath: dir })).stdout).toBe(arguments_("."));
  });

  it("uses the flake that it was made for anywhere else, and says so in another flake's directory", async () => {
    const self = { outPath: join(scratch, "theirs"), rev: await repository(join(scratch, "theirs"), "{ }") };
    const other = join(scratch, "other");
    await repository(other, "{ a = 1; }");
    const elsewhere = await run(scratch, self);
    expect([elsewhere.stdout, elsewhere.stderr]).toEqual([arguments_(self.outPath), ""]);
    const inOther = await run(other, self);
    expect(inOther.stdout).toBe(arguments_(self.outPath));
    expect(inOther.stderr).toContain(`deploying from ${self.outPath}, not from the flake in this directory`);
    // The same flake.nix, but a history without that commit.
    expect((await run(self.outPath, { ...self, rev: "1".repeat(40) })).stdout).toBe(arguments_(self.outPath));
  });

  it("lets LOLLYPOPS_FLAKE say which flake", async () => {
    const { stdout } = await run(scratch, { outPath: "/nowhere" }, { LOLLYPOPS_FLAKE: "github:a/b" });
    expect(stdout).toBe(arguments_("github:a/b"));
  });
});

describe(`the modules, under nixpkgs' lib${withLib}`, { skip: !lib }, () => {
  it("hold the cases of test/module", async () => {
    const cases = (await evaluate(`import (root + "/test/module") { inherit lib; }`)) as Record<
      string,
      { expr: unknown; expected: unknown }
    >;
    const pick = (key: "expr" | "expected") =>
      Object.fromEntries(Object.entries(cases).map(([name, value]) => [name, value[key]]));
    expect(Object.keys(cases).length).toBeGreaterThan(15);
    expect(pick("expr")).toEqual(pick("expected"));
  });

  it.each([
    ['deployment.ssh.hots = "web1"', "`lollypops.deployment.ssh.hots' does not exist"],
    ['deployment.deploy-method = "push"', 'not of type `one of "auto", "copy", "archive"\''],
    ["secrets.files.a.path = ./secret", "not of type `absolute path outside the Nix store, as a string'"],
    ['secrets.files.a.mode = "u=r"', "`lollypops.secrets.files.a.mode' is not of type `file mode in octal"],
    ['secrets.files.a.restart-units = [ "nginx" ]', 'type `full name of a systemd unit, such as "nginx.service"\''],
    ["deployment.ssh.port = 0", "not of type `null or integer between 1 and 65535 (both inclusive)'"],
    [
      "deployment.health-checks.web = { }",
      "`lollypops.deployment.health-checks.web.command' was accessed but has no value",
    ],
    ["extraTasks.a.cmds = [ (x: x) ]", "not of type `value of a go-task key'"],
    ["manifest = { }", "`lollypops.manifest' is read-only"],
  ])("say what is wrong with %s", async (option, message) => {
    const { exitCode, stderr } = await nixExpression(
      `(import (root + "/test/module/stubs.nix") { inherit lib; }).manifest [ { lollypops.${option}; } ]`,
    );
    expect([exitCode, stderr]).toEqual([1, expect.stringContaining(message)]);
  });
});

const asRoot = process.platform === "linux" && process.getuid?.() === 0 ? "" : " (not run: only root gives files away)";
describe(`nix/owners.sh${asRoot}`, { skip: asRoot !== "" }, () => {
  /** The script with `lines` waiting for it, on files of root's alone; as in NixOS, no command of it may fail. */
  async function settle(lines: (dir: string) => string[], path = "") {
    const dir = mkdtempSync(join(scratch, "owners-"));
    for (const file of ["own", "group", "set id ", "nobody", "nogroup", "target"]) secret(dir, file);
    symlinkSync("target", join(dir, "link"));
    for (const place of ["open", "real"]) secret(dir, `${place}/secret`);
    chmodSync(join(dir, "open"), 0o777);
    symlinkSync("real", join(dir, "linked"));
    const waiting = lines(dir).map((line) => `${line}\n`);
    writeFileSync(join(dir, "pending"), waiting.join(""));
    const text = script(dir);
    const env = { PATH: path + process.env["PATH"] };
    const snippet = `failed=0; trap failed=1 ERR; ${text}\nexit $failed`;
    const inBash = await execa("bash", ["-c", snippet], { reject: false, env });
    const inSh = await execa("sh", ["-euc", text], { reject: false, env });
    expect([inBash.exitCode, inSh.exitCode, inSh.stderr]).toEqual([0, 0, inBash.stderr]);
    expect(readFileSync(join(dir, "pending"), "utf8")).toBe(waiting.join(""));
    const state = async (file: string) => (await execa("stat", ["-c", "%U:%G %a", join(dir, file)])).stdout;
    return { state, stderr: inSh.stderr.replaceAll(dir, "") };
  }

  const script = (dir: string) =>
    readFileSync(join(root, "nix/owners.sh"), "utf8").replaceAll("/var/lib/lollypops/pending", join(dir, "pending"));

  function secret(dir: string, file: string) {
    mkdirSync(dirname(join(dir, file)), { recursive: true });
    writeFileSync(join(dir, file), "secret", { mode: 0o400 });
  }

  it("gives a secret to the owner and group that it waited for, with its mode", async () => {
    const { state, stderr } = await settle((dir) => [
      "run 0123456789abcdef",
      `own daemon - 0440 ${dir}/own`,
      "unit restart nginx.service 0123456789abcdef",
      `own root daemon 0640 ${dir}/group`,
      `own nobody daemon 6750 ${dir}/set id `,
      "initrd",
      `prune root 1:2 ${dir}/target`,
    ]);
    expect(stderr).toBe("");
    expect(await state("own")).toBe("daemon:daemon 440");
    expect(await state("group")).toBe("root:daemon 640");
    expect(await state("set id ")).toBe("nobody:daemon 6750");
    expect(await state("target")).toBe("root:root 400");
  });

  it("leaves root's what waits for others still, is gone or is no file", async () => {
    const { state, stderr } = await settle((dir) => [
      `own no-such-user - 0440 ${dir}/nobody`,
      `own daemon no-such-group 0440 ${dir}/nogroup`,
      `own daemon - 0440 ${dir}/link`,
      `own daemon - 0440 ${dir}/gone`,
      `own daemon - 0440 ${dir}/real`,
    ]);
    expect(stderr).toBe("");
    for (const file of ["nobody", "nogroup", "target"]) expect(await state(file)).toBe("root:root 400");
    expect(await state("real")).toMatch(/^root:root 7/);
  });

  it("writes nowhere that others can put something else", async () => {
    const { state, stderr } = await settle((dir) => [
      `own daemon - 0440 ${dir}/open/secret`,
      `own daemon - 0440 ${dir}/linked/secret`,
    ]);
    const refused = (file: string) =>
      `lollypops: ${file} stays root's: a parent is a symbolic link, or others can change it`;
    expect(stderr).toBe(`${refused("/open/secret")}\n${refused("/linked/secret")}`);
    expect([await state("open/secret"), await state("real/secret")]).toEqual(["root:root 400", "root:root 400"]);
  });

  it("tells a failure, fails nothing, and goes on", async () => {
    const bin = join(scratch, "bin");
    mkdirSync(bin);
    const chown =
      '#!/bin/sh\nPATH=${PATH#*:}\ncase $* in *own) echo read-only >&2; exit 1 ;; *) exec chown "$@" ;; esac\n';
    writeFileSync(join(bin, "chown"), chown, { mode: 0o755 });
    const { state, stderr } = await settle(
      (dir) => [`own daemon - 0440 ${dir}/own`, `own daemon - 0440 ${dir}/group`],
      `${bin}:`,
    );
    expect(stderr).toBe("read-only");
    expect([await state("own"), await state("group")]).toEqual(["root:root 400", "daemon:daemon 440"]);
  });

  it("is done at once where nothing waits", async () => {
    const { stdout, stderr } = await execa("sh", ["-euc", `PATH=/nowhere; ${script("/nowhere")}`]);
    expect(stdout + stderr).toBe("");
  });
});

describe(`the flake${withLib}`, { skip: !lib }, () => {
  const flake = (name: string) =>
    evaluate(`(import (root + "/test/module/outputs.nix") { inherit lib root; }).${name}`);

  it("has its outputs, for each system", async () => {
    expect(await flake("names")).toEqual({
      nixosModules: ["default", "lollypops"],
      homeModules: ["default"],
      homeManagerModules: ["default"],
      lib: ["mkLollypops"],
      packages: ["default", "lollypops-gen"],
      overlays: ["default"],
      devShells: ["default"],
      checks: ["module", "package"],
    });
  });

  it("has a default package that deploys the flake given as configFlake", async () => {
    expect(await flake("plain")).toBe("lollypops-gen");
    const program = await flake("overridden");
    expect(program).toContain("self='/some/flake'");
    expect(program).toContain(`exec '/lollypops-gen/bin/lollypops-gen' run --flake "$flake" -- "$@"`);
  });

  it("packages the tool's own files, with what it runs as a suffix of PATH, and never nix", async () => {
    expect(await flake("files")).toEqual(expect.arrayContaining(["package.json", "src", "templates"]));
    expect(await flake("files")).not.toContain("node_modules");
    expect(await flake("wrapper")).toMatch(
      /--suffix PATH : \/git\/bin:\/go-task\/bin:\/openssh\/bin:\/coreutils\/bin:\/gawk\/bin:\/gnugrep\/bin:\/gnused\/bin:\/procps\/bin$/m,
    );
  });

  it("gives importNpmLock an address and a hash for each package of the lock", async () => {
    const packages = (await flake("lock")) as Record<string, { resolved?: string; integrity?: string }>;
    const { "": self, ...others } = packages;
    expect(self).not.toHaveProperty("resolved");
    for (const [location, { resolved, integrity }] of Object.entries(others))
      expect([location, resolved, integrity]).toEqual([
        location,
        expect.stringMatching(/^https:\/\/[^ ]+\/-\/[^/ ]+-\d[^/ ]*\.tgz$/),
        expect.stringMatching(/^sha512-/),
      ]);
    expect(packages["node_modules/@types/node"]?.resolved).toMatch(
      /^https:\/\/packages\.example\.org\/@types\/node\/-\/node-\d+\.\d+\.\d+\.tgz$/,
    );
    expect(Object.keys(packages)).toContain("node_modules/typescript");
    expect(Object.keys(packages)).not.toContain("node_modules/vitest");
  });
});
