/** Secrets and the system they belong to: those that come after its activation, and those it boots with. */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type HostSettings, ssh } from "./hosts.ts";
import { asOps, dir, expectNoLeftovers, type Files, host, type SecretFleet, secretFleet } from "./secret-fleet.ts";

const accounts: [string, HostSettings][] = [
  ["as root", {}],
  ["as ops with sudo", { lollypops: asOps }],
];
const log = "/run/test-log";

let fleet: SecretFleet;
beforeAll(async () => {
  fleet = await secretFleet();
});
beforeEach(async () => {
  await ssh(host, `userdel -r newcomer 2>/dev/null; rm -rf ${log}; mkdir ${log}`);
  await fleet.renew();
});
afterEach(expectNoLeftovers);

const failing = { check: "false" };
const read = (path: string) => ssh(host, `cat ${path} 2>/dev/null || echo absent`);
const records = () => ssh(host, "cd /var/lib/lollypops 2>/dev/null && grep -H . * | cut -d: -f1 | uniq || :");

describe("a secret that comes after the activation", () => {
  const late = (content: string, more: Files = {}) => ({ late: { content: `${content}\n`, when: "after" }, ...more });
  const look = `{ cat ${dir}/late || echo absent; } 2>/dev/null`;
  const unit = `[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '${look} >>${log}/unit'\n`;
  /** What a snippet and a unit saw while the system was tried. */
  const system = (version: string, more: HostSettings = {}): HostSettings => ({
    version,
    snippet: `${look} >>${log}/snippet`,
    units: { "test-look.service": `[Unit]\nX-Version=${version}\n${unit}` },
    ...more,
  });
  const seen = (name: string) => read(`${log}/${name}`);

  test.each(accounts)("is not there while the new system is tried, and there afterwards, %s", async (_, account) => {
    await fleet.configure(late("old", { early: {} }), system("1", account));
    const first = await fleet.deployed("web1");
    expect(first).toContain("deploy-secrets: 1 changed, 0 unchanged, 1 to come after the activation\n");
    expect(first).toMatch(/changed: late\n[\s\S]*rebuild: switched to/);
    expect([await seen("snippet"), await seen("unit"), await read(`${dir}/late`)]).toEqual([
      "absent\n",
      "absent\n",
      "old\n",
    ]);
    await fleet.configure(late("new", { early: {} }), system("2", account));
    await fleet.deployed("web1", "REBUILD_ACTION=test");
    expect([await seen("snippet"), await seen("unit")]).toEqual(["absent\nold\n", "absent\nold\n"]);
    expect(await read(`${dir}/late`)).toBe("new\n");
  });

  test("comes too where the system runs already, which counts as deployed", async () => {
    await fleet.configure(late("old"), system("1"));
    await fleet.deployed("web1");
    const inode = () => ssh(host, `stat -c '%i %Y' ${dir}/late`);
    const before = await inode();
    expect(await fleet.deployed("web1")).toMatch(/rebuild: unchanged, /);
    expect(await inode()).toBe(before);
    await fleet.configure(late("new"), system("1"));
    expect(await fleet.deployed("web1")).toMatch(/rebuild: .* runs already; what waited for it is done\n/);
    expect([await read(`${dir}/late`), await seen("unit")]).toEqual(["new\n", "absent\n"]);
  });

  test("stays the old one where the rebuild fails, and nothing of the new one is left", async () => {
    await fleet.configure(late("old"), system("1"));
    await fleet.deployed("web1");
    await fleet.configure(late("new"), system("2", failing));
    expect((await fleet.deploy("web1")).exitCode).toBe(201);
    expect(await read(`${dir}/late`)).toBe("old\n");
    await expectNoLeftovers();
    await fleet.configure(late("new"), system("2", { snippet: "false" }));
    expect((await fleet.deploy("web1")).exitCode).toBe(201);
    expect(await read(`${dir}/late`)).toBe("old\n");
    await expectNoLeftovers();
    await fleet.configure(late("new"), system("2"));
    await fleet.deployed("web1");
    expect(await read(`${dir}/late`)).toBe("new\n");
  });

  test.each(accounts)("may be of a home-manager user whom this configuration brings, %s", async (_, account) => {
    const users = { newcomer: { secrets: { files: fleet.secrets({ token: {}, other: { mode: "0440" } }) } } };
    const lollypops = { ...account.lollypops, "home-manager": { users } };
    const snippet = "getent passwd newcomer >/dev/null || useradd -m newcomer";
    await fleet.configure({ early: {} }, { ...account, lollypops, snippet });
    const alone = await fleet.deploy("web1:deploy-secrets");
    expect(alone.output).toMatch(
      /web1: deploy-secrets failed: (token|other): there is no user newcomer yet; deploy the whole host, with switch\n/,
    );
    expect(await read(`${dir}/early`)).toBe("absent\n");
    const output = await fleet.deployed("web1");
    expect(output).toContain("deploy-secrets: 1 changed, 0 unchanged, 2 to come after the activation\n");
    expect(await ssh(host, "cd /home/newcomer/lollypops-secrets; stat -c '%n %U:%G %a' . *; cat token")).toBe(
      ". newcomer:newcomer 711\nother newcomer:newcomer 440\ntoken newcomer:newcomer 400\ncontent of token\n",
    );
    expect(await fleet.deployed("web1")).toContain("deploy-secrets: 0 changed, 3 unchanged\n");
    expect(await records()).toBe("secrets\n");
  });

  test("has its units restarted once it is there, and its owner if the activation brings that", async () => {
    const reader = `[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '${look} >>${log}/reader'\n`;
    const files = (content: string) => ({
      late: { content, when: "after", owner: "newcomer", "restart-units": ["test-reader.service"] },
    });
    const more = {
      snippet: "getent passwd newcomer >/dev/null || useradd newcomer",
      units: { "test-reader.service": reader },
    };
    await fleet.configure(files("old\n"), system("1", more));
    expect(await fleet.deployed("web1")).not.toContain("does not exist yet");
    expect(await seen("reader")).toBe("absent\nold\n");
    expect(await ssh(host, `stat -c '%U %a' ${dir}/late`)).toBe("newcomer 400\n");
    await fleet.configure(files("new\n"), system("2", more));
    await fleet.deployed("web1");
    expect(await seen("reader")).toBe("absent\nold\nnew\n");
    expect(await records()).toBe("secrets\n");
  });
});

