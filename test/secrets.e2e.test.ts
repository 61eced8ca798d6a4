// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
/** What deploy-secrets promises on a real host, when all goes well: bytes, owners, units in their turn, and nothing without need. */
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { cut, type HostSettings, mend, ssh } from "./hosts.ts";
import { asOps, dir, expectNoLeftovers, type Files, host, type SecretFleet, secretFleet } from "./secret-fleet.ts";

const accounts: [string, HostSettings][] = [
  ["as root", {}],
  ["as ops with sudo", { lollypops: asOps }],
];

let fleet: SecretFleet;
beforeAll(async () => {
  fleet = await secretFleet();
});
beforeEach(() => fleet.renew());
afterEach(expectNoLeftovers);

const quote = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;
const sum = (content: string | Buffer) => createHash("sha256").update(content).digest("hex");
const look = () => ssh(host, `find ${dir} -printf '%P %U:%G %m %i %T@\\n' 2>/dev/null | sort`);

describe.each(accounts)("%s", (_, account) => {
  test.each(["web1", "web1:deploy-secrets"])(
    "task %s brings the exact bytes, whatever they and the names are",
    async (name) => {
      const files: Record<string, { content: string | Buffer; path?: string }> = {
        nuls: { content: Buffer.from("\0a\0\0b\0") },
        bare: { content: "no final newline" },
        newlines: { content: "\n\nthree at the end\n\n\n" },
        "a newline alone": { content: "\n" },
        big: { content: randomBytes(5_000_000) },
        bytes: { content: Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0x0d, 0x0a, 0x80]) },
        [`it's "quoted" \`$HOME\` \\`]: { content: "name" },
        path: { content: "path", path: `${dir}/it's a "dir" $(x)/ -n \\t` },
        long: { content: "long", path: `${dir}/${"x".repeat(200)}` },
      };
      await fleet.configure(files, account);
      expect(await fleet.deployed(name)).toContain("deploy-secrets: 9 changed, 0 unchanged\n");
      const paths = Object.entries(files).map(([key, { path = `${dir}/${key}` }]) => path);
      const sums = await ssh(host, paths.map((path) => `sha256sum <${quote(path)}`).join("; "));
      expect(sums).toBe(
        Object.values(files)
          .map(({ content }) => `${sum(content)}  -\n`)
          .join(""),
      );
    },
  );

  test("owner, group and mode are as configured, and parents only for root to list", async () => {
    const home = { users: { ops: { secrets: { "default-dir": "/home/ops/s", files: fleet.secrets({ mine: {} }) } } } };
    const wanted: [string, Record<string, unknown>, string][] = [
      ["plain", {}, "root:root 400"],
      ["group", { "group-name": "mail", mode: "0440" }, "root:mail 440"],
      ["own group", { owner: "www-data", mode: "640" }, "www-data:www-data 640"],
      ["both", { owner: "games", "group-name": "www-data", mode: "0060" }, "games:www-data 60"],
      ["set-id", { owner: "games", "group-name": "mail", mode: "4750" }, "games:mail 4750"],
      ["set-gid", { "group-name": "mail", mode: "2755" }, "root:mail 2755"],
      ["sticky", { mode: "01444" }, "root:root 1444"],
    ];
    const files = wanted.map(([name, options]) => [name, { ...options, path: `${dir}/a/b c/${name}` }]);
    await fleet.configure(Object.fromEntries(files), { lollypops: { ...account.lollypops, "home-manager": home } });
    expect(await fleet.deployed("web1")).toContain("deploy-secrets: 8 changed, 0 unchanged\n");
    const stats = (paths: string) => ssh(host, `cd ${dir}; stat -c '%n %U:%G %a' ${paths}`);
    expect(await stats("a/*/*")).toBe(
      wanted
        .map(([name, , stat]) => `a/b c/${name} ${stat}\n`)
        .sort()
        .join(""),
    );
    expect(await stats(". a a/*/.")).toBe(". root:root 711\na root:root 711\na/b c/. root:root 711\n");
    expect(await stats("/home/ops/s /home/ops/s/mine")).toBe("/home/ops/s ops:ops 711\n/home/ops/s/mine ops:ops 400\n");
    expect(await fleet.deployed("web1:deploy-secrets")).toContain("deploy-secrets: 0 changed, 8 unchanged\n");
  });

  test("unchanged ones keep inode and time, changed ones are listed", async () => {
    const names = Array.from({ length: 19 }, (_, i) => `s${i}`);
    const files = (more: Files = {}) => ({ ...Object.fromEntries(names.map((name) => [name, {}])), ...more });
    await fleet.configure(files(), account);
    expect(await fleet.deployed("web1:deploy-secrets")).toContain("deploy-secrets: 19 changed, 0 unchanged\n");
    const before = (await look()).split("\n");
    await fleet.configure(files({ s3: { content: "new" }, s7: { mode: "0440" } }), account);
    const output = await fleet.deployed("web1");
    expect(output).toContain("[web1] deploy-secrets: 2 changed, 17 unchanged\n");
    expect(output.match(/changed: .*/g)).toEqual(["changed: s3", "changed: s7"]);
    const after = (await look()).split("\n");
    expect(before.filter((line) => !after.includes(line)).map((line) => line.split(" ")[0])).toEqual(["", "s3", "s7"]);
    const again = await fleet.deployed("web1");
    expect(again).toContain("[web1] deploy-secrets: 0 changed, 19 unchanged\n");
    expect((await look()).split("\n")).toEqual(after);
  });

  test("a command that prints nothing is refused: the old ones stay, the others too", async () => {
    await fleet.configure({ token: {}, other: {}, "may be empty": { content: "", "allow-empty": true } }, account);
    expect(await fleet.deployed("web1:deploy-secrets")).toContain("3 changed");
    expect(await ssh(host, `cd ${dir}; wc -c <'may be empty'; cat token`)).toBe("0\ncontent of token\n");
    const before = await look();
    await fleet.configure({ token: { content: "" }, other: { content: "new" } }, account);
    const { output, exitCode } = await fleet.deploy("web1");
    expect(output).toContain(
      "web1: deploy-secrets failed: token: its command printed nothing; no secret was changed\n",
    );
    expect(exitCode).toBe(201);
    expect(await look()).toBe(before);
    expect(await ssh(host, "readlink -f /run/current-system")).toContain("-web1-0");
  });
});

