// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
/** The shell runtime by itself, called as the Taskfile calls it, under the shells that stand as `sh` on control machines. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { mustRun, type Result, root, run, temporaryDirectory } from "./hosts.ts";
import { type CallOptions, call, runtime, type Shell, shellDirectory, shells, sparePath } from "./runtime.ts";

const marker = "touched-by-a-hostile-string";

describe("the text", () => {
  test("holds nothing that go-task would read, and no tab", () => {
    expect(runtime.text).not.toMatch(/\{\{|<no value>|\t|\r|@HASH@/);
  });

  test("fits into one environment variable", () => {
    expect(Buffer.byteLength(runtime.text)).toBeLessThan(120 * 1024);
  });

  test("takes each variable of a run once", () => {
    expect(runtime.settings).toEqual([...new Set(runtime.settings)]);
    expect(runtime.settings).toContain("LP_REMOTE_HOST");
  });

  test.each(shells)("is read by %s without complaint", async (shell) => {
    const file = join(temporaryDirectory(), "runtime.sh");
    writeFileSync(file, runtime.text);
    const { stdout, stderr } = await mustRun(join(await shellDirectory(shell), "sh"), ["-n", file]);
    expect(stdout + stderr).toBe("");
  });
});

/** Each shell with this machine's utilities, and once without anything of GNU. */
const controls = [...shells.map((shell) => ({ shell, spare: false })), { shell: "busybox" as Shell, spare: true }];

