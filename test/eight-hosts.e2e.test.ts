/** Deployments of eight hosts: many faults in one run, and what go-task's limit lets begin, alone and when it is interrupted. */
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Running, remoteProcesses, script, until } from "./faults.ts";
import { holdNix, letGo, nixHeld } from "./guard.ts";
import { bootHosts, cut, fleetHosts, mend, ssh, temporaryDirectory } from "./hosts.ts";
import { type Changes, expectTold, hasty, type SeveralHosts, severalHosts, spoil } from "./several-hosts.ts";

const more = { pop4: "web3", pop5: "web4", pop6: "web5", pop7: "web6", pop8: "web7" };
const all = { ...fleetHosts, ...more };
const every = <Value>(value: Value) => Object.fromEntries(Object.values(all).map((name) => [name, value]));

let hosts: SeveralHosts;
beforeAll(async () => {
  await bootHosts(8);
  hosts = await severalHosts(more);
});
beforeEach(async () => {
  hosts.forget();
  await Promise.all(Object.keys(all).map(spoil));
});

async function expectAllTidy(running: Running): Promise<void> {
  await hosts.expectTidy(running);
  for (const host of Object.keys(all)) expect(await remoteProcesses(host)).toBe("");
}

describe("six hosts of eight have a fault each", () => {
  const otherKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3Jk0cYyW3mZKzyPnqkVwB2Yp0r4dDqW5nGHGk0eM4c";
  const changes: Changes = {
    web1: { deployment: { ssh: hasty } }, // dies while it builds
    web2: { deployment: { ssh: hasty } }, // is dead before
    db1: { deployment: { ssh: { command: "no-such-ssh" } } },
    web3: { deployment: { ssh: { "host-key": otherKey } } },
    web4: { deployment: { ssh: { user: "nobody-of-this-name" } } },
    web5: { secrets: { files: { greeting: { cmd: "no-such-program" } } } },
  };
  const at = (outcome: string, step: string, words: RegExp) => ({ outcome, step, words });

  test("each is told, the others are deployed; retry deploys the six", async () => {
    await hosts.configure(changes);
    await holdNix("nix", "build");
    await cut(2);
    const running = hosts.begin(["deploy-all", "-C", "5"]);
    try {
      await nixHeld();
      await cut(1);
      await running.child;
    } finally {
      for (const host of [1, 2]) await mend(host);
      await ssh("pop1", letGo);
    }
    const told = await hosts.ended(running);
    expectTold(told, {
      web1: at("failed", "rebuild", /^the connection ended early/),
      web2: at("unreachable", "connect", /^ssh: connect to host .*timed out/),
      db1: at("failed", "deploy-flake", /no-such-ssh/),
      web3: at("unreachable", "connect", /^the host's key is not that of deployment.ssh.host-key$/),
      web4: at("unreachable", "connect", /Permission denied/),
      web5: at("failed", "deploy-secrets", /^greeting: its command ended with exit 127; nothing was sent$/),
      web6: "deployed",
      web7: "deployed",
    });
    await expectAllTidy(running);

    await hosts.configure();
    const { web6: _6, web7: _7, ...six } = every("done" as const);
    expectTold(await hosts.deploy(["retry"]), six);
    expectTold(await hosts.deploy(["deploy-all"]), every("done" as const));
  });
});

describe("three at a time", () => {
  const place = temporaryDirectory();
  const [log, gate] = [join(place, "log"), join(place, "gate")];
  const noting = script(`
    echo "+ $1" >>${log}
    while [ -e ${gate} ]; do sleep 0.1; done
    sleep 0.5
    echo "- $1" >>${log}
    echo greeting of "$1"`);
  const lines = (sign: string) =>
    readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => line.startsWith(sign));
  beforeEach(async () => {
    writeFileSync(log, "");
    rmSync(gate, { force: true });
    const own = (name: string) => ({ secrets: { files: { greeting: { cmd: `${noting} ${name}` } } } });
    const each = Object.fromEntries(Object.values(all).map((name) => [name, own(name)]));
    await hosts.configure({ all: { tasks: ["deploy-secrets"] }, ...each });
  });
  const most = () => {
    let now = 0;
    return Math.max(
      ...readFileSync(log, "utf8")
        .split("\n")
        .map((line) => (now += { "+": 1, "-": -1 }[line[0] ?? ""] ?? 0)),
    );
  };

  test.each<[string, string[], Record<string, string>, string]>([
    ["-C", ["-C", "3"], {}, ""],
    ["TASK_CONCURRENCY", [], { TASK_CONCURRENCY: "3" }, ""],
    [".taskrc.yml", [], {}, "concurrency: 3\n"],
  ])("by %s: no more than that, and no fewer", async (_, args, env, settings) => {
    const file = join(hosts.dir, ".taskrc.yml");
    if (settings !== "") appendFileSync(file, settings);
    try {
      expectTold(await hosts.deploy(["deploy-all", ...args], env), every("deployed" as const));
    } finally {
      rmSync(file, { force: true });
    }
    expect([lines("-").length, most()]).toEqual([8, 3]);
  });

  test("Ctrl-C: the three end, and none of the five begins; retry deploys all", async () => {
    writeFileSync(gate, "");
    const running = hosts.begin(["deploy-all", "-C", "3"]);
    await until("three have begun", () => lines("+").length === 3);
    process.kill(-(running.child.pid ?? 0), "SIGINT");
    await running.child;
    const begun = lines("+").map((line) => line.slice(2));
    const words = (name: string) => (begun.includes(name) ? /^by SIGINT; nothing was sent$/ : /^before it began$/);
    const told = Object.values(all).map((name) => {
      return [name, { outcome: "interrupted", step: "deploy-secrets", words: words(name) }];
    });
    expectTold(await hosts.ended(running), Object.fromEntries(told));
    expect([begun.length, lines("-").length, existsSync(gate)]).toEqual([3, 0, true]);
    await expectAllTidy(running);
    rmSync(gate);
    expectTold(await hosts.deploy(["retry", "-C", "8"]), every("deployed" as const));
  });
});
