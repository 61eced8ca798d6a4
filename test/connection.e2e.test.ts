/** How ssh gets to a host: port, key, jump host, host key, options and command are the same for ssh and nix; one login where one will do. */
import { chmodSync, copyFileSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { script, until } from "./faults.ts";
import {
  cli,
  cut,
  type Fleet,
  fleet,
  markFleet,
  mend,
  mustRun,
  run,
  ssh,
  sshConfig,
  task,
  temporaryDirectory,
  trySsh,
} from "./hosts.ts";
import { call, runtime } from "./runtime.ts";

const port = "2222";
const key = join(temporaryDirectory(), "it's a key");
const known = join(temporaryDirectory(), "known hosts");
const secrets = { all: { lollypops: { secrets: { files: { greeting: { cmd: "echo hello" } } } } } };
let made: Fleet;
let address: { pop1: string; pop2: string };
let hostKey: { pop1: string; pop2: string };
let env: { XDG_RUNTIME_DIR: string };

const keyOf = async (host: string) =>
  (await ssh(host, "cat /etc/ssh/ssh_host_ed25519_key.pub")).split(" ").slice(0, 2).join(" ");
const addressOf = async (host: string) =>
  (await mustRun("ssh", ["-G", "-F", sshConfig, host])).stdout.match(/^hostname (.*)$/m)?.[1] ?? "";

beforeAll(async () => {
  made = await fleet(secrets);
  await markFleet(made);
  address = { pop1: await addressOf("pop1"), pop2: await addressOf("pop2") };
  hostKey = { pop1: await keyOf("pop1"), pop2: await keyOf("pop2") };
  copyFileSync(join(dirname(sshConfig), "key"), key);
  chmodSync(key, 0o600);
  writeFileSync(known, `${address.pop1} ${hostKey.pop1}\n`);
  const wanted = "/var/src/lollypops-secrets"; // by hello.service
  await ssh("pop1", `mkdir -p ${wanted} && echo hello >${wanted}/greeting`);
  const stop = "systemctl stop second-sshd 2>/dev/null; systemctl reset-failed second-sshd 2>/dev/null";
  await ssh("pop1", `${stop}; systemd-run --quiet --unit=second-sshd /usr/sbin/sshd -D -p ${port} -o PidFile=none`);
});
afterAll(async () => {
  await ssh("pop1", "systemctl stop second-sshd");
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const inRun = () => readdirSync(env.XDG_RUNTIME_DIR, { recursive: true, encoding: "utf8" });
const sockets = () => inRun().filter((name) => statSync(join(env.XDG_RUNTIME_DIR, name)).isSocket());
/** The processes here that hold a socket of this run. */
const masters = () =>
  readdirSync("/proc").filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`-S\0${env.XDG_RUNTIME_DIR}/`);
    } catch {
      return false; // no process, or it ended meanwhile
    }
  });

beforeEach(() => {
  env = { XDG_RUNTIME_DIR: temporaryDirectory() };
});
afterEach(async () => {
  await mend(1);
  await until("every master has ended", () => masters().length === 0);
  expect(sockets()).toEqual([]);
});

/** What `work` came to, and how often root logged in to pop1 for it: from an address, or to the sshd of a unit. */
async function counted<T>(work: () => Promise<T>, { from = "", unit = "ssh" } = {}): Promise<[T, number]> {
  // Only once the login that asks stands there itself.
  const seen = `i=0; until journalctl -q -o cat _PID=$PPID + _PID=$(ps -o ppid= -p $PPID | tr -d ' ') | grep -q Accepted || [ $i = 100 ]; do i=$((i + 1)); sleep 0.05; done`;
  const accepted = `${seen}; journalctl -q --sync; journalctl -q -o cat -u ${unit} | grep -c 'Accepted publickey for root from ${from}' || :`;
  const ours = unit === "ssh" && from === "" ? 1 : 0; // the question itself
  const before = Number(await ssh("pop1", accepted));
  const result = await work();
  return [result, Number(await ssh("pop1", accepted)) - before - ours];
}

