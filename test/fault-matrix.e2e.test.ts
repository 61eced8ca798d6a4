/** The fault matrix: whatever happens to one host, all ways to deploy tell it, deploy the others, leave nothing, and make it good later. */
import { beforeAll, beforeEach, describe, test } from "vitest";
import { held, hold, letGo, type Running } from "./faults.ts";
import { fillDisk, freeDisk, holdNix, letGo as letNixGo, nixHeld } from "./guard.ts";
import { cut, fleetHosts, mend, ssh } from "./hosts.ts";
import {
  type Changes,
  type Expected,
  expectTold,
  hasten,
  hasty,
  type SeveralHosts,
  severalHosts,
  spoil,
} from "./several-hosts.ts";

/** What is wrong with web1, on the first host. */
type Fault = {
  /** In the flake, or in the Taskfile, which else is that of the whole flake. */
  prepare?: () => Promise<void>;
  changes?: Changes;
  /** Before each run, during it, and after it. */
  before?: () => Promise<void>;
  during?: (running: Running) => Promise<void>;
  after?: () => Promise<void>;
  mend?: () => Promise<void>;
  env?: Record<string, string>;
  group?: string[];
  /** What is told, of several hosts and of this one alone. */
  told: Expected;
  alone?: Expected;
  code: number;
};

let hosts: SeveralHosts;
beforeAll(async () => {
  hosts = await severalHosts();
});
beforeEach(() => hosts.forget());

const only = (...tasks: string[]): Changes => ({ all: { tasks } });
const ofWeb1 = (deployment: object, tasks = ["deploy-secrets"]): Changes => ({ all: { tasks }, web1: { deployment } });
const otherKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3Jk0cYyW3mZKzyPnqkVwB2Yp0r4dDqW5nGHGk0eM4c";
const at = (outcome: string, step: string, words: RegExp) => ({ outcome, step, words });

/** A step, and what holds it there until it is let go. */
const stages = {
  "deploy-flake": { hold: () => holdNix("nix-store", "--realise"), held: nixHeld },
  "deploy-secrets": { hold: () => hold("base64", 1), held },
  rebuild: { hold: () => holdNix("nix", "build"), held: nixHeld },
};
const goOn = async () => {
  await letGo();
  await ssh("pop1", letNixGo);
};
const tasks = {
  "deploy-flake": ["deploy-flake"],
  "deploy-secrets": ["deploy-secrets"],
  rebuild: ["deploy-flake", "rebuild"],
};
const cutDuring = (step: keyof typeof stages, outcome: string, words: RegExp, code: number): Fault => ({
  changes: ofWeb1({ ssh: hasty }, tasks[step]),
  before: stages[step].hold,
  during: async ({ child }) => {
    await stages[step].held();
    await cut(1);
    await child;
  },
  after: async () => {
    await mend(1);
    await goOn();
  },
  told: at(outcome, step, words),
  code,
});
const hangs = (step: keyof typeof stages, outcome: string, words: RegExp, code: number): Fault => ({
  changes: only(...tasks[step]),
  env: { LOLLYPOPS_TIMEOUT: "60" },
  before: stages[step].hold,
  during: async (running) => {
    await stages[step].held();
    await hasten(running, "web1", 60);
  },
  after: goOn,
  told: at(outcome, step, words),
  code,
});