/** Tries to open each of these, and what root has in memory, until told to stop; prints what it could open. */
const peep = (places: string) => `
while [ ! -e /tmp/stop ]; do
  for file in ${places} /run/lollypops/* /run/lollypops/*/* /run/lollypops/*/*/*; do
    if [ -f "$file" ] && true <"$file"; then echo "$file"; fi
  done
  for proc in /proc/[0-9]*; do
    read -r stat <$proc/stat || continue
    set -- \${stat##*) }; shift 19
    stage=/run/lollypops/secrets.\${proc#/proc/}-$1
    [ ! -d "$stage" ] || echo seen
    for file in $stage/root/1/big $stage/root/1/open $stage/ops/2/mine; do if true <"$file"; then echo "$file"; fi; done
  done
done 2>/dev/null`;

test("no other account can open a secret at any moment, wherever it is on its way", async () => {
  const home = { users: { ops: { secrets: { "default-dir": "/home/ops/s", files: fleet.secrets({ mine: {} }) } } } };
  await fleet.configure(
    { big: { content: randomBytes(5_000_000), owner: "games" }, open: { mode: "0444" } },
    { lollypops: { "home-manager": home } },
  );
  await ssh(host, "rm -f /tmp/stop; chmod 755 /home/ops");
  const places = `${dir}/big ${dir}/open ${dir}/.lollypops.*/* /home/ops/s/mine /home/ops/s/.lollypops.*/*`;
  const watching = ssh(host, "setpriv --reuid=nobody --regid=nogroup --clear-groups sh | sort -u", {
    input: peep(places),
  });
  expect(await fleet.deployed("web1:deploy-secrets")).toContain("3 changed");
  await ssh(host, "touch /tmp/stop");
  expect(await watching).toBe(`${dir}/open\nseen\n`);
});