/** A step by itself, unless TASK says otherwise. */
const step = (verb: string, words: readonly string[], variables: Record<string, string> = {}) =>
  call([verb, "--host", "web1", ...words], { cwd: made.dir, env, variables: { TASK: `web1:${verb}`, ...variables } });
let version = Date.now();
/** The step that copies: a flake that has changed. */
async function copy(words: readonly string[], variables: Record<string, string> = {}) {
  await made.change(secrets, { version: `${++version}\n` });
  return step("deploy-flake", [...words, "--method", "copy"], { TASK: "web1:deploy-flake", ...variables });
}
const linked = {
  exitCode: 0,
  stdout: expect.stringMatching(/copying path[\s\S]*^deploy-flake: .*\/flake -> \/nix\/store/m),
};
const secret = ["--", "name=a", "path=/run/a", "cmd=echo a"];
/** The end of the deployment, for what a test has left open. */
const end = (variables = {}) => step("deploy-flake", config, { ...variables, TASK: "" });

const option = (...words: string[]) => words.flatMap((word) => ["--ssh-opt", word]);
const config = ["--to", "root@pop1", ...option("-F", sshConfig)];
/** Without a configuration file: what no option tells is not there. */
const bare = () => ["--to", `root@${address.pop1}`, ...option("-F", "none")];
const whole = () => [...bare(), "--identity", key, "--host-key", hostKey.pop1];

describe.each([
  { shared: true, more: [], times: 1 },
  { shared: false, more: ["--no-multiplex"], times: 3 },
])("ssh and nix alike, with a shared connection: $shared", ({ more, times }) => {
  it("an identity file with a blank, and a host key", async () => {
    expect(await counted(() => copy([...whole(), ...more]))).toEqual([expect.objectContaining(linked), times]);
  });

  it("a port, which an option of this run goes before", async () => {
    const words = [...whole(), "--port", port, ...more];
    const second = { unit: "second-sshd" };
    expect(await counted(() => copy(words), second)).toEqual([expect.objectContaining(linked), times]);
    const variables = { LP_REMOTE_SSH_OPTS: "-F none -p 22" };
    expect(await counted(() => copy(words, variables), second)).toEqual([expect.objectContaining(linked), 0]);
  });

  it("a jump host", async () => {
    const through = { from: address.pop2 };
    const jump = ["--jump", "root@pop2:22", ...more];
    expect(await counted(() => copy([...config, ...jump]), through)).toEqual([expect.objectContaining(linked), times]);
    const variables = { LP_REMOTE_SSH_OPTS: `-F ${sshConfig} -o ProxyJump=none` };
    const result = await counted(() => copy([...config, ...jump], variables), through);
    expect(result).toEqual([expect.objectContaining(linked), 0]);
  });

  it("options with blanks", async () => {
    const options = option("-i", key, "-o", `UserKnownHostsFile="${known}"`);
    const result = await counted(() => copy([...bare(), ...options, "--host-key", "strict", ...more]));
    expect(result).toEqual([expect.objectContaining(linked), times]);
  });

  it.each(["ssh", "another"])("a command of its own, named %s", async (name) => {
    const calls = join(temporaryDirectory(), "calls");
    const program = join(temporaryDirectory(), name);
    copyFileSync(script(`printf '%s ' "$@" >>'${calls}'; exec ssh "$@"`), program);
    const result = await counted(() => copy([...config, "--ssh", program, ...more]));
    expect(result).toEqual([expect.objectContaining(linked), name === "ssh" ? times : 3]);
    expect(readFileSync(calls, "utf8")).toContain("nix-store --serve");
  });

  it("a host called localhost", async () => {
    const forward = execa("ssh", ["-F", sshConfig, "-N", "-L", `2299:${address.pop1}:22`, "root@pop2"], {
      reject: false,
    });
    try {
      const words = ["--to", "localhost", ...option("-F", "none"), "--port", "2299", "--identity", key];
      const free = async () => (await run("ssh-keyscan", ["-p", "2299", "localhost"])).stdout !== "";
      await until("the port answers", free);
      const result = await copy([...words, "--host-key", hostKey.pop1, ...more]);
      expect(result).toMatchObject(linked);
    } finally {
      forward.kill();
      await forward;
    }
  });
});

