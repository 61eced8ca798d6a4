/** deploy-secrets is cut off half-way, or meets another one: the secrets stay whole, and the next run brings the new. */
import { createHash } from "node:crypto";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  deploy,
  dir,
  emptyDir,
  expectNothingLeft,
  held,
  hold,
  host,
  letGo,
  remoteProcesses,
  type Secret,
  start,
  taskfile,
  until,
  withConfig,
} from "./faults.ts";
import { cut, mend, restart, ssh, trySsh } from "./hosts.ts";

beforeEach(emptyDir);
afterEach(async () => {
  await mend(1);
  await expectNothingLeft();
});

describe("half-way,", () => {
  type Run = ReturnType<typeof start>;
  const content = (word: string) => ({ first: `${word}\n`, last: word.repeat(1_000_000) });
  const old = content("old");
  const next = content("new");
  const files = (text: typeof old): Record<string, Secret> => ({
    first: { path: `${dir}/one/first`, content: text.first },
    last: { path: `${dir}/two/last`, content: text.last }, // it is cut in the middle
  });
  const sum = (text: string) => createHash("sha256").update(text).digest("hex");
  const known = new Map(
    [old, next].flatMap((text, i) => Object.values(text).map((value) => [sum(value), i ? "new" : "old"])),
  );

  /** What the two files are, as words. */
  async function state(): Promise<string> {
    const sums = await ssh(host, `cd ${dir} && stat -c '%U %a' one/* two/* && sha256sum one/first two/last`);
    expect(sums).toContain("root 400\nroot 400\n");
    return sums
      .replace(/^root 400\n/gm, "")
      .replace(/^([0-9a-f]{64}) .*/gm, (_, hex) => known.get(hex) ?? "torn")
      .trim()
      .replace("\n", " ");
  }
  /** Kills what a deployment runs on this machine. */
  const killHere = (chosen: Run["processes"]) => {
    expect(chosen()).not.toEqual([]);
    for (const { pid } of chosen()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // it has ended meanwhile
      }
    }
  };
  const lost = "deploy-secrets unknown: the connection ended early, so the secrets are the old or the new ones";
  const events = {
    "the cable is cut": async ({ child }: Run) => {
      await cut(1);
      await child;
      await mend(1);
    },
    "the remote shell is killed": () => ssh(host, "pkill -9 -x 'sh|mv'"),
    "ssh is killed": ({ processes }: Run) => killHere(() => processes().filter(({ name }) => name === "ssh")),
    "the shell here is killed": ({ processes, child }: Run) =>
      killHere(() => processes().filter(({ parent }) => parent === child.pid)),
    "all of it here is killed": ({ processes }: Run) => killHere(processes),
    "the host loses its power": () => restart(1),
  };
  const words: Record<keyof typeof events, string> = {
    "the cable is cut": `${lost}: Timeout, server 10.`,
    "the remote shell is killed": lost,
    "ssh is killed": `${lost}: Killed`,
    "the shell here is killed": "exit status 137",
    "all of it here is killed": "",
    "the host loses its power": lost,
  };
  const places = {
    "in mid-stream": ["base64", 1],
    "when all is prepared": ["sync", 1],
    "between two renames": ["mv", 2],
  } as const;

  let before: string;
  let after: string;
  beforeAll(async () => {
    [before, after] = [await taskfile(files(old)), await taskfile(files(next))];
  });

  test.each<[keyof typeof events, keyof typeof places, string]>([
    ["the cable is cut", "in mid-stream", "old old"],
    ["the cable is cut", "when all is prepared", "new new"],
    ["the remote shell is killed", "in mid-stream", "old old"],
    ["the remote shell is killed", "when all is prepared", "old old"],
    ["the remote shell is killed", "between two renames", "new old"],
    ["ssh is killed", "in mid-stream", "old old"],
    ["ssh is killed", "when all is prepared", "new new"],
    ["the shell here is killed", "in mid-stream", "new new"],
    ["all of it here is killed", "in mid-stream", "old old"],
    ["all of it here is killed", "when all is prepared", "new new"],
    ["the host loses its power", "in mid-stream", "old old"],
    ["the host loses its power", "when all is prepared", "old old"],
    ["the host loses its power", "between two renames", "new old"],
  ])("%s %s: the two are whole, %s", async (event, place, then) => {
    expect(await deploy(before)).toMatchObject({ status: 0 });
    const [program, nth] = places[place];
    await hold(program, nth);
    const running = start(
      after,
      ["web1:deploy-secrets"],
      withConfig("-o ServerAliveInterval=1 -o ServerAliveCountMax=1"),
    );
    await held();
    expect(await state()).toMatch(/^(old|new) old$/);
    await events[event](running);
    await letGo();
    await running.child;
    expect(running.said()).toContain(words[event]);
    await until("nothing of it runs here", () => running.processes().length === 0);
    await until("nothing of it runs there", async () => (await remoteProcesses()) === "");
    expect(await state()).toBe(then);
    expect(await deploy(after)).toMatchObject({ status: 0 });
    expect(await state()).toBe("new new");
  });
});

