/** What a deployment of secrets leaves to the activation, and the activation settles: owners that did not exist, and units. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type HostSettings, root, ssh, trySsh } from "./hosts.ts";
import { asOps, dir, expectNoLeftovers, host, type SecretFleet, secretFleet } from "./secret-fleet.ts";

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
  await ssh(host, `userdel latecomer; groupdel lategroup; rm -rf ${log}; mkdir ${log}`);
  await fleet.renew();
});
afterEach(async () => {
  const units = "/run/systemd/system/test-*.service";
  await ssh(host, `systemctl stop 'test-*'; rm -f ${units}; systemctl daemon-reload; systemctl reset-failed`);
  await expectNoLeftovers();
});

const pending = () => ssh(host, "cd /var/lib/lollypops && cat pending 2>/dev/null || :");
const logs = () => ssh(host, `cd ${log} && grep -H . * || :`);

describe("an owner who does not exist yet", () => {
  const accountsMade =
    "getent group lategroup >/dev/null || groupadd lategroup\ngetent passwd latecomer >/dev/null || useradd latecomer";
  const modules: [string, { snippet: string; late: boolean }][] = [
    [
      "our module's snippet",
      { snippet: `${accountsMade}\n${readFileSync(join(root, "nix/owners.sh"), "utf8")}`, late: false },
    ],
    ["upstream's module, which has none", { snippet: accountsMade, late: true }],
  ];
  const secrets = {
    token: { owner: "latecomer" },
    group: { "group-name": "lategroup", mode: "0440" },
    "set id": { owner: "latecomer", "group-name": "lategroup", mode: "6750" },
  };
  const reader = `[Service]\nType=oneshot\nRemainAfterExit=yes\nUser=latecomer\nStandardOutput=append:${log}/reader\nStandardError=journal\nExecStart=/bin/cat ${dir}/token\n`;
  const stats = () => ssh(host, `cd ${dir}; stat -c '%n %U:%G %a' *`);
  const rootOnly = "group root:root 400\nset id root:root 400\ntoken root:root 400\n";
  const settled = "group root:lategroup 440\nset id latecomer:lategroup 6750\ntoken latecomer:latecomer 400\n";

  describe.each(accounts)("%s", (_, account) => {
    test("leaves the secret to root alone where no rebuild follows, and the step says that", async () => {
      await fleet.configure(secrets, account);
      const output = await fleet.deployed("web1:deploy-secrets");
      for (const [name, owner] of [
        ["token", "latecomer"],
        ["group", "root:lategroup"],
        ["set id", "latecomer:lategroup"],
      ])
        expect(output).toContain(
          `${name}: ${owner} does not exist yet; only root can read it until a rebuild changes that\n`,
        );
      expect(await stats()).toBe(rootOnly);
      expect(await ssh(host, "cd /var/lib/lollypops; stat -c '%n %U %a' . *")).toBe(
        ". root 700\npending root 600\nsecrets root 600\n",
      );
    });

    test.each(modules)(
      "gets it with %s, and so does a unit that reads it when it first starts",
      async (_, { snippet, late }) => {
        await fleet.configure(secrets, { ...account, units: { "reader.service": reader }, snippet });
        const output = await fleet.deployed("web1");
        expect(output).toContain(
          "token: latecomer does not exist yet; only root can read it until the rebuild that follows changes that\n",
        );
        expect(output).toMatch(/rebuild: switched to .*-web1-1\n/);
        expect(await stats()).toBe(settled);
        expect(await logs()).toBe("reader:content of token\n");
        expect(output.includes("the following units failed")).toBe(late);
        expect(output.includes("secrets have got their owners; starting again: reader.service\n")).toBe(
          snippet === accountsMade,
        );
        expect(await ssh(host, "ls /var/lib/lollypops")).toBe("secrets\n");
        const again = await fleet.deployed("web1");
        expect(again).toContain("deploy-secrets: 0 changed, 3 unchanged\n");
        expect(again).toContain("rebuild: unchanged, ");
        expect(await logs()).toBe("reader:content of token\n");
      },
    );
  });

  test("who never comes stays pending, and holds nothing up", async () => {
    await fleet.configure(secrets);
    expect(await fleet.deployed("web1")).toContain("rebuild: switched to");
    expect(await stats()).toBe(rootOnly);
    expect((await pending()).split("\n").sort()).toEqual([
      "",
      `own latecomer - 0400 ${dir}/token`,
      `own latecomer lategroup 6750 ${dir}/set id`,
      `own root lategroup 0440 ${dir}/group`,
    ]);
    await ssh(host, "groupadd lategroup; useradd latecomer");
    expect(await fleet.deployed("web1:rebuild")).toMatch(/rebuild: .* runs already; what waited for it is done\n/);
    expect(await stats()).toBe(settled);
    expect(await ssh(host, "ls /var/lib/lollypops")).toBe("secrets\n");
  });
});

/** A unit that logs the system it runs on and the secret it reads, at each start, and when it is told to read it again. */
const logging = (name: string, more = "") => `[Unit]
${more}
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat /run/current-system/nixos-version ${dir}/token >>${log}/${name}'
ExecReload=/bin/sh -c 'echo reload >>${log}/${name}'
`;

