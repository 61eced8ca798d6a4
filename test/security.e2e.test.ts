// What others on a target, on this machine, or an unlucky moment could make of a deployment.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
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

describe("others on the target", () => {
  it("an account that writes its own secrets makes root read nothing for it", async () => {
    const home = {
      users: { ops: { secrets: { "default-dir": "/home/ops/s", files: { mine: { cmd: "echo mine" } } } } },
    };
    await prepare({ hosts: { web1: { lollypops: { secrets: { files: only }, "home-manager": home } } } });
    // It plants links wherever it may write, for as long as the deployment goes on.
    const plant =
      'while :; do for d in /run/lollypops/secrets.*/ops; do for f in .changed .same t.1 .v1; do ln -sf /etc/shadow "$d/$f"; done; done; done 2>/dev/null';
    await ssh("pop1", `nohup timeout 20 sh -c '${plant}' >/dev/null 2>&1 &`, { user: "ops" });
    const { stdout } = await deploy("web1:deploy-secrets");
    await ssh("pop1", "pkill -u ops -f lollypops/secrets || :");
    expect(stdout).not.toMatch(/root:.*:\d+/);
    expect(stdout).toMatch(/web1.*deploy-secrets/);
  });

  it("root makes no link for the flake below a directory of somebody else", async () => {
    await prepare({ hosts: { web1: { lollypops: { deployment: { "config-dir": "/home/ops/cfg/lp" } } } } });
    await ssh("pop1", "mkdir -p ~/cfg && ln -sfn /etc ~/cfg/lp", { user: "ops" });
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
  it("what the environment exports never carries a secret", async () => {
    const second = 'env | grep -ac first-secret; echo "second"';
    await prepare(files({ ...only, a: { cmd: "echo first-secret" }, b: { cmd: second } }));
    const exported = { value: "1", value1: "1", value2: "1", secrets: "1", cmd: "1", name: "1", path: "1" };
    const { exitCode } = await task(["web1:deploy-secrets"], { cwd: place.dir, env: exported });
    expect(exitCode).toBe(0);
    expect(await ssh("pop1", "cat /var/src/lollypops-secrets/b")).toBe("0\nsecond\n");
  });

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
    const { stdout, exitCode } = await task(["all:check-vars"], {
      cwd: place.dir,
      env: { XDG_RUNTIME_DIR: undefined, TMPDIR: directory },
    });
    expect(stdout).toContain(`cannot keep notes in ${directory}/lollypops-0`);
    expect(exitCode).toBe(201);
  });

  it("no secret is in the Taskfile, or in what a run prints", async () => {
    const poison = "pois0n-w0rd";
    await prepare(files({ ...only, p: { cmd: "cat ../word" } }));
    mkdirSync(join(place.dir, "../sub"), { recursive: true });
    const word = join(temporaryDirectory(), "word");
    writeFileSync(word, poison);
    await prepare(files({ ...only, p: { cmd: `cat ${word}` } }));
    const { stdout, stderr } = await deploy("-v", "web1:deploy-secrets");
    expect(stdout + stderr + readFileSync(join(place.dir, "Taskfile.yml"), "utf8")).not.toContain(poison);
    expect(await ssh("pop1", "cat /var/src/lollypops-secrets/p")).toBe(poison);
    expect(await ssh("pop1", `journalctl --no-pager 2>/dev/null | grep -c ${poison} || :`)).toBe("0\n");
  });
});

describe("an honest end", () => {
  it("hosts of two groups are deployed once, and both reports say so", async () => {
    const both = { lollypops: { deployment: { groups: ["eu"] } } };
    await prepare({ hosts: { web1: both, web2: both } });
    const { stdout, exitCode } = await deploy("web", "eu");
    expect(exitCode).toBe(0);
    expect(stdout).toContain("[web] 2 of 2 hosts deployed");
    expect(stdout).toContain("[eu] 2 of 2 hosts deployed");
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
    expect(stdout).toContain("[web] 1 of 2 hosts deployed");
    expect(stdout).toContain("[web]   web2: failed at other: its own words are above");
    expect((await deploy("web:smoke")).stdout).toContain("[web:smoke] 2 of 2 hosts with smoke done");
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