describe("the host's key", () => {
  const keyLost = "the host's key is not that of deployment.ssh.host-key";

  it("is another than the one that is set: refused", async () => {
    const { stdout, stderr, exitCode } = await copy([...bare(), "--identity", key, "--host-key", hostKey.pop2]);
    expect(stderr).toBe(`web1: deploy-flake unreachable: ${keyLost}\n`);
    expect(stdout.match(/IDENTIFICATION HAS CHANGED/g)).toHaveLength(1);
    expect(exitCode).toBe(4);
  });

  it.each([
    ["nobody knows: strict refuses it", "strict", "", 4],
    ["nobody knows: accept-new takes it", "accept-new", "", 0],
    ["was another before: accept-new refuses it", "accept-new", "pop2", 4],
    ["is known: strict takes it", "strict", "pop1", 0],
  ])("%s", async (_, policy, knows, exitCode) => {
    const list = join(temporaryDirectory(), "known");
    if (knows) writeFileSync(list, `${address.pop1} ${hostKey[knows as "pop1" | "pop2"]}\n`);
    const words = [...bare(), "--identity", key, ...option("-o", `UserKnownHostsFile=${list}`), "--host-key", policy];
    const result = await copy(words);
    expect(result.exitCode).toBe(exitCode);
    if (exitCode === 4)
      expect(result.stderr).toMatch(
        /^web1: deploy-flake unreachable: Host key verification failed: the key is not known here/,
      );
    else expect(readFileSync(list, "utf8")).toContain(hostKey.pop1.split(" ")[1]);
    if (knows === "") expect(result.stdout.includes("Permanently added")).toBe(exitCode === 0);
  });

  it.each(["no", "ssh-ed25519", "ssh-ed25519 AAAA$(id)", "ssh-ed25519 'AAAA"])("%j is none", async (text) => {
    const { stderr, exitCode } = await step("check-vars", [...bare(), "--host-key", text]);
    expect(stderr).toContain("lollypops: web1: deployment.ssh.host-key is strict, accept-new or a public key, not");
    expect(exitCode).toBe(2);
  });
});

it.each(["-oProxyCommand=x", "root@-x", "pop2,-x", "a b", "x;y"])("no jump host: %j", async (jump) => {
  const { stderr, exitCode } = await step("check-vars", [...config, "--jump", jump]);
  expect(stderr).toMatch(/^lollypops: web1: the jump host.* is no host name, address or user: /);
  expect(exitCode).toBe(2);
});