describe("units of changed secrets", () => {
  const restart = (...names: string[]) => ({ "restart-units": names.map((name) => `${name}.service`) });
  const reload = (...names: string[]) => ({ "reload-units": names.map((name) => `${name}.service`) });

  const token = (content: string, options = {}) => ({ token: { content: `${content}\n`, ...options } });

  /** Units that no system knows, as they would be there for long. */
  async function startHere(...names: string[]): Promise<void> {
    for (const name of names) await ssh(host, `cat >/run/systemd/system/${name}.service`, { input: logging(name) });
    await ssh(host, `systemctl daemon-reload; systemctl start ${names.join(" ")}`);
  }

  test.each(accounts)("are restarted or reloaded right away by the step alone, each once, %s", async (_, account) => {
    await fleet.configure(token("old"), account);
    await fleet.deployed("web1:deploy-secrets");
    await startHere("test-one", "test-other", "test-both", "test-stopped", "test-failed");
    await ssh(host, `systemctl stop test-stopped; mv ${dir}/token ${dir}/away`);
    await trySsh(host, `systemctl restart test-failed; mv ${dir}/away ${dir}/token; rm ${log}/*`);
    expect(await ssh(host, "systemctl is-failed test-failed")).toBe("failed\n");
    const second = { ...restart("test-one", "test-both"), ...reload("test-other", "test-failed") };
    const first = { ...restart("test-one", "test-stopped", "test-unknown"), ...reload("test-other", "test-both") };
    await fleet.configure({ ...token("new", first), second }, account);
    for (const words of ["2 changed, 0 unchanged\n", "0 changed, 2 unchanged\n"]) {
      expect(await fleet.deployed("web1:deploy-secrets")).toContain(words);
      expect(await logs()).toBe("test-both:0new\ntest-failed:0new\ntest-one:0new\ntest-other:reload\n");
    }
    expect((await trySsh(host, "systemctl is-active test-stopped test-unknown")).stdout).toBe("inactive\ninactive\n");
    expect(await ssh(host, "ls /var/lib/lollypops")).toBe("secrets\n");
  });

  test("whose restart fails are named by the step, with the secrets in place, and the next run tries again", async () => {
    await fleet.configure(token("old", restart("test-one")));
    await fleet.deployed("web1:deploy-secrets");
    await startHere("test-one");
    await ssh(host, `rm -r ${log}`);
    await fleet.configure(token("new", restart("test-one")));
    const { output, exitCode } = await fleet.deploy("web1:deploy-secrets");
    expect(output).toContain(
      "web1: deploy-secrets failed: the secrets are in place; restarting test-one.service failed\n",
    );
    expect(exitCode).toBe(201);
    expect(await ssh(host, `cat ${dir}/token; mkdir ${log}`)).toBe("new\n");
    expect(await fleet.deployed("web1:deploy-secrets")).toContain("0 changed, 1 unchanged\n");
    expect(await logs()).toBe("test-one:0new\n");
  });

  /** A system whose units log; what it wants is started when it is activated. */
  const system = (version: string, names: string[], more: HostSettings = {}): HostSettings => ({
    version,
    units: Object.fromEntries(names.map((name) => [`test-${name}.service`, logging(`test-${name}`)])),
    ...more,
  });
  const all = { ...restart("test-kept", "test-redefined", "test-new"), ...reload("test-reloaded") };
  const unitsBefore = ["kept", "redefined", "reloaded"];
  const logsBefore = "test-kept:1old\ntest-redefined:1old\ntest-reloaded:1old\n";

  test.each(accounts)(
    "are restarted by a whole deployment once the new system is active, and not twice, %s",
    async (_, account) => {
      await fleet.configure(token("old", all), system("1", unitsBefore, account));
      await fleet.deployed("web1");
      expect(await logs()).toBe(logsBefore);
      const next = system("2", [...unitsBefore, "new"], account);
      const units = { ...next.units, "test-redefined.service": logging("test-redefined", "Description=another") };
      await fleet.configure(token("new", all), { ...next, units });
      const output = await fleet.deployed("web1");
      expect(output).toMatch(
        /activating the configuration[\s\S]*restarting test-kept.service\n[\s\S]*reloading test-reloaded.service\n/,
      );
      expect(await logs()).toBe(
        "test-kept:1old\ntest-kept:2new\ntest-new:2new\ntest-redefined:1old\ntest-redefined:2new\ntest-reloaded:1old\ntest-reloaded:reload\n",
      );
      expect(await ssh(host, "ls /var/lib/lollypops")).toBe("secrets\n");
    },
  );

  test("are restarted by a whole deployment of a system that runs already", async () => {
    await fleet.configure(token("old", all), system("1", unitsBefore));
    await fleet.deployed("web1");
    await fleet.configure(token("new", all), system("1", unitsBefore));
    expect(await fleet.deployed("web1")).toMatch(/rebuild: .* runs already; what waited for it is done\n/);
    expect(await logs()).toBe(
      "test-kept:1old\ntest-kept:1new\ntest-redefined:1old\ntest-redefined:1new\ntest-reloaded:1old\ntest-reloaded:reload\n",
    );
  });

  test("are started by a whole deployment if they had failed, and stay as they are if they were stopped", async () => {
    const more: HostSettings = { wanted: ["test-kept.service"] };
    const secrets = (content: string) => token(content, restart("test-kept", "test-failed", "test-stopped"));
    await fleet.configure(secrets("old"), system("1", ["kept", "failed", "stopped"], more));
    await fleet.deployed("web1");
    await trySsh(host, `mv ${dir}/token ${dir}/away; systemctl start test-failed; mv ${dir}/away ${dir}/token`);
    expect(
      await ssh(
        host,
        `systemctl start test-stopped; systemctl stop test-stopped; rm ${log}/*; systemctl is-failed test-failed`,
      ),
    ).toBe("failed\n");
    await fleet.configure(secrets("new"), system("2", ["kept", "failed", "stopped"], more));
    await fleet.deployed("web1");
    expect(await logs()).toBe("test-failed:2new\ntest-kept:2new\n");
  });

  test.each<[string, string, { failing: HostSettings; after: string }]>([
    ["check", "web1", { failing: { check: "false" }, after: "2new" }],
    ["check", "web1:deploy-secrets", { failing: { check: "false" }, after: "1new" }],
    ["activation", "web1:rebuild", { failing: { snippet: "false" }, after: "2new" }],
  ])("are not lost when the %s fails in between: %s restarts them", async (_, next, { failing, after }) => {
    await fleet.configure(token("old", restart("test-kept")), system("1", ["kept"]));
    await fleet.deployed("web1");
    await fleet.configure(token("new", restart("test-kept")), system("2", ["kept"], failing));
    expect((await fleet.deploy("web1")).exitCode).toBe(201);
    expect(await logs()).toBe("test-kept:1old\n");
    expect(await pending()).toMatch(/^unit restart test-kept.service [0-9a-f]{32}\n$/);
    await fleet.configure(token("new", restart("test-kept")), system("2", ["kept"]));
    if (next.includes("rebuild")) await fleet.deployed("web1:deploy-flake");
    await fleet.deployed(next);
    expect(await logs()).toBe(`test-kept:1old\ntest-kept:${after}\n`);
    expect(await pending()).toBe("");
  });

  test("wait for the next switch where the system is made for the next boot only", async () => {
    await fleet.configure(token("old", restart("test-kept")), system("1", ["kept"]));
    await fleet.deployed("web1");
    await fleet.configure(token("new", restart("test-kept")), system("2", ["kept"]));
    await fleet.deployed("web1", "REBUILD_ACTION=boot");
    expect(await ssh(host, `cat ${dir}/token ${log}/*`)).toBe("new\n1old\n");
    await fleet.deployed("web1");
    expect(await logs()).toBe("test-kept:1old\ntest-kept:2new\n");
  });

  test("whose restart fails after the activation are named by the rebuild", async () => {
    await fleet.configure(token("old", restart("test-kept")), system("1", ["kept"]));
    await fleet.deployed("web1");
    await fleet.configure(token("new", restart("test-kept")), system("2", ["kept"], { snippet: `rm -r ${log}` }));
    const { output, exitCode } = await fleet.deploy("web1");
    expect(output).toMatch(
      /web1: rebuild rolled-back: restarting test-kept.service failed; .*-web1-1 runs, with failed units: test-kept.service\n/,
    );
    expect(exitCode).toBe(201);
    expect(await ssh(host, `cat ${dir}/token; mkdir ${log}`)).toBe("new\n");
    await fleet.configure(token("new", restart("test-kept")), system("2", ["kept"]));
    await fleet.deployed("web1");
    expect(await logs()).toBe("test-kept:2new\n");
  });
});