describe("some of them", () => {
  test("SECRET=a,b deploys these only, alone and with the whole host", async () => {
    const names = ["a", "b", "c c", "d"];
    const files = (content: string) => Object.fromEntries(names.map((name) => [name, { content }]));
    await fleet.configure(files("old"));
    await fleet.deployed("web1:deploy-secrets");
    await fleet.configure(files("new"));
    const read = () => ssh(host, `cd ${dir}; for f in *; do echo "$f $(cat "$f")"; done`);
    expect(await fleet.deployed("web1:deploy-secrets", "SECRET=a,c c")).toContain(
      "deploy-secrets: 2 changed, 0 unchanged\n",
    );
    expect(await read()).toBe("a new\nb old\nc c new\nd old\n");
    expect(await fleet.deployed("web1", "SECRET=b")).toContain("deploy-secrets: 1 changed, 0 unchanged\n");
    expect(await read()).toBe("a new\nb new\nc c new\nd old\n");
    expect(await ssh(host, "readlink -f /run/current-system")).toContain("-web1-1");
  });

  test.each(["web1:deploy-secrets", "web1:check-secrets", "web1"])(
    "SECRET names one that is not there: %s lists the nearest and runs no command",
    async (name) => {
      const ran = join(fleet.contents, "ran");
      const cmd = `touch ${ran}; echo x`;
      const names = ["database", "data", "tls", "api token", "gate"];
      await fleet.configure(Object.fromEntries(names.map((secret) => [secret, { cmd }])));
      const { output, exitCode } = await fleet.deploy(name, "SECRET=tls,databse");
      expect(output).toContain("web1: SECRET: there is no secret databse; there is database, data, gate\n");
      expect(exitCode).toBe(201);
      expect(existsSync(ran)).toBe(false);
      expect(await look()).toBe("");
    },
  );
});

describe("nothing is written", () => {
  test.each(["dry-activate", "build"])("with %s, which says what would change", async (action) => {
    const owner = { owner: "not-yet", "restart-units": ["ssh.service"], "in-initrd": true };
    await fleet.configure({ a: {}, b: {}, c: {} });
    await fleet.deployed("web1:deploy-secrets");
    await fleet.configure({ a: {}, b: { content: "new" }, c: owner, d: { path: "/srv/secrets/new/d", when: "after" } });
    const all = () => ssh(host, "find /srv /var/lib /run/lollypops /boot -printf '%p %i %C@\\n' 2>&1 | sort");
    const before = await all();
    for (const name of ["web1", "web1:deploy-secrets"]) {
      const output = await fleet.deployed(name, `REBUILD_ACTION=${action}`);
      expect(output).toContain("would change: b\n");
      expect(output).toContain("would change: d\n");
      expect(output).toContain("deploy-secrets: 2 would change, 2 unchanged\n");
      expect(await all()).toBe(before);
    }
    expect(await ssh(host, "readlink -f /run/current-system")).toContain("-web1-0");
  });

  test("with LOLLYPOPS_DRY_RUN, which prints the commands and runs none", async () => {
    await fleet.configure({ a: { cmd: `touch ${join(fleet.contents, "dry")}; echo x` } });
    const output = await fleet.deployed("web1:deploy-secrets", "LOLLYPOPS_DRY_RUN=1");
    expect(output).toContain(`| ssh`);
    expect(existsSync(join(fleet.contents, "dry"))).toBe(false);
    expect(await look()).toBe("");
  });

  test("by check-secrets, which names what is missing and needs no host", async () => {
    await fleet.configure({
      good: {},
      failing: { cmd: "printf half; exit 3" },
      empty: { content: "" },
      "may be": { content: "", "allow-empty": true },
    });
    await cut(1);
    try {
      const { output, exitCode } = await fleet.deploy("web1:check-secrets");
      expect(output).toContain(
        "[web1] web1: check-secrets failed: 2 of 4 secrets are missing:\n[web1]   empty: its command printed nothing\n[web1]   failing: its command ended with exit 3\n",
      );
      expect(output).not.toMatch(/half$/m);
      expect(exitCode).toBe(201);
      expect(await fleet.deployed("web1:check-secrets", "SECRET=good,may be")).toContain(
        "check-secrets: 2 of 2 secrets are there\n",
      );
    } finally {
      await mend(1);
    }
    expect(await look()).toBe("");
    expect((await fleet.deploy("all:check-secrets")).output).toMatch(
      /2 of 3 hosts with check-secrets done; NOT done: 1 failed\n.* web1: failed at check-secrets: 2 of 4 secrets are missing: +empty: /,
    );
  });
});
