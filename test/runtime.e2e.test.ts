// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
/** The runtime's control side without GNU, the Taskfile far from home, and hostile strings through real ssh and a remote sh. */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { checkHosts } from "../src/rules.ts";
import { buildTaskfile } from "../src/taskfile.ts";
import { assembleRuntime, readTemplates } from "../src/templates.ts";
import { render } from "../src/yaml.ts";
import {
  cli,
  type Fleet,
  fleet,
  fleetHosts,
  markFleet,
  type Result,
  root,
  ssh,
  sshConfig,
  task,
  temporaryDirectory,
} from "./hosts.ts";
import { type Shell, sparePath } from "./runtime.ts";

// Commands that read no file: these deployments run in an empty directory.
const settings = { all: { lollypops: { secrets: { files: { greeting: { cmd: "echo hello" } } } } } };

/** What `fixtures/fleet` comes to, as a Taskfile of this version or of one whose runtime says so. */
async function taskfile(made: Fleet, otherVersion = false): Promise<string> {
  if (!otherVersion) return mustGenerate(["--flake", made.dir], made.dir);
  const files = readdirSync(join(root, "templates/runtime"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".sh"))
    .map((name) => [`runtime/${name}`, readFileSync(join(root, "templates/runtime", name), "utf8")] as const);
  const changed = files.map(
    ([name, text]) => [name, text.replaceAll("$step: ok", "$step: ok, says the other")] as const,
  );
  const templates = { ...(await readTemplates()), runtime: assembleRuntime(Object.fromEntries(changed)) };
  const input = JSON.parse(await mustGenerate(["eval"], made.dir));
  const checked = checkHosts({ hosts: input.hosts, failures: {} });
  const where = { flake: made.dir, attribute: "nixosConfigurations", nixOptions: [] };
  return render(buildTaskfile(checked.hosts, templates, where));
}

async function mustGenerate(args: string[], cwd: string, input?: string): Promise<string> {
  const { stdout, stderr, exitCode } = await cli(args, { cwd, ...(input === undefined ? {} : { input }) });
  if (exitCode !== 0) throw new Error(stderr);
  return stdout;
}

function expectDone(result: Result, words: string) {
  expect(result.stdout + result.stderr).toContain(words);
  expect(result.exitCode).toBe(0);
}

describe("the control side without GNU", () => {
  test.each(["busybox", "bash"] satisfies Shell[])(
    "%s as sh and busybox for the rest deploy three hosts from an empty directory",
    async (shell) => {
      const made = await fleet();
      await markFleet(made);
      await made.change(settings);
      const cwd = temporaryDirectory();
      writeFileSync(join(cwd, "Taskfile.yml"), await taskfile(made));
      const env = {
        PATH: await sparePath(shell, ["ssh", "nix", "nix-store", "task"]),
        LOLLYPOPS_FLAKE: `path:${made.dir}`,
      };

      expectDone(await task(["deploy-all"], { cwd, env }), "3 of 3 hosts deployed\n");
      for (const [host, name] of Object.entries(fleetHosts)) {
        expect(await ssh(host, "readlink -f /run/current-system")).toContain(`-nixos-system-${name}-1`);
        expect(await ssh(host, "cat /run/hello /var/src/lollypops-secrets/'api token'")).toBe(
          `hello\ntoken of ${name}\n`,
        );
      }
      const again = await task(["-v", "deploy", "--", "@web", "db*"], { cwd, env });
      expectDone(again, "3 of 3 hosts deployed, 3 of them unchanged\n");
      expect(again.stdout).toMatch(/^\[web2\] \+ ssh .* root@pop2 /m);

      const failing = await task(["all:check-vars", "LP_REMOTE_USER=-x"], { cwd, env });
      expect(failing.stdout).toContain("0 of 3 hosts with check-vars done; NOT done: 3 failed\n");
      expect(failing.stdout).toContain("  db1: failed at check-vars: the user (LP_REMOTE_USER) is no host name");
      expect(failing.exitCode).toBe(201);
      expect(readdirSync(cwd)).toEqual(["Taskfile.yml"]);
    },
  );
});

