/** `secrets.prune`: what a deployment put there goes once the system that is kept no longer names it, and nothing else ever does. */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type HostSettings, ssh } from "./hosts.ts";
import { asOps, dir, expectNoLeftovers, type Files, host, type SecretFleet, secretFleet } from "./secret-fleet.ts";

const mine = "/home/ops/s";

let fleet: SecretFleet;
beforeAll(async () => {
  fleet = await secretFleet();
});
beforeEach(() => fleet.renew());
afterEach(expectNoLeftovers);

type More = HostSettings & { prune?: boolean };
const listing = () => ssh(host, `cd / && find srv/secrets home/ops/s ! -type d | sort`);
const record = () => ssh(host, "cd /var/lib/lollypops && grep -H . * | sed 's/ [0-9]*:[0-9]* / /' | sort");

/** A system of this version that names these secrets, and ops's own. */
async function configure(version: string, files: Files, own: Files, { lollypops, ...more }: More = {}): Promise<void> {
  const users = { ops: { secrets: { "default-dir": mine, files: fleet.secrets(own) } } };
  await fleet.configure(files, {
    prune: true,
    version,
    ...more,
    lollypops: { ...lollypops, "home-manager": { users } },
  });
}
/** A deployed host, and a configuration that names two secrets less. */
async function deployedWithMore(more: More = {}, late: Files = {}): Promise<void> {
  await configure("1", { kept: {}, "old one": {}, ...late }, { mine: {}, gone: {} }, more);
  await fleet.deployed("web1");
  await ssh(host, `touch ${dir}/stranger`);
  await configure("2", { kept: {}, ...late }, { mine: {} }, more);
}
const before = "home/ops/s/gone\nhome/ops/s/mine\nsrv/secrets/kept\nsrv/secrets/old one\nsrv/secrets/stranger\n";
const after = "home/ops/s/mine\nsrv/secrets/kept\nsrv/secrets/stranger\n";

test.each<[string, HostSettings]>([
  ["as root", {}],
  ["as ops with sudo", { lollypops: asOps }],
])("what is no longer named goes with the switch, once the new system is kept, %s", async (_, account) => {
  await deployedWithMore({ ...account, snippet: `ls ${dir} >/run/tried` });
  const output = await fleet.deployed("web1");
  expect(output).toContain("deploy-secrets: 0 changed, 2 unchanged, 2 removed once the new system is kept\n");
  expect(output).toContain(`removed: ${dir}/old one\n`);
  expect(output).toContain(`removed: ${mine}/gone\n`);
  expect(await listing()).toBe(after);
  expect(await ssh(host, "cat /run/tried")).toBe("kept\nold one\nstranger\n");
  expect(await record()).toBe(`secrets:ops ${mine}/mine\nsecrets:root ${dir}/kept\n`);
  expect(await fleet.deployed("web1")).toContain("deploy-secrets: 0 changed, 2 unchanged\n");
});

test("it goes too where the system itself is unchanged, and where others come after the activation", async () => {
  await deployedWithMore({}, { late: { when: "after" } });
  const output = await fleet.deployed("web1");
  expect(output).toContain(`removed: ${dir}/old one\n`);
  expect(await listing()).toBe(after.replace("srv/secrets/s", "srv/secrets/late\nsrv/secrets/s"));
  await configure("2", { kept: {} }, { mine: {} });
  const again = await fleet.deployed("web1");
  expect(again).toMatch(new RegExp(`removed: ${dir}/late\n[\\s\\S]*rebuild: unchanged, `));
  expect(await listing()).toBe(after);
});