describe("a secret of the initial ramdisk", () => {
  const files = (content: string, early = "early") => ({
    key: { content, "in-initrd": true },
    other: { content: early },
  });
  const entries = () => ssh(host, "wc -l </var/log/install-bootloader.log");
  const running = () => ssh(host, "readlink -f /run/current-system");

  test("that changed has the boot entry written again though the system is unchanged, one that did not has not", async () => {
    await fleet.configure(files("old"));
    await fleet.deployed("web1");
    const [before, system] = [await entries(), await running()];
    await fleet.configure(files("old", "another"));
    expect(await fleet.deployed("web1")).toMatch(/rebuild: unchanged, /);
    expect(await entries()).toBe(before);
    await fleet.configure(files("new", "another"));
    expect(await fleet.deployed("web1")).toMatch(/rebuild: switched to /);
    expect([await entries(), await running()]).toEqual([`${Number(before) + 1}\n`, system]);
    expect(await fleet.deployed("web1")).toMatch(/rebuild: unchanged, /);
    expect(await entries()).toBe(`${Number(before) + 1}\n`);
    expect(await records()).toBe("secrets\n");
  });

  test.each(["switch", "boot"])(
    "that the step alone changed, or a boot loader that failed, is not forgotten by %s",
    async (action) => {
      await fleet.configure(files("old"));
      await fleet.deployed("web1");
      const before = await entries();
      await fleet.configure(files("new"));
      expect(await fleet.deployed("web1:deploy-secrets")).toContain(
        "the boot entry is written again by the next rebuild\n",
      );
      expect(await entries()).toBe(before);
      await fleet.deployed("web1:rebuild", "REBUILD_ACTION=test");
      expect(await entries()).toBe(before);
      await ssh(host, "mkdir -p /run/standin; touch /run/standin/bootloader-fails");
      expect((await fleet.deploy("web1:rebuild", `REBUILD_ACTION=${action}`)).exitCode).toBe(201);
      await ssh(host, "rm /run/standin/bootloader-fails");
      await fleet.deployed("web1:rebuild", `REBUILD_ACTION=${action}`);
      // The new system's, in vain; the old one's, in vain; the new one's.
      expect(await entries()).toBe(`${Number(before) + 3}\n`);
      expect(await fleet.deployed("web1:rebuild", `REBUILD_ACTION=${action}`)).toContain("rebuild: unchanged, ");
    },
  );
});