describe("one login", () => {
  /** A Taskfile of web1, as generated, or with a flag more in each call. */
  async function deployment(flag = "", options = "") {
    const { stdout } = await cli([], { cwd: made.dir });
    writeFileSync(join(made.dir, "Taskfile.yml"), stdout.replaceAll(" --to root@pop1", ` ${flag} --to root@pop1`));
    const more = { LP_REMOTE_SSH_OPTS: `-F ${sshConfig} ${options}` };
    return () => task(["web1"], { cwd: made.dir, env: { ...env, ...more } });
  }
  const whole = { TASK: "web1:steps" };
  const done = { exitCode: 0, stdout: expect.stringMatching(/rebuild: (switched|unchanged)/) };

  it("is enough for a whole deployment; no process and no socket stay", async () => {
    await made.change(secrets, { version: `${++version}\n` });
    const whole = await deployment();
    expect(await counted(whole)).toEqual([expect.objectContaining(done), 2]); // and one that confirms
    await until("it has ended", () => masters().length === 0); // at once, and not by idle time
    expect(await counted(whole)).toEqual([expect.objectContaining(done), 1]);
  });

  it("unless switched off", async () => {
    const whole = await deployment("--no-multiplex");
    await whole();
    expect(await counted(whole)).toEqual([expect.objectContaining(done), 3]);
    expect(inRun().filter((name) => name.includes("/s."))).toEqual([]);
  });

  it("by the user's own configuration, where that shares", async () => {
    const own = join(temporaryDirectory(), "s");
    const whole = await deployment("", `-o ControlMaster=auto -o ControlPersist=30 -o ControlPath=${own}`);
    expect(await counted(whole)).toEqual([expect.objectContaining(done), 1]);
    expect(inRun().filter((name) => name.includes("/s."))).toEqual([]);
    await mustRun("ssh", ["-S", own, "-O", "exit", "x"]);
  });

  it("without a sound, in the dry run and with -v", async () => {
    await made.change(secrets, { version: `${++version}\n` });
    const whole = await deployment();
    for (const args of [["-v"], ["LOLLYPOPS_DRY_RUN=1"]]) {
      const { stdout, stderr } = await task(["web1", ...args], { cwd: made.dir, env });
      expect(stdout).toMatch(/^\[web1\] \+ ssh -F .* root@pop1 /m);
      expect(stdout + stderr).not.toMatch(/Control|mux|-S /);
    }
    expect(await whole()).toMatchObject(done);
  });

  it("shared by the steps, and ended with the last", async () => {
    expect(await counted(() => copy(config, whole))).toEqual([expect.objectContaining(linked), 1]);
    expect(masters()).toHaveLength(1);
    const twice = async () => [
      await step("deploy-secrets", [...config, ...secret], whole),
      await step("rebuild", config, { REBUILD_ACTION: "boot", ...whole }),
    ];
    expect(await counted(twice)).toMatchObject([[{ exitCode: 0 }, { exitCode: 0 }], 0]);
    await until("it has ended", () => masters().length === 0);
  });

  it("the shared connection dies between two steps: another login, and nobody sees it", async () => {
    expect(await copy(config, whole)).toMatchObject(linked);
    process.kill(Number(masters()[0]), "SIGKILL");
    await until("it is gone", () => masters().length === 0);
    expect(sockets()).toHaveLength(1);
    const again = await counted(() => step("deploy-secrets", [...config, ...secret], whole));
    expect(again).toMatchObject([{ exitCode: 0, stderr: "" }, 1]);
    expect(again[0].stdout).toMatch(/^(changed: a\n)?deploy-secrets: [01] changed, [01] unchanged\n$/);

    await copy(config, whole);
    await ssh(
      "pop1",
      `own=" $PPID "$(ps -o ppid= -p $PPID)" "; for p in $(pgrep -f '[s]shd.*: root'); do case $own in *" $p "*) ;; *) kill $p ;; esac; done`,
    );
    const more = await step("deploy-secrets", [...config, ...secret], whole);
    expect(more).toMatchObject({ exitCode: 0, stderr: "", stdout: "deploy-secrets: 0 changed, 1 unchanged\n" });
    await end();
  });

  it.each([
    ["the shared connection", "-M"],
    ["what uses it", "-T"],
  ])("%s is killed during an activation: the step finds that again", async (_, what) => {
    await copy(config, whole);
    await ssh("pop1", "mkdir -p /run/standin && touch /run/standin/hang");
    const running = step("rebuild", config, { REBUILD_ACTION: "test" });
    const lock = "/run/nixos/switch-to-configuration.lock";
    try {
      await until(
        "it has begun",
        async () => (await trySsh("pop1", `[ -e ${lock} ] && ! flock -n ${lock} :`)).exitCode === 0,
      );
      await pause(1000); // the word of it arrives
      const [pid] = masters().filter((one) => readFileSync(`/proc/${one}/cmdline`, "latin1").includes(`\0${what}\0`));
      process.kill(Number(pid), "SIGKILL");
      await pause(3000);
    } finally {
      await ssh("pop1", "rm -f /run/standin/hang");
    }
    const { stdout, stderr, exitCode } = await running;
    expect(stdout).toContain("rebuild: the connection was lost; the activation goes on, looking for it\n");
    expect(stdout).toContain("runs until the next boot");
    expect([stderr, exitCode]).toEqual(["", 0]);
  });

  it("goes to one place only: another address is another login", async () => {
    await Promise.all(["pop1", "pop2"].map((host) => ssh(host, "rm -f /run/a")));
    expect(await step("deploy-secrets", [...config, ...secret], whole)).toMatchObject({ exitCode: 0 });
    const variables = { LP_REMOTE_HOST: "pop2", LOLLYPOPS_ANY_HOST: "1", ...whole };
    expect(await step("deploy-secrets", [...config, ...secret], variables)).toMatchObject({ exitCode: 0 });
    expect(await ssh("pop2", "cat /run/a")).toBe("a\n");
    expect(masters()).toHaveLength(2);
    expect(await end(variables)).toMatchObject({ exitCode: 0 });
    await until("one has ended", () => masters().length === 1);
    await end();
  });

  it("where the path of a socket would be too long, there is none", async () => {
    env = { XDG_RUNTIME_DIR: join(temporaryDirectory(), "x".repeat(60)) };
    await mustRun("mkdir", [env.XDG_RUNTIME_DIR]);
    expect(await counted(() => copy(config))).toEqual([expect.objectContaining(linked), 3]);
  });

  it("a host that is off is tried once, and told once", async () => {
    await cut(1);
    for (const verb of ["deploy-flake", "rebuild --local-evaluation"]) {
      const words = [
        ...verb.split(" ").slice(1),
        ...config,
        ...option("-oConnectTimeout=4"),
        "--attribute",
        "nixosConfigurations",
      ];
      const before = Date.now();
      const { stdout, stderr, exitCode } = await step(verb.split(" ")[0] ?? "", words);
      expect(Date.now() - before).toBeLessThan(7500);
      expect(stdout.match(/timed out/g)).toHaveLength(1);
      expect(stderr).toMatch(
        /^(warning: .*\n)?web1: [a-z-]+ unreachable: ssh: connect to host .* port 22: Connection timed out\n$/,
      );
      expect(exitCode).toBe(4);
    }
  });

  it("a jump host that is wrong is told by its own words", async () => {
    const { stderr, exitCode } = await copy([...config, "--jump", "root@pop2:1"]);
    expect(stderr + (await step("deploy-secrets", [...config, "--jump", "root@pop2:1", ...secret])).stdout).toContain(
      "port 1: Connection refused",
    );
    expect(exitCode).toBe(4);
  });

  it("fresh=1: the next call has a connection of its own, whatever is shared", async () => {
    const own = join(temporaryDirectory(), "s");
    const text = runtime.text.replace(
      "verb_check_vars() {",
      "verb_check_vars() { fresh=1; on_target link /x /y; on_target link /x /y;",
    );
    const call = (options: string[]) =>
      run("sh", ["-c", 'eval "$LOLLYPOPS_TEXT"', "lollypops", "check-vars", "--host", "web1", ...config, ...options], {
        env: {
          ...env,
          LOLLYPOPS_TEXT: text,
          [`LOLLYPOPS_TARGET_${runtime.hash}`]: runtime.targets,
          [`LOLLYPOPS_SET_${runtime.hash}`]: runtime.settings.map((name) => `${name}=\n`).join(""),
        },
      });
    expect(await counted(() => call([]))).toMatchObject([{ exitCode: 0 }, 2]);
    const shares = option("-oControlMaster=auto", "-oControlPersist=30", `-oControlPath=${own}`);
    expect(await counted(() => call(shares))).toMatchObject([{ exitCode: 0 }, 2]);
    expect(await counted(() => call(shares))).toMatchObject([{ exitCode: 0 }, 1]);
    expect(existsSync(own)).toBe(true);
    await mustRun("ssh", ["-S", own, "-O", "exit", "x"]);
  });
});