describe("nothing goes", () => {
  test.each<[string, string[], HostSettings?]>([
    ["with boot", ["REBUILD_ACTION=boot"]],
    ["with test", ["REBUILD_ACTION=test"]],
    ["with build", ["REBUILD_ACTION=build"]],
    ["with SECRET", ["SECRET=kept"]],
    ["with a check that fails", [], { check: "false" }],
    ["with an activation that fails", [], { snippet: "false" }],
    ["with a boot loader that fails", [], { snippet: "mkdir /run/standin; touch /run/standin/bootloader-fails" }],
  ])("%s", async (_, variables, failing) => {
    await deployedWithMore();
    if (failing) await configure("2", { kept: {} }, { mine: {} }, failing);
    const { output, exitCode } = await fleet.deploy("web1", ...variables);
    expect([exitCode, output.includes("removed:")]).toEqual([failing ? 201 : 0, false]);
    expect(await listing()).toBe(before);
  });

  test("with the step alone and a rebuild of another run, but with the next whole deployment", async () => {
    await deployedWithMore();
    expect(await fleet.deployed("web1:deploy-secrets")).toContain("0 changed, 2 unchanged");
    await fleet.deployed("web1:deploy-flake");
    expect(await fleet.deployed("web1:rebuild")).not.toContain("removed:");
    expect(await listing()).toBe(before);
    await fleet.deployed("web1");
    expect(await listing()).toBe(after);
  });

  test("with dry-activate, which says what would", async () => {
    await deployedWithMore();
    const output = await fleet.deployed("web1", "REBUILD_ACTION=dry-activate");
    expect(output).toContain(`would remove: ${dir}/old one\n`);
    expect(output).toContain(`would remove: ${mine}/gone\n`);
    expect(output).toContain("deploy-secrets: 0 would change, 2 unchanged, 2 to remove\n");
    expect(await listing()).toBe(before);
  });

  test("without the option, until it is set", async () => {
    await deployedWithMore({ prune: false });
    expect(await fleet.deployed("web1")).toContain("deploy-secrets: 0 changed, 2 unchanged\n");
    expect(await listing()).toBe(before);
    await configure("2", { kept: {} }, { mine: {} });
    await fleet.deployed("web1");
    expect(await listing()).toBe(after);
  });
});

describe("somebody else's file at the place of a secret stays", () => {
  const files = { file: {}, link: {}, directory: {}, content: {}, time: {} };
  const replace = `for place in ${dir} ${mine}; do cd $place
    echo other >other; mv other file; ln -sf /etc/hostname link; rm directory; mkdir directory
    echo other >content; touch -d yesterday content; touch -d yesterday time
  done`;
  const found = () =>
    ssh(host, `for place in ${dir} ${mine}; do cd $place; cat file content time; readlink link; ls -d directory; done`);
  const theirs = "other\nother\ncontent of time\n/etc/hostname\ndirectory\n";

  test.each([
    ["before", "deploy-secrets: 0 changed, 0 unchanged\n"],
    ["during", "10 removed once the new system is kept\n"],
  ])("which was put there %s the deployment", async (when, words) => {
    const snippet = `if [ -e ${dir}/stranger ]; then\n${replace}\nfi`;
    await configure("1", files, files);
    await fleet.deployed("web1");
    await ssh(host, when === "before" ? replace : `touch ${dir}/stranger`);
    await configure("2", {}, {}, when === "before" ? {} : { snippet });
    const output = await fleet.deployed("web1");
    expect(output).toContain(words);
    expect(output).not.toContain("removed:");
    expect(await found()).toBe(theirs + theirs);
  });
});

describe("a secret that moved", () => {
  const moved = (path: string, content = "token") => ({ token: { path: `${dir}/${path}`, content } });

  test("to another path leaves the old one, unless another secret is there", async () => {
    await configure("1", { ...moved("a/token"), other: { path: `${dir}/a/other` } }, {});
    await fleet.deployed("web1");
    await configure("2", { ...moved("b/token"), other: { path: `${dir}/a/token` } }, {});
    const output = await fleet.deployed("web1");
    expect(output).toContain(`removed: ${dir}/a/other\n`);
    expect(output).not.toContain(`removed: ${dir}/a/token\n`);
    expect(await ssh(host, `cd ${dir}; grep -r . | sort`)).toBe("a/token:content of other\nb/token:token\n");
  });

  test.each([
    ["unchanged", "token"],
    ["with another content", "new"],
  ])("with its directory, to which a link leads now, stays, %s", async (_, content) => {
    await configure("1", moved("a/token"), {});
    await fleet.deployed("web1");
    await ssh(host, `cd ${dir}; mv a b; ln -s b a`);
    await configure("2", moved("b/token", content), {});
    expect(await fleet.deployed("web1")).not.toContain("removed:");
    expect(await ssh(host, `cat ${dir}/b/token`)).toBe(content);
    await fleet.deployed("web1");
    expect(await ssh(host, `cat ${dir}/b/token`)).toBe(content);
  });
});