describe.each(controls)("$shell as sh, only busybox: $spare", ({ shell, spare }) => {
  let path: CallOptions;
  let cwd: string;
  let env: Record<string, string>;

  beforeAll(async () => {
    path = spare ? { only: await sparePath(shell, ["ssh", "nix"]) } : { path: await shellDirectory(shell) };
  });
  beforeEach(() => {
    cwd = mkdtempSync(join(temporaryDirectory(), "cwd-"));
    env = { XDG_RUNTIME_DIR: mkdtempSync(join(cwd, "run-")) };
  });

  const runtimeCall = (words: readonly string[], options: CallOptions = {}) =>
    call(words, { ...path, cwd, ...options, env: { ...env, ...options.env } });
  const host = ["--host", "web1", "--to", "root@192.0.2.1"];
  const checkVars = (variables: Record<string, string>, more: readonly string[] = []) =>
    runtimeCall(["check-vars", ...host, ...more], { variables });
  /** Ended as wrong use, with this in its message, and nothing was done. */
  function expectRefusal(result: Result, words: string) {
    expect(result).toMatchObject({ exitCode: 2, stdout: "", stderr: expect.stringContaining(words) });
    expect(result.stderr).toMatch(/^lollypops: [^\n]*\n$/);
    expect(existsSync(join(cwd, marker))).toBe(false);
  }

  describe("the variables of a run", () => {
    test("without any, check-vars is content", async () => {
      expect(await checkVars({})).toEqual({ stdout: "check-vars: ok\n", stderr: "", exitCode: 0 });
    });

    test.each(["10.0.0.1", "web.example.org", "_web-1", "[::1]", "[2001:DB8::a]", "9"])(
      "the destination %s is taken",
      async (address) => {
        expect(await checkVars({ LP_REMOTE_HOST: address })).toMatchObject({ exitCode: 0 });
      },
    );

    test.each([
      "-oProxyCommand=x",
      "--",
      "-",
      "a b",
      "a?remote-store=x",
      "a&b",
      "a#b",
      "a/b",
      "root@web1",
      `a;touch ${marker}`,
      `$(touch ${marker})`,
      `\`touch ${marker}\``,
      "a'b",
      'a"b',
      "a\\b",
      "a*",
      "a\tb",
      "é",
      "[::1",
      "::1]",
      "[::1]x",
      "[]",
      "[web1]",
      "[a b:c]",
      "[::1?x]",
      "[-:]]",
      "%",
      ".a",
    ])("the destination %j is refused", async (address) => {
      expectRefusal(await checkVars({ LP_REMOTE_HOST: address }), "LP_REMOTE_HOST");
      expectRefusal(await runtimeCall(["check-vars", "--host", "web1", "--to", `root@${address}`]), "LP_REMOTE_HOST");
      if (address !== "root@web1") expectRefusal(await checkVars({ LP_REMOTE_USER: address }), "LP_REMOTE_USER");
    });

    test.each(["switch", "boot", "test", "dry-activate", "build"])("the action %s is taken", async (action) => {
      expect(await checkVars({ REBUILD_ACTION: action })).toMatchObject({ exitCode: 0 });
    });

    test.each(["swich", "Switch", "switch boot", "-n", `$(touch ${marker})`, "*"])(
      "the action %j is refused",
      async (action) => {
        expectRefusal(await checkVars({ REBUILD_ACTION: action }), "REBUILD_ACTION is switch, boot");
      },
    );

    test("LOLLYPOPS_DRY_RUN is 1 or 0", async () => {
      for (const value of ["0", "1"])
        expect(await checkVars({ LOLLYPOPS_DRY_RUN: value })).toMatchObject({ exitCode: 0 });
      for (const value of ["yes", "true", "2", "1 "])
        expectRefusal(await checkVars({ LOLLYPOPS_DRY_RUN: value }), "LOLLYPOPS_DRY_RUN");
    });

    test("a line break in any of them is refused, also one that feigns the next", async () => {
      for (const name of runtime.settings) expectRefusal(await checkVars({ [name]: "a\nb" }), "line break");
      for (const value of ["a\n", "\na", `a\n${runtime.settings[1]}=b`]) {
        for (const name of [runtime.settings[0] ?? "", runtime.settings.at(-1) ?? ""])
          expectRefusal(await checkVars({ [name]: value }), "line break");
      }
    });

    test.each(["LP_REMOTE_COMMAND", "LP_REMOTE_SSH_OPTS", "LP_REMOTE_SUDO_COMMAND", "LP_REMOTE_SUDO_OPTS"])(
      "%s with an unfinished quote is refused",
      async (name) => {
        for (const value of ["'a", '"a', 'a"', "a '\"'\"", "a\\", '"a\\'])
          expectRefusal(await checkVars({ [name]: value }, ["--sudo", "sudo"]), `${name} has an unfinished quote`);
      },
    );

    test("option strings are split as a shell would, and never evaluated", async () => {
      const hostile = `$(touch ${marker}) \`touch ${marker}\` ; & | > < * ? [a-z] ~ $HOME # {a,b} ! "$(touch ${marker})"`;
      for (const name of ["LP_REMOTE_SSH_OPTS", "LP_REMOTE_SUDO_OPTS"])
        expect(await checkVars({ [name]: hostile }, ["--sudo", "sudo"])).toMatchObject({ exitCode: 0 });
      expect(readdirSync(cwd)).toEqual([expect.stringMatching(/^run-/)]);
    });

    test("arbitrary words come out of the splitting as they were", async () => {
      const piece = fc.constantFrom(
        "a",
        " ",
        "'",
        '"',
        "\\",
        "$x",
        "`",
        "*",
        "-n",
        "%s",
        "\\n",
        "é",
        "Á",
        "😀",
        "#",
        ";",
        "{{",
        "~",
      );
      const word = fc.array(piece, { maxLength: 6 }).map((list) => list.join(""));
      const lists = fc.sample(fc.array(word, { minLength: 1, maxLength: 5 }), { numRuns: 30, seed: 7 });
      const plain = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
      const double = (text: string) => `"${text.replace(/["\\$`]/g, "\\$&")}"`;
      const escaped = (text: string) => text.replace(/[^a-z]/gu, "\\$&") || "''";
      const styles = [plain, double, escaped];
      for (const [index, list] of lists.entries()) {
        const value = list.map((text, at) => (styles[(index + at) % 3] ?? plain)(text)).join("  ");
        // What follows the first word of sudo is for the target's shell: the printed command shows how it was split.
        const { stdout } = await runtimeCall(["deploy-flake", ...host, "--method", "copy", "--sudo", "sudo"], {
          variables: { LP_REMOTE_SUDO_OPTS: value, LOLLYPOPS_DRY_RUN: "1" },
        });
        const shown = lastCommand(stdout);
        const there = (await wordsOf(shown)).at(-1) ?? "";
        const words = await wordsOf(there.slice(0, there.indexOf(" nix-store --realise")));
        expect(words.slice(0, 2)).toEqual(["sudo", "-n"]);
        expect(words.slice(2)).toEqual(list);
      }
    });
  });

  /** The words of a command line, as this machine's sh reads them. */
  async function wordsOf(line: string): Promise<string[]> {
    const env = { src: "/nix/store/src", new: "/nix/store/new" };
    const { stdout } = await mustRun("sh", ["-c", `set -f; printf '%s\\0' ${line}`], { env });
    return stdout.split("\0").slice(0, -1);
  }
  const commands = (stdout: string) =>
    stdout
      .split(/^\+ /m)
      .slice(1)
      .map((part) => part.replace(/\n(deploy-|rebuild)[\s\S]*$/, "").trimEnd());
  const lastCommand = (stdout: string) => commands(stdout).at(-1) ?? "";

  describe("which hosts", () => {
    const table = ["web1", "web2", "db.1:deploy-flake,own", "@web=web1,web2", "@eu=web2,db.1", "@none="];
    const selected = async (...selectors: string[]) =>
      runtimeCall(["selected", "--", ...selectors], { input: table.join(" ") });

    test.each([
      [["web1"], "web1"],
      [["web*"], "web1 web2"],
      [["@web"], "web1 web2"],
      [["@e*"], "web2 db.1:deploy-flake,own"],
      [["@web", "!web2"], "web1"],
      [["!web2"], "web1 db.1:deploy-flake,own"],
      [["!@web"], "db.1:deploy-flake,own"],
      [["*", "!@eu"], "web1"],
      [["db.1", "web1"], "web1 db.1:deploy-flake,own"],
      [["?b.1"], "db.1:deploy-flake,own"],
      [["[dw]*", "!web[2-9]"], "web1 db.1:deploy-flake,own"],
    ])("%j selects %s", async (selectors, expected) => {
      expect(await selected(...selectors)).toEqual({ stdout: `${expected}\n`, stderr: "", exitCode: 0 });
    });

    // Exit 0 and no host: go-task would print the call on any other, and `begin` refuses to begin with none.
    test.each([
      [["web3"], "no host or group matches 'web3'"],
      [["web1", "@nope"], "no host or group matches '@nope'"],
      [["web1", "!nope"], "no host or group matches '!nope'"],
      [["db-1"], "no host or group matches 'db-1'"],
      [["dbx1"], "no host or group matches 'dbx1'"],
      [["$(touch x)"], "no host or group matches"],
      [["-n"], "no host or group matches '-n'"],
      [[""], "no host or group matches ''"],
      [[], "say which hosts"],
      [["web1", "!web1"], "these selectors leave no host: web1 !web1"],
    ])("%j is an error", async (selectors, words) => {
      const { stdout, stderr, exitCode } = await selected(...selectors);
      expect([stdout.trim(), exitCode]).toEqual(["", 0]);
      expect(stderr).toContain(`lollypops: ${words}`);
      expect(readdirSync(cwd)).toHaveLength(1);
    });

    test("begin without a host ends as wrong use", async () => {
      expect(await runtimeCall(["begin", "--table", "--chosen"])).toMatchObject({ exitCode: 2 });
    });
  });

  describe("the report", () => {
    const begin = (hosts: string[], step = "check-vars", variables = {}) =>
      runtimeCall(["begin", ...flags(step), ...hosts], { variables: { TASK: task("all", step), ...variables } });
    const flags = (step: string) => (step ? ["--step", step] : []);
    const task = (name: string, step = "") => (step ? `${name}:${step}` : name);
    const check = (name: string, address = "192.0.2.1", step = "check-vars") =>
      runtimeCall(["check-vars", "--host", name, "--to", address], { variables: { TASK: `${name}:${step}` } });
    const broken = (name: string, words: string) =>
      runtimeCall(["broken", "--host", name, "--", words], { variables: { TASK: `${name}:check-vars` } });
    const end = async (step = "check-vars", name = "all") => {
      const { stdout } = await runtimeCall(["end", ...flags(step)], { variables: { TASK: task(name, step) } });
      return stdout.replace(/^took [0-9.]+ s.*\n/m, "");
    };
    test("counts those that did the step", async () => {
      expect(await begin(["web1", "web2"])).toEqual({ stdout: "", stderr: "", exitCode: 0 });
      await Promise.all([check("web1"), check("web2")]);
      expect(await end()).toBe("2 of 2 hosts with check-vars done\n");
    });

    test("names each host that failed, at which step and why", async () => {
      await begin(["web1", "web2", "web3", "web4"]);
      expect((await check("web1")).exitCode).toBe(0);
      expect(await check("web2", "-oProxyCommand=x")).toMatchObject({
        exitCode: 0,
        stderr: expect.stringContaining("x"),
      });
      expect((await broken("web3", "error: it is\nbroken")).exitCode).toBe(0);
      expect(await end()).toBe(
        [
          "1 of 4 hosts with check-vars done; NOT done: 3 failed",
          "  web2: failed at check-vars: the address (LP_REMOTE_HOST) is no host name, address or user: -oProxyCommand=x",
          "  web3: failed at evaluation: error: it isbroken",
          "  web4: failed at check-vars: its own words are above",
          "",
        ].join("\n"),
      );
    });

    test("follows each host's own plan", async () => {
      await begin(["web1:deploy-secrets,own,check-vars", "web2:own", "web3:own,deploy-secrets", "web4:own"], "");
      await check("web1", "192.0.2.1", "steps");
      for (const name of ["web2", "web3"]) {
        const own = ["--host", name, "--step", "own"];
        expect(await runtimeCall(["start", ...own])).toMatchObject({ exitCode: 0 });
        await runtimeCall(["ended", ...own, "--", ...(name === "web3" ? ["3"] : [])]);
        await runtimeCall(["done", ...own]);
      }
      expect(await end("")).toBe(
        [
          "2 of 4 hosts deployed, 1 of them unchanged; NOT done: 2 failed",
          "  web3: failed at own: exit 3 (its own words are above)",
          "  web4: failed at own: its own words are above",
          "",
        ].join("\n"),
      );
    });

    test("a step after an interruption does not begin, and is told apart from a failure", async () => {
      await begin(["web1", "web2"]);
      await check("web1");
      writeFileSync(join(env["XDG_RUNTIME_DIR"] ?? "", "lollypops", runName(), "stop"), "");
      expect((await runtimeCall(["check-vars", "--host", "web2", "--to", "x"])).exitCode).toBe(130);
      expect((await check("web2")).exitCode).toBe(0);
      expect(await end()).toContain("  web2: interrupted at check-vars: before it began");
    });

    test("a host that is deployed again starts anew", async () => {
      await begin(["web1"]);
      await check("web1", "-");
      await begin(["web1"]);
      await check("web1");
      expect(await end()).toBe("1 of 1 hosts with check-vars done\n");
    });

    test("two task names of one run report apart", async () => {
      await begin(["web1", "web2"]);
      await runtimeCall(["begin", "--step", "check-vars", "web1"], { variables: { TASK: "web:check-vars" } });
      await check("web1");
      expect(await end("check-vars", "web")).toBe("1 of 1 hosts with check-vars done\n");
      expect(await end()).toContain("1 of 2 hosts");
    });

    test("what a killed run left is swept away, a living one's stays", async () => {
      const runs = join(env["XDG_RUNTIME_DIR"] ?? "", "lollypops");
      for (const name of ["4000000-123", "1-123"]) mkdirSync(join(runs, name), { recursive: true });
      await begin(["web1"]);
      expect(readdirSync(runs)).toEqual([runName()]);
      await end();
    });

    test("terminal codes in a message stay out of the report", async () => {
      await begin(["web1"]);
      await broken("web1", "a\u001b[2Jb\u0007");
      expect(await end()).toContain("web1: failed at evaluation: a[2Jb\n");
    });

    test("LP_REMOTE_HOST is refused for several hosts, taken for one", async () => {
      const variables = { LP_REMOTE_HOST: "192.0.2.9" };
      expectRefusal(
        await begin(["web1", "web2"], "check-vars", variables),
        "LP_REMOTE_HOST=192.0.2.9 would send 2 hosts",
      );
      expect(await begin(["web1"], "check-vars", variables)).toMatchObject({ exitCode: 0 });
      expect(await checkVars(variables)).toMatchObject({ exitCode: 0 });
      const second = await runtimeCall(["check-vars", "--host", "web2", "--to", "192.0.2.2"], { variables });
      expectRefusal(second, "LP_REMOTE_HOST=192.0.2.9 is already web1 in this run");
      await end();
    });

    test("begins a deployment with the flake's source, and keeps it", async () => {
      const flake = join(cwd, "flake");
      mkdirSync(flake);
      writeFileSync(join(flake, "flake.nix"), "{ outputs = _: { }; }");
      const words = ["--flake", `path:${flake}`];
      await mustCall(["begin", ...words, "web1"], { variables: { TASK: "all" } });
      const before = (await mustCall(["source", ...words])).stdout;
      expect(before).toMatch(/^\/nix\/store\/[^/\n]+\n$/);
      writeFileSync(join(flake, "flake.nix"), "{ outputs = _: { changed = true; }; }");
      expect((await mustCall(["source", ...words])).stdout).toBe(before);
      const other = { env: { XDG_RUNTIME_DIR: mkdtempSync(join(cwd, "run-")) } };
      expect((await mustCall(["source", ...words], other)).stdout).not.toBe(before);
    });

    test("a flake that is not there ends it before any host is touched", async () => {
      const variables = { TASK: "all" };
      const result = await runtimeCall(["begin", "--flake", "path:/nowhere", "web1"], { variables });
      expect(result).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("/nowhere") });
      const { stdout, exitCode } = await runtimeCall(["end"], { variables });
      expect([stdout, exitCode]).toEqual([
        expect.stringContaining("web1: failed at deploy-flake: nix flake prefetch of path:/nowhere failed"),
        1,
      ]);
    });

    const runName = () => readdirSync(join(env["XDG_RUNTIME_DIR"] ?? "", "lollypops"))[0] ?? "";
  });

  const dryRun = { LOLLYPOPS_DRY_RUN: "1" };
  async function mustCall(words: readonly string[], options: CallOptions = {}): Promise<Result> {
    const result = await runtimeCall(words, options);
    expect(result).toMatchObject({ exitCode: 0 });
    return result;
  }

  describe("a dry run", () => {
    const odd = [
      "--ssh-opt",
      "-o",
      "--ssh-opt",
      "ProxyCommand=sh -c \"x 'y'\"",
      "--sudo",
      "sudo",
      "--sudo-opt",
      "-u it's",
    ];
    const calls: Record<string, string[]> = {
      "deploy-flake": [
        "deploy-flake",
        ...host,
        ...odd,
        "--method",
        "copy",
        "--flake",
        "/a b/it's $x",
        "--config-dir",
        "/var/it's $(x)",
      ],
      "deploy-flake by archive": ["deploy-flake", ...host, "--method", "archive"],
      "deploy-secrets": [
        "deploy-secrets",
        ...host,
        ...odd,
        "--",
        "name=a b",
        "path=/a b/it's $x",
        "owner=www-data",
        "mode=0440",
        "group=mail",
        "cmd=cat 'a b'",
      ],
      "a secret of a user": [
        "deploy-secrets",
        ...host,
        "--",
        "name=a",
        "path=/home/al/a",
        "owner=al",
        "as=al",
        "cmd=echo a; echo b",
      ],
      rebuild: ["rebuild", ...host, ...odd, "--nix-opt", "--option", "--nix-opt", "a", "--nix-opt", "b c"],
      "rebuild with local evaluation": ["rebuild", ...host, ...odd, "--flake", "/a b/it's $x", "--local-evaluation"],
    };

    test.each(Object.keys(calls))("%s: each line is ready to paste", async (name) => {
      const { stdout } = await mustCall(calls[name] ?? [], { variables: dryRun });
      expect(commands(stdout).length).toBeGreaterThan(0);
      for (const line of commands(stdout)) {
        expect(await run("sh", ["-n", "-c", line])).toEqual({ stdout: "", stderr: "", exitCode: 0 });
        expect(line).toMatch(/\bssh\b|\bnix\b/);
      }
      expect(stdout.trim()).toMatch(/: shown, not run$/);
    });

    test("shows words as they were given", async () => {
      const flakeLines = commands((await mustCall(calls["deploy-flake"] ?? [], { variables: dryRun })).stdout);
      expect(flakeLines[0]).toContain(`nix --extra-experimental-features 'nix-command flakes' flake prefetch --json`);
      expect(await wordsOf((flakeLines[0] ?? "").replace(/^src=\$\((.*)\|.*$/, "$1"))).toContain("/a b/it's $x");
      const copy = await wordsOf(flakeLines[1] ?? "");
      expect(copy.slice(-3)).toEqual(["--to", "ssh://root@192.0.2.1", "/nix/store/src"]);
      expect(copy[0]).toContain("ProxyCommand=sh -c");
      const there = (await wordsOf(flakeLines[2] ?? "")).at(-1) ?? "";
      expect(await wordsOf(there)).toEqual([
        ..."sudo -n".split(" "),
        "-u it's",
        ..."nix-store --realise /nix/store/src --add-root".split(" "),
        "/var/it's $(x)/flake",
        "--indirect",
      ]);
    });

    test("the words of ssh are those that ssh itself reads", async () => {
      const { stdout } = await mustCall(calls["deploy-flake"] ?? [], { variables: dryRun });
      const words = (await wordsOf(lastCommand(stdout))).slice(1, -1);
      const { stdout: read } = await mustRun("ssh", ["-G", "-F", "none", ...words]);
      expect(read).toContain("proxycommand sh -c \"x 'y'\"\n");
      expect(read).toMatch(/^user root$/m);
      expect(read).toMatch(/^hostname 192\.0\.2\.1$/m);
    });

    test("port, key, jump host and host key go after the options, and nothing is shared", async () => {
      const file = join(cwd, "it's a key");
      writeFileSync(file, "");
      const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJNj";
      const connection = ["--port", "2222", "--identity", file, "--jump", "ops@[::1]:22,web2"];
      const words = ["deploy-flake", ...host, ...connection, "--host-key", `${key} al@home`, "--ssh-opt", "-p23"];
      const { stdout } = await mustCall(words, { variables: dryRun });
      const { stdout: read } = await mustRun("ssh", [
        "-G",
        "-F",
        "none",
        ...(await wordsOf(lastCommand(stdout))).slice(1, -1),
      ]);
      expect(read).toMatch(/^port 23$/m);
      expect(read).toContain(`identityfile ${file}\n`);
      expect(read).toContain("proxyjump ops@[::1]:22,web2\n");
      expect(read).toContain(`knownhostscommand /usr/bin/env echo * ${key}\n`);
      expect(read).not.toMatch(/^control(path|persist [1-9])/m);
    });

    test("pasted, a secret's command does what the step does", async () => {
      const words = ["name=a", "path=/x", "cmd=false; printf 'a\\tb' && echo \"$(echo c)\" # end"];
      const { stdout } = await mustCall(["deploy-secrets", ...host, "--ssh", "cat", "--", ...words], {
        variables: dryRun,
      });
      // `cat` stands for ssh: what it is given on stdin is the secret; its words are no files.
      const { stdout: sent } = await run("sh", ["-c", lastCommand(stdout).replace(/\| cat .*$/s, "| cat")]);
      expect(sent).toBe("a\tbc\n");
    });

    test("the secret of a user is written by the user", async () => {
      const { stdout } = await mustCall(calls["a secret of a user"] ?? [], { variables: dryRun });
      const there = (await wordsOf(lastCommand(stdout).replace(/^.*\| ssh/s, "ssh"))).at(-1) ?? "";
      expect(await wordsOf(there)).toEqual(
        "runuser -u al -- install -D -m 0400 -o al /dev/stdin /home/al/a".split(" "),
      );
    });

    test.each(["switch", "boot", "test", "dry-activate", "build"])(
      "rebuild with %s shows what it would do",
      async (action) => {
        const { stdout } = await mustCall(calls["rebuild"] ?? [], { variables: { ...dryRun, REBUILD_ACTION: action } });
        expect(stdout.includes("nix-env -p /nix/var/nix/profiles/system --set")).toBe(
          ["switch", "boot"].includes(action),
        );
        const actions = [...stdout.matchAll(/\/bin\/switch-to-configuration ([a-z-]+)/g)].map(([, one]) => one);
        expect(actions).toEqual(action === "switch" ? ["test", "boot"] : action === "build" ? [] : [action]);
      },
    );

    test("runs no secret command", async () => {
      await mustCall(["deploy-secrets", ...host, "--", "name=a", "path=/x", `cmd=touch ${marker}`], {
        variables: dryRun,
      });
      expect(existsSync(join(cwd, marker))).toBe(false);
    });
  });

  describe("secrets, on this side", () => {
    // Nothing listens there: a step that gets as far as ssh says `refused` and ends with 4.
    const closed = ["--host", "web1", "--to", "root@127.0.0.1", "--ssh-opt", "-p1", "--ssh-opt", "-Fnone"];
    const deploy = (...words: string[]) => runtimeCall(["deploy-secrets", ...closed, "--", ...words]);
    const good = ["name=good", "path=/x/good", "cmd=echo good"];

    test("none: says so, connects to nothing", async () => {
      expect(await deploy()).toEqual({ stdout: "deploy-secrets: none configured\n", stderr: "", exitCode: 0 });
    });

    test("all commands work, and the target does not answer: 4", async () => {
      expect(await deploy(...good)).toMatchObject({
        exitCode: 4,
        stderr: expect.stringMatching(/^web1: deploy-secrets unreachable: .*refused/m),
      });
    });

    test.each([
      ["false", "exit 1"],
      ["echo partly; exit 7", "exit 7"],
      ["no-such-program-here", "exit 127"],
      ["kill -9 $$", "exit 137"],
      ["if", "exit 2"],
      ["-e", "exit 127"],
    ])("the command %j fails: nothing is sent", async (cmd, words) => {
      const result = await deploy(...good, "name=it's bad", "path=/x/bad", `cmd=${cmd}`);
      expect(result.stderr).toContain(
        `web1: deploy-secrets failed: it's bad: its command ended with ${words}; nothing was sent\n`,
      );
      expect(result).toMatchObject({ exitCode: 1, stdout: "" });
    });

    test("check-secrets runs every command and names all that fail; it connects to nothing", async () => {
      const words = ["name=one", "path=/x/1", "cmd=:", "name=two", "path=/x/2", "cmd=exit 3", "name=none", "path=/x/3"];
      const bad = ["deploy-secrets", "--host", "web1", "--to", "x", "--", ...good, ...words, "empty=1", "cmd=:"];
      const variables = { TASK: "web1:check-secrets" };
      expect(await runtimeCall(bad, { variables })).toMatchObject({
        exitCode: 1,
        stderr:
          "web1: check-secrets failed: 2 of 4 secrets are missing:\n  one: its command printed nothing\n  two: its command ended with exit 3\n",
      });
      const fine = await mustCall(bad, { variables: { ...variables, SECRET: "none,good" } });
      expect(fine.stdout).toBe("check-secrets: 2 of 2 secrets are there\n");
    });

    test("SECRET names what there is, or the nearest names are told", async () => {
      const words = [...good, "name=gold", "path=/x/1", "cmd=:", "name=other thing", "path=/x/2", "cmd=:"];
      const result = await runtimeCall(["deploy-secrets", "--host", "web1", "--to", "x", "--", ...words], {
        variables: { SECRET: "good,goood" },
      });
      expect(result).toMatchObject({
        exitCode: 2,
        stderr: "lollypops: web1: SECRET: there is no secret goood; there is good, gold, other thing\n",
      });
    });

    const ofAll = { variables: { TASK: "all:deploy-secrets" } };
    const inAll = (...words: string[]) =>
      runtimeCall(["deploy-secrets", ...closed, "--", ...words], { variables: { TASK: "web1:deploy-secrets" } });
    test("what a command says on stderr is for the terminal, not for the report", async () => {
      await mustCall(["begin", "--step", "deploy-secrets", "web1"], ofAll);
      const result = await inAll("name=bad", "path=/x/bad", "cmd=echo hunter2 >&2; false");
      expect(result.stderr).toContain("hunter2");
      const { stdout, exitCode } = await runtimeCall(["end", "--step", "deploy-secrets"], ofAll);
      expect(exitCode).toBe(1);
      expect(stdout).toContain("web1: failed at deploy-secrets: bad: its command ended with exit 1");
      expect(stdout).not.toContain("hunter2");
    });

    test("an unreachable host stands as such in the report", async () => {
      await mustCall(["begin", "--step", "deploy-secrets", "web1"], ofAll);
      await inAll(...good);
      const { stdout, exitCode } = await runtimeCall(["end", "--step", "deploy-secrets"], ofAll);
      expect(exitCode).toBe(4);
      expect(stdout).toMatch(/web1: unreachable at deploy-secrets: ssh: connect to host .* refused/);
    });

    test.each([["path=relative"], ["path=/x/"], ["path=/"], ["path="], ["nonsense=1"], ["IFS=x"], ["-x"], [""]])(
      "the word %j is refused",
      async (word) => {
        const result = await deploy("name=bad", word, `cmd=touch ${marker}`);
        expectRefusal(result, "deploy-secrets does not understand");
      },
    );

    test("hostile names, paths and commands are data", async () => {
      for (const text of [
        `$(touch ${marker})`,
        `\`touch ${marker}\``,
        `'; touch ${marker}; '`,
        "-n",
        "%s",
        "{{.X}}",
        "a\nb",
        "Á\u0081ÿ",
      ]) {
        const result = await deploy(`name=${text}`, `path=/x/${text}`, "cmd=exit 3");
        expect(result.stderr).toContain(`deploy-secrets failed: ${text}: its command ended with exit 3`);
        expect(await deploy(`name=${text}`, `path=/x/${text}`, "cmd=echo x")).toMatchObject({ exitCode: 4 });
      }
      expect(existsSync(join(cwd, marker))).toBe(false);
    });

    test("a command runs where task was called, with the caller's locale", async () => {
      const called = mkdtempSync(join(cwd, "called-"));
      const result = await runtimeCall(
        ["deploy-secrets", ...closed, "--", "name=a", "path=/x", "cmd=pwd >&2; echo $LC_ALL >&2; false"],
        {
          variables: { USER_WORKING_DIR: called },
          env: { LC_ALL: "C.UTF-8" },
        },
      );
      expect(result.stderr).toContain(`${called}\nC.UTF-8\n`);
    });
  });

  describe("what commands refer to in the store", () => {
    test("is built, or else fetched, before a step", async () => {
      const flake = join(cwd, "flake");
      mkdirSync(flake);
      const builder = `derivation { name = "tool-${shell}-${spare}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "PATH=/bin:/usr/bin:/run/current-system/sw/bin; echo '#!/bin/sh' >$out; echo 'echo from the tool' >>$out; chmod +x $out" ]; salt = "${env["XDG_RUNTIME_DIR"]}"; }`;
      const expression = `let drv = ${builder}; in "\${drv}=\${builtins.unsafeDiscardOutputDependency drv.drvPath}^out"`;
      const { stdout } = await mustRun("nix", ["eval", "--raw", "--impure", "--expr", expression]);
      const [tool = ""] = stdout.split("=");
      expect(existsSync(tool)).toBe(false);
      const words = [
        "--host",
        "web1",
        "--to",
        "root@127.0.0.1",
        "--ssh-opt",
        "-p1",
        "--ssh-opt",
        "-Fnone",
        "--needs",
        stdout,
      ];
      expect(await runtimeCall(["ready", "--host", "web1", "--needs", stdout], { variables: dryRun })).toMatchObject({
        stdout: expect.stringContaining("build --no-link"),
      });
      expect(existsSync(tool)).toBe(false);
      const step = ["deploy-secrets", ...words, "--", "name=a", "path=/x", `cmd=${tool} >&2; false`];
      expect((await runtimeCall(step)).stderr).toContain("from the tool\n");
    });

    test("and cannot be had: the step says so", async () => {
      const missing = "/nix/store/00000000000000000000000000000000-pass-1.7.4";
      for (const need of [missing, `${missing}=${missing}.drv^out`]) {
        const result = await runtimeCall([
          "deploy-secrets",
          "--host",
          "web1",
          "--to",
          "x",
          "--needs",
          need,
          "--",
          "name=a",
          "path=/x",
          `cmd=touch ${marker}`,
        ]);
        expect(result).toMatchObject({
          exitCode: 1,
          stderr: expect.stringContaining(`cannot get ${missing}; generate the Taskfile again`),
        });
      }
      expect(existsSync(join(cwd, marker))).toBe(false);
    });
  });

  describe("wrong use", () => {
    test("an unknown verb or option", async () => {
      expectRefusal(await runtimeCall(["frobnicate"]), "there is no verb frobnicate");
      expectRefusal(await runtimeCall(["rebuild", "--hots", "web1"]), "rebuild has no option --hots");
    });

    test("a step under another name than its own", async () => {
      const words = ["check-vars", "--host", "web.1", "--to", "x", "--called"];
      for (const name of ["web.1", "web.1:check-vars", "fleet:web.1", "fleet:web.1:check-vars"])
        expect(await runtimeCall([...words, name])).toMatchObject({ exitCode: 0 });
      expectRefusal(await runtimeCall([...words, "web-1:check-vars"]), "web-1:check-vars is not the name of a task");
    });

    test("the runtime's own variables reach no command of the user", async () => {
      const result = await runtimeCall([
        "deploy-secrets",
        "--host",
        "web1",
        "--to",
        "x",
        "--",
        "name=a",
        "path=/x",
        "cmd=export -p | grep -c LOLLYPOPS_S[HE] >&2; false",
      ]);
      expect(result.stderr).toMatch(/^0\n/);
    });
  });
});

test("the sources say how long they are", async () => {
  const { stdout } = await mustRun("sh", ["-c", "cat templates/runtime/*.sh templates/runtime/target/*.sh"], {
    cwd: root,
  });
  const code = stdout.split("\n").filter((line) => !/^\s*(#.*)?$/.test(line));
  expect(code.length).toBeLessThanOrEqual(2420);
  expect(readFileSync(join(root, "templates/runtime/main.sh"), "utf8")).toContain("@HASH@");
});
