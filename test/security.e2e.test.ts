// What others on a target, on this machine, or an unlucky moment could make of a deployment.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import {
  cli,
  type Fleet,
  fleet,
  markFleet,
  mustRun,
  run,
  type Settings,
  ssh,
  task,
  temporaryDirectory,
} from "./hosts.ts";
import { call } from "./runtime.ts";

let place: Fleet;
beforeAll(async () => {
  place = await fleet();
  await markFleet(place);
});

const files = (secrets: Record<string, unknown>): Settings => ({
  hosts: { web1: { lollypops: { secrets: { files: secrets } } } },
});
const only = { greeting: null, "api token": null, "tls/key.pem": null };

async function prepare(settings: Settings, more: Record<string, string> = {}): Promise<void> {
  await place.change(settings, more);
  const { stderr, exitCode } = await cli(["-o", "Taskfile.yml"], { cwd: place.dir });
  expect([exitCode, stderr]).toEqual([0, ""]);
}
const deploy = (...args: string[]) => task(args, { cwd: place.dir });
const one = { cmd: "echo one" };
const home = (word: string, path = "/home/ops/s/mine") => ({
  users: { ops: { secrets: { files: { mine: { path, cmd: `echo ${word}` } } } } },
});

/** A directory with these shell programs. */
function programs(texts: Record<string, string>): string {
  const dir = temporaryDirectory();
  for (const [name, text] of Object.entries(texts))
    writeFileSync(join(dir, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  return dir;
}
/** On pop1, this goes before a program of that name. */
async function standIn(name: string, text: string): Promise<void> {
  const program = `#!/bin/sh\n${text}\nexec "$(PATH=/usr/sbin:/usr/bin; command -v ${name})" "$@"\n`;
  await ssh("pop1", `cat >/usr/local/bin/${name} && chmod 755 /usr/local/bin/${name}`, { input: program });
}

describe("others on the target", () => {
  it("an account with secrets can say what it wants: root runs, believes and waits for none of it", async () => {
    await prepare({
      hosts: { web1: { lollypops: { secrets: { files: { ...only, one } }, "home-manager": home("mine") } } },
    });
    expect((await deploy("web1:deploy-secrets")).exitCode).toBe(0);
    // What runs with its rights can be made to do anything, as its debugger sees to.
    const lines = [
      "x 1;touch /pwned;",
      "touch$IFS/pwned;x 1",
      "changed-$(touch$IFS/pwned) 1",
      "orphans 2",
      "changed 1",
      " failed",
    ];
    const say = lines.map((line) => `echo '${line}'; echo '${line}' >&2; echo '${line}' >&7`).join("; ");
    await standIn("setpriv", `${say}; sleep 4242 &`);
    const { stdout, exitCode } = await deploy("web1:deploy-secrets");
    expect([exitCode, stdout]).toEqual([0, "[web1] deploy-secrets: 0 changed, 2 unchanged\n"]);
    expect(await ssh("pop1", "pgrep -fx 'sleep 4242' | wc -l")).not.toBe("0\n");
    await ssh(
      "pop1",
      "pkill -fx 'sleep 4242'; rm /usr/local/bin/setpriv; cd /; ! ls -d pwned var/lib/lollypops/pending run/lollypops",
    );
  });

  it("a waiting secret is not given away where its directory has become another's", async () => {
    await prepare(files({ ...only, one }));
    await ssh("pop1", "mkdir -p /srv/theirs /var/lib/lollypops; echo secret >/srv/theirs/s; chown ops: /srv/theirs");
    await ssh("pop1", "echo 'own ops - 0400 /srv/theirs/s' >/var/lib/lollypops/pending");
    expect((await deploy("web1:deploy-secrets")).stdout).toContain("[web1] not given to ops: /srv/theirs/s");
    expect(await ssh("pop1", "stat -c %U /srv/theirs/s; rm -r /srv/theirs /var/lib/lollypops")).toBe("root\n");
  });

  it("root makes no link for the flake below a directory of somebody else", async () => {
    const lollypops = { deployment: { "config-dir": "/home/ops/cfg/lp" } };
    await prepare({ hosts: { web1: { lollypops } } }, { salt: String(Date.now()) });
    await ssh("pop1", "mkdir -p ~/cfg && ln -sfn /etc ~/cfg/lp", { user: "ops" });
    // Nor does it build what such a link names, where the flake itself was not deployed.
    const rebuilt = await deploy("web1:rebuild");
    expect(rebuilt.stdout).toContain(
      "web1: rebuild failed: /home/ops/cfg/lp/flake: a symbolic link is among the parents",
    );
    const { stdout, exitCode } = await deploy("web1:deploy-flake");
    expect(stdout).toContain("web1: deploy-flake failed: /home/ops/cfg/lp/flake: a symbolic link is among the parents");
    expect(exitCode).toBe(201);
    expect(await ssh("pop1", "ls /etc/flake 2>&1 || :")).toContain("No such file");
  });

  it("values of a deployment that was killed do not stay", async () => {
    await prepare(files({ ...only, one: { cmd: "echo one" } }));
    await ssh(
      "pop1",
      "mkdir -p /run/lollypops/secrets.AAAAAAAAAA/root && echo c2VjcmV0 >/run/lollypops/secrets.AAAAAAAAAA/root/v1",
    );
    expect((await deploy("web1:deploy-secrets")).exitCode).toBe(0);
    expect(await ssh("pop1", "ls -A /run | grep lollypops || :")).toBe("");
  });

  it("a secret can stand right below /", async () => {
    await prepare(
      files({ ...only, top: { path: "/top-secret", cmd: "echo top" }, own: { path: "/own/secret", cmd: "echo own" } }),
    );
    expect((await deploy("web1:deploy-secrets")).exitCode).toBe(0);
    expect(await ssh("pop1", "cat /top-secret /own/secret; rm -r /top-secret /own")).toBe("top\nown\n");
  });
});

describe("this machine", () => {
  it("a secret that was cut off on the way is not sent", async () => {
    await prepare(files({ ...only, cut: { cmd: "echo a-long-secret" } }));
    const bin = temporaryDirectory();
    writeFileSync(join(bin, "base64"), "#!/bin/sh\nhead -c 6; kill -9 $$\n", { mode: 0o755 });
    const { stdout } = await task(["web1:deploy-secrets"], {
      cwd: place.dir,
      env: { PATH: `${bin}:${process.env["PATH"]}` },
    });
    expect(stdout).toContain("web1: deploy-secrets failed: base64 failed; nothing was sent");
  });

  it("notes in a directory that somebody else can replace are not believed", async () => {
    await prepare({});
    const directory = temporaryDirectory();
    await mustRun("sh", [
      "-c",
      `chmod 1777 '${directory}' && mkdir -m 777 '${directory}/lollypops-0' && chown nobody '${directory}/lollypops-0'`,
    ]);
    const { stderr, exitCode } = await task(["all:check-vars"], {
      cwd: place.dir,
      env: { XDG_RUNTIME_DIR: undefined, TMPDIR: directory },
    });
    expect(stderr).toContain(`cannot keep notes in ${directory}/lollypops-0`);
    expect(exitCode).toBe(201);
  });

  it("a password for sudo is in no environment, where there is no ssh between", async () => {
    const bin = programs({ sudo: "cat /proc/$$/environ >&2; exit 1" });
    const words = [
      "deploy-secrets",
      "--host",
      "web1",
      "--local",
      "--sudo",
      "sudo",
      "--password-command",
      "echo pois0n",
    ];
    const { stdout } = await call([...words, "--", "name=a", "path=/no/where", "cmd=echo b"], {
      path: bin,
      env: { p: "exported" },
    });
    expect(stdout).toContain("PATH=");
    expect(stdout).not.toContain("pois0n");
  });
});

describe("a target that lies", () => {
  const read =
    'while IFS= read -r line; do case $line in B*) break ;; esac; done; IFS= read -r mark; cat >/dev/null; echo "$mark here"';

  it("makes the terminal do nothing", async () => {
    const said = "\\033]0;title\\007\\033[2Jtext\\r";
    const bin = programs({ ssh: `${read}; printf "${said}\\n$mark failed ${said}\\n"` });
    const { stdout, stderr } = await call(
      ["deploy-secrets", "--host", "web1", "--to", "web1", "--", "name=a", "path=/a/b", "cmd=echo"],
      {
        path: bin,
      },
    );
    expect([stdout, stderr]).toEqual(["]0;title[2Jtext\n", "web1: deploy-secrets failed: ]0;title[2Jtext\n"]);
  });

  it("gets nothing from the store here but what it is to run", async () => {
    const [system, part] = ["/nix/store/a-system", "/nix/store/b-part"];
    const asked = join(temporaryDirectory(), "asked");
    const bin = programs({
      ssh: `${read}; echo "$mark missing ${part} /etc/shadow --option /nix/store/* ${part} /nix/store/c-other"`,
      nix: `case "$*" in *path-info*) echo ${system}.drv ;; *) echo ${system} ;; esac`,
      "nix-store": `case $1 in --query) printf '%s\\n' ${part} ${system} ;; *) echo "$*" >${asked} ;; esac`,
    });
    const words = [
      "rebuild",
      "--host",
      "web1",
      "--to",
      "web1",
      "--local-evaluation",
      "--build-on",
      "local",
      "--sudo",
      "sudo",
    ];
    await call([...words, "--password-command", "echo word"], { path: bin });
    expect(readFileSync(asked, "utf8")).toBe(`--export ${part} ${part}\n`);
  });
});

describe("a kill at the worst moment", () => {
  const names = { one: "/srv/k/one", two: "/srv/k2/two", three: "/home/ops/k/three" };
  const content = () => ssh("pop1", `cat ${Object.values(names).join(" ")}`);
  const all = (word: string) => `${word}\n`.repeat(3);
  const configure = (word: string) => {
    const system = { one: { path: names.one, cmd: `echo ${word}` }, two: { path: names.two, cmd: `echo ${word}` } };
    const lollypops = { secrets: { files: { ...only, ...system } }, "home-manager": home(word, names.three) };
    return prepare({ hosts: { web1: { lollypops } } });
  };
  const kill = (victim: string) => `rm "$0"; kill -9 ${victim}`;

  it.each(["awk", "chown", "cp", "flock", "mktemp", "mv", "setpriv", "stat", "sync", "timeout"])(
    "of what calls %s there leaves whole secrets, and nothing that the next deployment does not tidy up",
    async (program) => {
      await configure("old");
      expect((await deploy("web1:deploy-secrets")).exitCode).toBe(0);
      await configure("new");
      await standIn(program, kill("$PPID"));
      const { stdout, exitCode } = await deploy("web1:deploy-secrets");
      expect(exitCode).toBe(201);
      if (!stdout.includes("deploy-secrets unknown")) expect(await content()).toBe(all("old"));
      expect(await content()).toMatch(/^((old|new)\n){3}$/);
      expect((await deploy("web1:deploy-secrets")).exitCode).toBe(0);
      expect(await content()).toBe(all("new"));
      expect(await ssh("pop1", "find /srv /home /run/lollypops -name '*lollypops*' 2>/dev/null || :")).toBe("");
    },
  );

  it.each(["base64", "od", "ssh"])("of %s here sends nothing, or all of it", async (program) => {
    await configure("old");
    expect((await deploy("web1:deploy-secrets")).exitCode).toBe(0);
    await configure("new");
    const bin = programs({ [program]: kill("$$") });
    const env = { PATH: `${bin}:${process.env["PATH"]}` };
    expect((await task(["web1:deploy-secrets"], { cwd: place.dir, env })).exitCode).toBe(201);
    expect(await content()).toBe(all("old"));
    expect((await task(["web1:deploy-secrets"], { cwd: place.dir, env })).exitCode).toBe(0);
    expect(await content()).toBe(all("new"));
  });
});

describe("an honest end", () => {
  it("hosts of two groups are deployed once, and both reports say so", async () => {
    const both = { lollypops: { deployment: { groups: ["eu"] } } };
    await prepare({ hosts: { web1: both, web2: both } });
    const { stdout, exitCode } = await deploy("web", "eu");
    expect(exitCode).toBe(0);
    expect(stdout).toContain("2 of 2 hosts deployed");
    expect(stdout).toContain("2 of 2 hosts deployed");
  });

  it("an own task that go-task skips is done, one that fails is named", async () => {
    const web1 = { tasks: ["smoke"], extraTasks: { smoke: { status: ["true"], cmds: ["false"] } } };
    const web2 = {
      tasks: ["smoke", "other"],
      extraTasks: { smoke: { cmds: ["true"] }, other: { preconditions: ["false"] } },
    };
    await prepare({ hosts: { web1: { lollypops: web1 }, web2: { lollypops: web2 } } });
    const { stdout, exitCode } = await deploy("web");
    expect(exitCode).toBe(201);
    expect(stdout).toContain("1 of 2 hosts deployed");
    expect(stdout).toContain("  web2: failed at other: its own words are above");
    expect((await deploy("web:smoke")).stdout).toContain("2 of 2 hosts with smoke done");
  });

  it("one address for two hosts is refused, however they are named", async () => {
    await prepare({});
    const { stdout, exitCode } = await deploy("web1:check-vars", "web2:check-vars", "LP_REMOTE_HOST=pop1");
    expect(stdout).toContain("web2: LP_REMOTE_HOST=pop1 is already web1 in this run");
    expect(exitCode).toBe(201);
  });

  it("own tasks take no LP_ value that ssh would misread", async () => {
    await prepare({ all: { lollypops: { extraTasks: { smoke: { cmds: ["echo to {{.REMOTE_HOST}}"] } } } } });
    const { stdout, exitCode } = await deploy("web1:smoke", "LP_REMOTE_HOST=x; echo INJECTED");
    expect(stdout).not.toMatch(/^\[web1\] INJECTED/m);
    expect(exitCode).toBe(201);
  });

  it("a flake below the top of its repository is deployed by steps, and from elsewhere", async () => {
    const repository = temporaryDirectory();
    await mustRun("sh", [
      "-c",
      `cp -R '${place.dir}' '${repository}/sub' && rm -rf '${repository}/sub/.git' && git -C '${repository}' init -q && git -C '${repository}' add -A`,
    ]);
    const dir = join(repository, "sub");
    await cli(["-o", "Taskfile.yml"], { cwd: dir });
    for (const step of ["web1:deploy-flake", "web1:deploy-secrets", "web1:rebuild"]) {
      const { stdout, stderr, exitCode } = await task([step], { cwd: dir });
      expect([step, exitCode, exitCode === 0 ? "" : stdout + stderr]).toEqual([step, 0, ""]);
    }
    // The flake is the one beside the Taskfile, wherever task is called.
    const shown = await run("task", ["-t", join(dir, "Taskfile.yml"), "web1:deploy-flake"], {
      cwd: "/",
      env: { LOLLYPOPS_DRY_RUN: "1" },
    });
    expect(shown.stdout).toContain(`flake prefetch --json ${dir}`);
  });
});