const faults: Record<string, Fault> = {
  "dead before": {
    changes: { web1: { deployment: { ssh: hasty } } },
    before: () => cut(1),
    after: () => mend(1),
    told: at("unreachable", "connect", /^ssh: connect to host .*timed out/),
    alone: at("unreachable", "deploy-flake", /^ssh: connect to host .*timed out/),
    code: 4,
  },
  "dead during deploy-flake": cutDuring("deploy-flake", "failed", /^the connection ended early/, 1),
  "dead during deploy-secrets": cutDuring(
    "deploy-secrets",
    "unknown",
    /^the connection ended early, so the secrets are the old or the new ones/,
    5,
  ),
  "dead during rebuild": cutDuring("rebuild", "failed", /^the connection ended early/, 1),
  "hung during deploy-flake": hangs("deploy-flake", "failed", /^not done within 60 s \(LOLLYPOPS_TIMEOUT\)/, 1),
  "hung during deploy-secrets": hangs(
    "deploy-secrets",
    "unknown",
    /^not done within 60 s \(LOLLYPOPS_TIMEOUT\); the connection ended early/,
    5,
  ),
  "hung during rebuild": hangs("rebuild", "failed", /^not done within 60 s \(LOLLYPOPS_TIMEOUT\)/, 1),
  "no ssh.command": {
    changes: ofWeb1({ ssh: { command: "no-such-ssh" } }),
    told: at("failed", "deploy-secrets", /no-such-ssh.*not found \(exit 127\)/),
    code: 1,
  },
  "no program of a secret": {
    changes: { ...only("deploy-secrets"), web1: { secrets: { files: { greeting: { cmd: "no-such-program" } } } } },
    told: at("failed", "deploy-secrets", /^greeting: its command ended with exit 127; nothing was sent$/),
    code: 1,
  },
  "a full disk": {
    prepare: () => hosts.change({ web2: { version: "for a full disk" } }),
    changes: only("deploy-flake"),
    before: fillDisk,
    after: freeDisk,
    told: at("failed", "deploy-flake", /No space left on device$/),
    code: 1,
  },
  "another host key": {
    changes: ofWeb1({ ssh: { "host-key": otherKey } }),
    told: at("unreachable", "connect", /^the host's key is not that of deployment.ssh.host-key$/),
    alone: at("unreachable", "deploy-secrets", /^the host's key is not that of deployment.ssh.host-key$/),
    code: 4,
  },
  "an unknown user": {
    changes: ofWeb1({ ssh: { user: "nobody-of-this-name" } }),
    told: at("unreachable", "connect", /Permission denied/),
    alone: at("unreachable", "deploy-secrets", /Permission denied/),
    code: 4,
  },
  "sudo refused": {
    changes: ofWeb1({ ssh: { user: "ops" }, sudo: { enable: true } }),
    before: async () => {
      await ssh("pop1", "mv /etc/sudoers.d/ops /root/ops.sudoers");
    },
    after: async () => {
      await ssh("pop1", "mv /root/ops.sudoers /etc/sudoers.d/ops");
    },
    told: at("failed", "deploy-secrets", /^sudo: a password is required/),
    code: 1,
  },
  "a system that does not evaluate": {
    prepare: () => hosts.change({ web1: { units: { "broken.service": [] as unknown as string } } }),
    changes: only("deploy-flake", "rebuild"),
    mend: () => hosts.change(),
    told: at("failed", "rebuild", /error: /),
    code: 1,
  },
  "a host that does not evaluate": {
    prepare: () => hosts.change({ web1: { lollypops: { secrets: { files: { broken: 3 } } } } }),
    mend: () => hosts.change(),
    group: ["deploy", "--", "web*"], // nobody knows the groups of such a host
    told: at("failed", "evaluation", /error: /),
    code: 1,
  },
};

/** Each way to deploy, and which hosts that are. The last ones show what the host's own exit code is. */
const calls = ({ group = ["web"] }: Fault): [string[], string[]][] => [
  [["deploy-all"], ["db1", "web1", "web2"]],
  [["retry"], ["web1"]],
  [
    ["-x", ...group],
    ["web1", "web2"],
  ],
  [["-x", "web1"], ["web1"]],
];

describe("the fault matrix", () => {
  test.each(Object.entries(faults))("%s", async (_, fault) => {
    await fault.prepare?.();
    const { changes } = fault;
    if (changes) await hosts.configure(changes);
    await Promise.all(Object.keys(fleetHosts).map(spoil));
    for (const [args, members] of calls(fault)) {
      await fault.before?.();
      const running = hosts.begin(args, fault.env);
      try {
        await fault.during?.(running);
        await running.child;
      } finally {
        await fault.after?.();
      }
      const web1 = (members.length === 1 && fault.alone) || fault.told;
      const others = args[0] === "deploy-all" ? "deployed" : "unchanged";
      const expected = members.map((member) => [member, member === "web1" ? web1 : others]);
      expectTold(await hosts.ended(running), Object.fromEntries(expected), args[0] === "-x" ? fault.code : 201);
      await hosts.expectTidy(running);
    }
    await fault.mend?.();
    await hosts.configure({ all: changes?.all ?? {} });
    expectTold(await hosts.deploy(["retry"]), { web1: "done" });
  });
});