describe("included by a user's own Taskfile", () => {
  let made: Fleet;
  let cwd: string;

  beforeAll(async () => {
    made = await fleet();
    await markFleet(made);
    await made.change(settings);
    cwd = temporaryDirectory();
    mkdirSync(join(cwd, "sub"));
    writeFileSync(join(cwd, "sub/fleet.yml"), await taskfile(made));
    writeFileSync(join(cwd, "other.yml"), await taskfile(made, true));
    const includes = (more: string) =>
      `version: "3.51.1"\nincludes:\n  fleet: ./sub/fleet.yml\n${more}tasks:\n  own: echo mine\n`;
    writeFileSync(join(cwd, "Taskfile.yml"), includes("  other: ./other.yml\n"));
    writeFileSync(
      join(cwd, "flat.yml"),
      'version: "3.51.1"\nincludes:\n  fleet:\n    taskfile: ./sub/fleet.yml\n    flatten: true\n    excludes: [default]\ntasks:\n  default: echo mine\n',
    );
  });

  test("each of two versions runs its own runtime", async () => {
    const both = await task(["fleet:web1:check-vars", "other:web1:check-vars"], { cwd });
    expect(both.exitCode).toBe(0);
    expect(both.stdout).toMatch(/check-vars: ok\n[\s\S]*check-vars: ok, says the other\n/);
    expect((await task(["other:all:check-vars"], { cwd })).stdout).toContain("3 of 3 hosts with check-vars done");
  });

  test("a whole deployment, a step, a host", async () => {
    const all = await task(["fleet:deploy-all"], { cwd });
    expectDone(all, "3 of 3 hosts deployed\n");
    const step = await task(["fleet:web1:rebuild", "REBUILD_ACTION=test"], { cwd });
    expectDone(step, "rebuild: ");
    const host = await task(["other:web1"], { cwd });
    expectDone(host, "deploy-secrets: 0 changed, 3 unchanged");
    const failing = await task(["fleet:all:check-vars", "LP_REMOTE_USER=-x"], { cwd });
    expect(failing.stdout).toContain("  web1: failed at check-vars: the user (LP_REMOTE_USER)");
    expect(failing.exitCode).toBe(201);
  });

  test("prefixes name the host where the user's file has output: prefixed", async () => {
    const { stdout } = await task(["-o", "prefixed", "fleet:all:check-vars"], { cwd });
    for (const name of Object.values(fleetHosts)) expect(stdout).toContain(`[${name}] check-vars: ok\n`);
    expect(stdout).toMatch(/^3 of 3 hosts with check-vars done$/m);
  });

  test("flattened, beside the user's own default", async () => {
    expect((await task(["-t", "flat.yml"], { cwd })).stdout).toContain("mine\n");
    const dry = await task(["-t", "flat.yml", "deploy-all", "LOLLYPOPS_DRY_RUN=1"], { cwd });
    expectDone(dry, "3 of 3 hosts shown\n");
    expectDone(await task(["-t", "flat.yml", "deploy", "--", "web1"], { cwd }), "1 of 1 hosts deployed");
  });
});

/** One secret as it is generated: what comes on the target must be just this. */
type HostileSecret = { name: string; path: string; mode: string; owner: string; content: Buffer };

const base = '/var/tmp/it\'s "a" $(home) of `secrets` {{.X}} %s é';
const owners = { root: "root root", games: "games games", "www-data": "www-data www-data" } as const;
const pieces = [
  ..."'\"\\`$!&|;<>(){}[]*?~#%=^:@, -".split(""),
  ..."azé😀Á\u0085\u00a0\u2028\u0301ÿ中".split(/(?:)/u),
  ..."{{ }} {{.X}} <no value> $(touch${IFS}x) ${HOME} %s%n -- -rf .. EOF TARGET".split(" "),
];
const component = fc
  .array(fc.constantFrom(...pieces), { minLength: 1, maxLength: 8 })
  .map((list) => list.join(""))
  .filter((text) => !["", ".", ".."].includes(text) && !text.includes("/") && Buffer.byteLength(text) < 200);
const bytes = fc.oneof(
  { weight: 6, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 300 }).map((list) => Buffer.from(list)) },
  {
    weight: 2,
    arbitrary: fc.constantFrom("\0", "\n", "\n\n", "x", "\0\0\n", "B", ".", "!1!", "-n").map((t) => Buffer.from(t)),
  },
  { weight: 2, arbitrary: component.map((text) => Buffer.from(`${text}\n${text}`)) },
  { weight: 1, arbitrary: fc.integer({ min: 50_000, max: 200_000 }).map((size) => randomBytes(size)) },
);
const secret = fc.record({
  name: component,
  directories: fc.array(component, { maxLength: 2 }),
  mode: fc.constantFrom("0400", "0440", "0600", "0644", "0777", "4755", "000"),
  owner: fc.constantFrom(...(Object.keys(owners) as (keyof typeof owners)[])),
  content: bytes,
});

/** The same bytes every time. */
function randomBytes(size: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(size / 32) }, (_, at) =>
    createHash("sha256").update(`${size} ${at}`).digest(),
  );
  return Buffer.concat(blocks).subarray(0, size);
}

/** COUNT secrets of different names and places; no file stands where another's directory is. */
function sample(count: number, seed: number): HostileSecret[] {
  return fc.sample(secret, { numRuns: count, seed }).map(({ directories, ...rest }, at) => {
    const path = [base, ...directories.map((name) => `d${name}`), `${rest.name}${at}`].join("/");
    return { ...rest, name: `${rest.name}${at}`, path };
  });
}