describe("two deployments of one host at once", () => {
  const twenty = (word: string) =>
    taskfile(
      Object.fromEntries(
        Array.from({ length: 20 }, (_, i) => [
          `s${i}`,
          { path: `${dir}/${i % 3}/s${i}`, content: `${word}\n`.repeat(30_000) },
        ]),
      ),
    );
  const whose = async () => (await ssh(host, `cat ${dir}/*/* | sort | uniq -c`)).trim();

  test("the second waits, and is the one that stays", async () => {
    const [first, second] = [await twenty("first"), await twenty("second")];
    await hold("sync", 1);
    const one = start(first, ["web1:deploy-secrets"]);
    await held();
    const other = start(second, ["web1:deploy-secrets"]);
    await until("the second waits", async () => (await remoteProcesses()).includes("flock"));
    await letGo();
    expect([await one.child, await other.child]).toMatchObject([{ exitCode: 0 }, { exitCode: 0 }]);
    expect(await whose()).toBe("600000 second");
  });

  test("neither corrupts, however they meet", async () => {
    const both = [await twenty("first"), await twenty("second")];
    for (let round = 0; round < 6; round++) {
      const results = await Promise.all(both.map((cwd) => deploy(cwd)));
      expect(results).toMatchObject([{ status: 0 }, { status: 0 }]);
      expect(await whose()).toMatch(/^600000 (first|second)$/);
    }
  });
});

test("a hundred secrets, of several owners", async () => {
  const owners = ["root", "games", "mail"];
  const hundred = Array.from({ length: 100 }, (_, i) => `s${String(i).padStart(2, "0")}`);
  const files = hundred.map((name, i) => [
    name,
    { path: `${dir}/${i % 10}/${name}`, owner: owners[i % 3], mode: i % 2 ? "0400" : "0640" },
  ]);
  const cwd = await taskfile(Object.fromEntries(files));
  expect((await deploy(cwd)).output).toContain("100 changed, 0 unchanged");
  expect(await ssh(host, `cd ${dir} && stat -c '%n %U %a' */* | sort -t/ -k2; cat $(ls */* | sort -t/ -k2)`)).toBe(
    [
      ...hundred.map((name, i) => `${i % 10}/${name} ${owners[i % 3]} ${i % 2 ? 400 : 640}\n`),
      ...hundred.map((name) => `content of ${name}\n`),
    ].join(""),
  );
  expect((await deploy(cwd)).output).toContain("0 changed, 100 unchanged");
});

test("a secret takes longer than sshd lets a login idle", async () => {
  const impatient =
    "LoginGraceTime 2\nClientAliveInterval 1\nClientAliveCountMax 2\nChannelTimeout session*=2\nUnusedConnectionTimeout 2\n";
  await ssh(host, "cat >/etc/ssh/sshd_config.d/impatient.conf; systemctl reload ssh", { input: impatient });
  try {
    expect((await trySsh(host, "sleep 8; echo patient")).stdout).toBe("");
    const { output, status } = await deploy(await taskfile({ a: { path: `${dir}/a`, cmd: "sleep 8; echo at last" } }));
    expect(output).toContain("1 changed, 0 unchanged");
    expect(status).toBe(0);
  } finally {
    await ssh(host, "rm /etc/ssh/sshd_config.d/impatient.conf; systemctl reload ssh");
  }
});

test("an owner comes between two deployments of secrets: the second one gives it what is its own", async () => {
  const files = { a: { path: `${dir}/a`, owner: "latecomer", mode: "0444" }, b: { path: `${dir}/b` } };
  const cwd = await taskfile(files);
  const stat = () => ssh(host, `stat -c '%U:%G %a' ${dir}/a`);
  expect(await deploy(cwd)).toMatchObject({ status: 0 });
  expect(await stat()).toBe("root:root 400\n");
  await ssh(host, "useradd latecomer");
  try {
    expect((await deploy(cwd)).output).toContain("1 changed, 1 unchanged");
    expect(await stat()).toBe("latecomer:latecomer 444\n");
  } finally {
    await ssh(host, "userdel latecomer");
  }
});
