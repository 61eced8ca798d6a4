/** Whose secret commands run when: the first of a run alone, as it unlocks what the others need; then all hosts at once, or in turn. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { start, taskfileOf, until } from "./faults.ts";
import { fleetHosts, ssh } from "./hosts.ts";

const inTurn = { LOLLYPOPS_SECRETS_IN_TURN: "1" };

/** Three hosts whose secrets (two each) note when their commands begin and end; `text` stands between. */
async function threeHosts(text: string): Promise<string> {
  const begin =
    'log() { echo "$1 $HOST" >>log; }; first() { [ "$(sed -n "s/^begin //p" log | sed 1q)" = "$HOST" ]; }; log begin';
  const hosts = Object.entries(fleetHosts).map(([host, name]) => {
    const cmd = `HOST=${name}; ${begin}; ${text}; log end; echo of ${name}`;
    const files = { a: { path: "/srv/a", cmd }, b: { path: "/srv/b", cmd } };
    return [name, { deployment: { ssh: { host, user: "root" } }, files }];
  });
  const cwd = await taskfileOf(Object.fromEntries(hosts));
  writeFileSync(join(cwd, "log"), "");
  return cwd;
}
/** Deploys all; the report, and `web1 begins`, `web1 ends`, … as it was. */
async function deployAll(cwd: string, env: Record<string, string>) {
  const running = start(cwd, ["all:deploy-secrets"], env);
  await running.child;
  return { report: running.said(), log: noted(cwd) };
}
const noted = (cwd: string) => readFileSync(join(cwd, "log"), "utf8").split("\n").slice(0, -1);
/** The lines from `begin` on to the next that is no command's own end. */
const alone = (line: string | undefined) => [line, line?.replace("begin", "end")];
const there = () => Promise.all(Object.keys(fleetHosts).map((host) => ssh(host, "cat /srv/a 2>/dev/null || :")));

beforeEach(async () => {
  await Promise.all(Object.keys(fleetHosts).map((host) => ssh(host, "rm -rf /srv/*")));
});

describe("secret commands of three hosts", () => {
  it("run at once, after the very first, which is alone", async () => {
    // A host that is not the first waits for the other one to begin, and gives up if that never happens.
    const meet =
      'if first; then sleep 1; else n=0; until [ "$(grep begin log | sort -u | wc -l)" = 3 ]; do n=$((n + 1)); [ $n -lt 300 ] || exit 9; sleep 0.1; done; fi';
    const { report, log } = await deployAll(await threeHosts(meet), {});
    expect(report).toContain("3 of 3 hosts with deploy-secrets done");
    expect(log.slice(0, 2)).toEqual(alone(log[0]));
    expect(await there()).toEqual(["of web1\n", "of web2\n", "of db1\n"]);
  });

  it("run one host at a time when that is asked for", async () => {
    const { report, log } = await deployAll(await threeHosts("sleep 0.3"), inTurn);
    expect(report).toContain("3 of 3 hosts with deploy-secrets done");
    const order = [0, 4, 8].flatMap((i) => [...alone(log[i]), ...alone(log[i])]);
    expect(log).toEqual(order);
    expect(new Set(log).size).toBe(6);
  });

  it.each([
    ["otherwise at once", {}],
    ["in turn", inTurn],
  ])("the first fails, %s: the next host's goes alone", async (_, env) => {
    const { report, log } = await deployAll(await threeHosts("if first; then exit 3; fi; sleep 0.5"), env);
    const first = log[0]?.replace("begin ", "");
    expect(report).toContain("2 of 3 hosts with deploy-secrets done");
    expect(report).toContain(`${first}: failed at deploy-secrets: a: its command ended with exit 3; nothing was sent`);
    expect(log.slice(1, 3)).toEqual(alone(log[1]));
    expect(log.filter((line) => line.includes(` ${first}`))).toEqual([log[0]]);
    expect(log).toHaveLength(9);
  });

  it("never meet where many fail, in turn", async () => {
    const cmd = (name: string) => `echo "begin ${name}" >>log; sleep 0.05; echo "end ${name}" >>log; false`;
    const many = Array.from({ length: 60 }, (_, i) => `h${i}`).map((name) => {
      const deployment = { ssh: { host: "pop1", user: "root" } };
      return [name, { deployment, files: { a: { path: "/srv/a", cmd: cmd(name) } } }];
    });
    const cwd = await taskfileOf(Object.fromEntries(many));
    const { report, log } = await deployAll(cwd, inTurn);
    expect(report).toContain("0 of 60 hosts with deploy-secrets done");
    expect(log).toEqual(many.flatMap((_, i) => alone(log[2 * i])));
  });

  it.each([
    ["otherwise at once", {}],
    ["in turn", inTurn],
  ])("the first host's step is killed, %s: the others do not wait for it", async (_, env) => {
    const cwd = await threeHosts("echo $$ >>pid; while first && [ ! -e go ]; do sleep 0.1; done");
    const running = start(cwd, ["all:deploy-secrets"], env);
    await until("the first has begun", () => noted(cwd).length === 1);
    const first = noted(cwd)[0]?.replace("begin ", "");
    let pid = Number(readFileSync(join(cwd, "pid"), "utf8"));
    const parents = new Map(running.processes().map((one) => [one.pid, one.parent]));
    while (parents.get(pid) !== running.child.pid) pid = parents.get(pid) as number;
    process.kill(pid, "SIGKILL");
    await until("the others are done", () => noted(cwd).filter((line) => line.startsWith("end")).length === 4);
    writeFileSync(join(cwd, "go"), "");
    await running.child;
    expect(running.said()).toContain("2 of 3 hosts with deploy-secrets done");
    expect(running.said()).toContain(`${first}: failed at deploy-secrets: killed`);
    await until("nothing of it runs", () => running.processes().length === 0);
  });
});