/** A directory with a Taskfile that brings these secrets to pop1. */
async function secretsTaskfile(secrets: readonly HostileSecret[], deployment: object = {}): Promise<string> {
  const cwd = temporaryDirectory();
  const contents = join(cwd, "it's $(contents)");
  mkdirSync(contents);
  const files = secrets.map(({ name, path, mode, owner, content }, at) => {
    writeFileSync(join(contents, String(at)), content);
    return [name, { path, mode, owner, cmd: `cat "./it's \\$(contents)/${at}"` }];
  });
  const host = {
    deployment: { ssh: { host: "pop1", user: "root" }, ...deployment },
    secrets: { files: Object.fromEntries(files) },
  };
  const input = JSON.stringify({ schema: 1, hosts: { web1: host } });
  writeFileSync(join(cwd, "Taskfile.yml"), await mustGenerate(["--from", "-"], cwd, input));
  return cwd;
}

async function expectOnTarget(secrets: readonly HostileSecret[]): Promise<void> {
  const quoted = `'${base.replaceAll("'", "'\\''")}'`;
  const listing = await ssh(
    "pop1",
    `cd ${quoted} && find . -type f -exec stat --printf '%U %G %a %n\\0' {} + && printf '\\0' && find . -type f -exec sha256sum -z {} +`,
  );
  const [stats = "", sums = ""] = listing.split("\0\0");
  const octal = (mode: string) => Number.parseInt(mode, 8).toString(8);
  const relative = (path: string) => `.${path.slice(base.length)}`;
  const sorted = (list: string[]) => list.filter((line) => line !== "").sort();
  expect(sorted(stats.split("\0"))).toEqual(
    sorted(
      secrets.map(
        ({ owner, mode, path }) => `${owners[owner as keyof typeof owners]} ${octal(mode)} ${relative(path)}`,
      ),
    ),
  );
  const sum = (content: Buffer) => createHash("sha256").update(content).digest("hex");
  expect(sorted(sums.split("\0"))).toEqual(
    sorted(secrets.map(({ content, path }) => `${sum(content)}  ${relative(path)}`)),
  );
}

const clearBase = () => ssh("pop1", `rm -rf '${base.replaceAll("'", "'\\''")}'`);
const leftovers = () => ssh("pop1", "find / -xdev -name '.lollypops.*'; ls -d /run/lollypops 2>/dev/null || :");

describe("hostile secrets through real ssh and a remote sh", () => {
  test.each([
    [1, "/bin/bash", {}],
    [2, "/bin/dash", {}],
    [3, "/bin/bash", { ssh: { host: "pop1", user: "ops" }, sudo: { enable: true, opts: ["-p", "it's $x %s"] } }],
  ])("100 of them stay what they are (sample %i, login shell %s)", async (seed, loginShell, deployment) => {
    await ssh("pop1", `usermod -s ${loginShell} root`);
    try {
      await clearBase();
      const secrets = sample(100, seed);
      const cwd = await secretsTaskfile(secrets, deployment);
      expectDone(await task(["web1:deploy-secrets"], { cwd }), "[web1] deploy-secrets: 100 changed, 0 unchanged\n");
      await expectOnTarget(secrets);
      expectDone(await task(["web1:deploy-secrets"], { cwd }), "[web1] deploy-secrets: 0 changed, 100 unchanged\n");
      expect(readdirSync(cwd).sort()).toEqual(["Taskfile.yml", "it's $(contents)"]);
      expect(await leftovers()).toBe("");
    } finally {
      await ssh("pop1", "usermod -s /bin/bash root");
    }
  });

  test("one of a megabyte, with another sh here", async () => {
    await clearBase();
    const secrets = [{ name: "big", path: `${base}/big`, mode: "0400", owner: "games", content: randomBytes(1 << 20) }];
    const cwd = await secretsTaskfile(secrets);
    const env = { PATH: await sparePath("busybox", ["ssh", "task"]) };
    expectDone(await task(["web1:deploy-secrets"], { cwd, env }), "1 changed, 0 unchanged");
    await expectOnTarget(secrets);
    await clearBase();
  });
});

describe("ssh options with blanks and quotes", () => {
  test("arrive as one word, at ssh and at nix", async () => {
    const made = await fleet();
    await markFleet(made);
    await made.change(settings);
    const proxy = `ProxyCommand=sh -c "exec busybox nc '%h' \\"\\$0\\"" %p`;
    await made.change({
      ...settings,
      hosts: {
        web1: {
          lollypops: { deployment: { ssh: { opts: ["-F", sshConfig, "-o", proxy, "-o", 'SetEnv=LC_X="it is  a"'] } } },
        },
      },
    });
    writeFileSync(join(made.dir, "Taskfile.yml"), await taskfile(made));
    const env = { LP_REMOTE_SSH_OPTS: "" };
    expectDone(await task(["web1"], { cwd: made.dir, env }), "[web1] rebuild: switched to");
    const again = {
      LP_REMOTE_SSH_OPTS: `-F ${sshConfig} -o 'ProxyCommand=sh -c "exec busybox nc %h %p"' -o 'SetEnv="LC_X=a b"'`,
    };
    expectDone(await task(["web1"], { cwd: made.dir, env: again }), "[web1] rebuild: unchanged");
    await ssh("pop1", "rm -r /var/src/lollypops");
    expectDone(
      await task(["web1:deploy-flake"], { cwd: made.dir, env: again }),
      "deploy-flake: /var/src/lollypops/flake -> ",
    );
  });
});
