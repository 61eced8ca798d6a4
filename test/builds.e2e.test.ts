// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
/** Where systems are built, on hosts whose nix trusts root alone: on the target, here, on a build host; what `build` and `diff` say. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  buildSystem,
  type Fleet,
  fleet,
  markNixos,
  mustRun,
  run,
  ssh,
  sshConfig,
  temporaryDirectory,
  trySsh,
} from "./hosts.ts";
import { call } from "./runtime.ts";

const host = "pop1";
const builder = "pop3";
const password = "word of 'ops2'";
const file = join(temporaryDirectory(), "password");
const withConfig = ["--ssh", `ssh -F ${sshConfig}`, "--ssh-opt", "-F", "--ssh-opt", sshConfig];
const accounts = {
  root: [],
  ops: [],
  "ops, with sudo": ["--sudo", "sudo"],
  "ops2, with sudo's password": ["--sudo", "sudo", "--password-command", `cat ${file}`],
};
type Account = keyof typeof accounts;
const places = { target: [], local: ["--build-on", "local"], builder: ["--build-on", `ops@${builder}`] };
type Place = keyof typeof places;

let made: Fleet;
let version = 1;
/** Makes web1 a system that no store has. */
const renew = () =>
  made.change(
    { hosts: { web1: { units: { "hello.service": null } }, web2: null, db1: null } },
    { version: `${process.pid}.${++version}\n` },
  );

beforeAll(async () => {
  made = await fleet();
  await markNixos(host, made.dir, "web1");
  writeFileSync(file, `${password}\n`);
  const add = `id ops2 >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --groups nix-users ops2
chpasswd; rm -rf /home/ops2/.ssh; cp -Rp /home/ops/.ssh /home/ops2; chown -R ops2: /home/ops2; loginctl enable-linger ops2
echo 'ops2 ALL=(ALL) ALL' >/etc/sudoers.d/ops2`;
  await ssh(host, add, { input: `ops2:${password}\n` });
  await trust("root");
});
afterAll(() => trust("root ops"));

async function trust(users: string): Promise<void> {
  for (const name of [host, builder])
    await ssh(
      name,
      `sed -i 's/^trusted-users.*/trusted-users = ${users}/' /etc/nix/nix.conf; systemctl restart nix-daemon`,
    );
}

type Options = { account?: Account; to?: string; variables?: Record<string, string>; env?: Record<string, string> };
/** The step `rebuild` of web1, or another that is the same call. */
async function rebuild(more: string[], { account = "root", variables, env, to = host }: Options = {}) {
  const login = ["--to", `${account.split(",")[0]}@${to}`, ...withConfig, ...accounts[account]];
  return call(["rebuild", "--host", "web1", ...login, "--flake", made.dir, ...more], {
    variables: { ...variables },
    env: { XDG_RUNTIME_DIR: mkdtempSync(join(temporaryDirectory(), "run-")), ...env },
  });
}
const step = (name: string, more: string[], options: Options = {}) =>
  rebuild(more, { ...options, variables: { TASK: `web1:${name}`, ...options.variables } });
const here = (place: Place) => ["--local-evaluation", ...places[place]];

const isThere = async (name: string, path: string) =>
  (await trySsh(name, `nix-store --check-validity ${path} 2>/dev/null`)).exitCode === 0;
const isHere = async (path: string) => (await run("nix-store", ["--check-validity", path])).exitCode === 0;
const current = async () => (await ssh(host, "readlink -f /run/current-system")).trim();
const state = () => ssh(host, "readlink -f /run/current-system /nix/var/nix/profiles/system; ls /nix/var/nix/gcroots");

describe("a system gets to the target, to whom nobody is trusted", () => {
  const activating = (Object.keys(accounts) as Account[]).filter((account) => account !== "ops");
  const all = activating.flatMap((account) =>
    (Object.keys(places) as Place[]).map((place) => [account, place] as const),
  );
  it.each(all)("%s, built on: %s", async (account, place) => {
    await renew();
    const { stdout, stderr, exitCode } = await rebuild(here(place), {
      account,
      variables: { REBUILD_ACTION: "build" },
    });
    expect([exitCode, stderr]).toEqual([0, ""]);
    const path = stdout.match(/built (\/nix\/store\/\S+)/)?.[1] ?? "";
    expect(path).toContain(`-nixos-system-web1-${process.pid}.${version}`);
    const stores = {
      target: await isThere(host, path),
      local: await isHere(path),
      builder: await isThere(builder, path),
    };
    expect(stores).toEqual({ target: true, local: place === "local", builder: place === "builder" });
    expect(stdout).toContain("building '/nix/store/"); // its progress
  });

  it("and what it has already is neither copied nor built again", async () => {
    for (const place of Object.keys(places) as Place[]) {
      const { stdout, exitCode } = await rebuild(here(place), { variables: { REBUILD_ACTION: "build" } });
      expect(exitCode).toBe(0);
      if (place === "target") expect(stdout).not.toMatch(/copying|building/);
    }
  });

  it("and is switched to", async () => {
    await renew();
    const { stdout, exitCode } = await rebuild(here("builder"), { account: "ops2, with sudo's password" });
    expect([exitCode, stdout]).toEqual([0, expect.stringContaining(`switched to ${await current()}`)]);
    expect(await current()).toContain(`-web1-${process.pid}.${version}`);
  });

  it("what a cache offers it is not sent there", async () => {
    await renew();
    const path = (await step("build", here("local"))).stdout.trim();
    const cache = temporaryDirectory();
    await mustRun("nix", ["copy", "--no-check-sigs", "--to", `file://${cache}?compression=none`, path]);
    const send = `tar -c -C ${cache} . | ssh -F ${sshConfig} root@${host} 'rm -rf /srv/cache; mkdir /srv/cache; tar -x -C /srv/cache'`;
    await mustRun("sh", ["-c", send]);
    await ssh(
      host,
      `echo 'substituters = file:///srv/cache?trusted=true' >>/etc/nix/nix.conf; systemctl restart nix-daemon`,
    );
    try {
      const { stdout, exitCode } = await rebuild(here("local"), {
        account: "ops2, with sudo's password",
        variables: { REBUILD_ACTION: "build" },
      });
      expect([exitCode, stdout]).toEqual([
        0,
        expect.stringContaining(`copying path '${path}' from 'file:///srv/cache`),
      ]);
    } finally {
      await ssh(host, "sed -i '/srv.cache/d' /etc/nix/nix.conf; systemctl restart nix-daemon; rm -r /srv/cache");
    }
  });
});

describe("the build host", () => {
  it("is reached with nothing of the target's but its ssh.command", async () => {
    await renew();
    const options = ["--ssh-opt", "-oHostKeyAlias=pop1", "--ssh-opt", "-lroot"];
    const { stdout, exitCode } = await rebuild([...options, ...here("builder")], {
      variables: { REBUILD_ACTION: "build" },
    });
    expect([exitCode, stdout]).toEqual([0, expect.stringContaining("rebuild: unchanged, built /nix/store/")]);
  });

  it("dies while it sends: the target has nothing that is not whole, and the next try brings it", async () => {
    await renew();
    const path = (await step("build", here("builder"))).stdout.trim();
    const dying = `#!/bin/sh\n[ "$1" = --export ] || exec /usr/bin/nix-store "$@"\n/usr/bin/nix-store "$@" | head -c 3000; kill -9 $PPID\n`;
    const place = "/usr/local/bin/nix-store";
    await ssh(builder, `cat >${place}; chmod 755 ${place}`, { input: dying });
    const cut = await rebuild(here("builder"));
    await ssh(builder, `rm ${place}`);
    expect([cut.exitCode, cut.stderr]).toEqual([1, expect.stringMatching(/^web1: rebuild failed: .*end.of.file/)]);
    expect(await isThere(host, path)).toBe(false);
    expect(await rebuild(here("builder"))).toMatchObject({ exitCode: 0, stderr: "" });
    expect(await current()).toBe(path);
  });

  it.each([
    ["does not answer", "--build-on=192.0.2.1", 1, /^web1: rebuild failed: the build host: ssh: connect/],
    ["is an option", "--build-on=-oProxyCommand=x", 2, /build-on is no host name/],
    ["is an option, as user", "--build-on=-oProxyCommand=x@pop3", 2, /build-on is no host name/],
  ])("%s", async (_, flag, code, words) => {
    await renew();
    const { stderr, exitCode } = await rebuild(["--local-evaluation", ...flag.split(/=(.*)/, 2)]);
    expect([exitCode, stderr]).toEqual([code, expect.stringMatching(words)]);
  });
});

it.each(Object.keys(places) as Place[])("a build that fails, on: %s, tells why", async (place) => {
  await made.change({ hosts: { web1: { kernelKiB: `no words ${version}` as never }, web2: null, db1: null } });
  const { stderr, exitCode } = await rebuild(here(place));
  expect([exitCode, stderr]).toEqual([1, expect.stringMatching(/^web1: rebuild failed: .*head: invalid number/)]);
  const { stderr: none } = await step("build", here(place), { variables: { LOLLYPOPS_DRY_RUN: "1" } });
  expect(none).toBe("");
});

describe("build", () => {
  it.each(Object.keys(places) as Place[])("on: %s, prints the path alone, and activates nothing", async (place) => {
    await renew();
    const before = await state();
    const { stdout, stderr, exitCode } = await step("build", here(place));
    expect([exitCode, stdout]).toEqual([0, expect.stringMatching(/^\/nix\/store\/\S+-nixos-system-web1-\S+\n$/)]);
    expect(stderr).toContain("building '/nix/store/");
    expect(await isThere(host, stdout.trim())).toBe(place === "target");
    expect(await state()).toBe(before);
  });

  it("where the host evaluates: of our flake, else of the one deployed there; by anybody", async () => {
    const place = ["--config-dir", "/srv/flake-of-build"];
    await ssh(host, "rm -rf /srv/flake-of-build");
    await renew();
    const none = await step("build", place);
    expect(none).toMatchObject({ exitCode: 1, stdout: "" });
    expect(none.stderr).toContain(
      "web1: build failed: there is no flake at /srv/flake-of-build/flake; run deploy-flake first\n",
    );
    const path = await buildSystem(host, made.dir, "web1"); // brings the flake
    expect(await step("build", place)).toMatchObject({ exitCode: 0, stdout: `${path}\n` });
    const { stdout } = await mustRun("nix", ["flake", "prefetch", "--json", made.dir]);
    await ssh(host, `mkdir /srv/flake-of-build; ln -s ${JSON.parse(stdout).storePath} /srv/flake-of-build/flake`);
    await renew();
    const older = await step("build", place, { account: "ops" });
    expect(older).toMatchObject({ exitCode: 0, stdout: `${path}\n` });
    expect(older.stderr).toContain("note: the flake there is /nix/store/");
  });
});

describe("diff", () => {
  it.each([...(Object.keys(places) as Place[]), "evaluated there"])("%s", async (place) => {
    await renew();
    if (place === "evaluated there") await buildSystem(host, made.dir, "web1");
    const before = await state();
    const words = place === "evaluated there" ? [] : here(place as Place);
    const { stdout, stderr, exitCode } = await step("diff", words, { account: "ops, with sudo" });
    expect([exitCode, exitCode === 0 ? "" : stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^\/nix\/store\/\S+ -> \/nix\/store\/\S+-nixos-system-web1-\S+\n/);
    expect(stdout).toContain(`nixos-system-web1: `);
    expect(await state()).toBe(before);
  });

  it("of what runs there: no difference", async () => {
    await renew();
    await rebuild(here("target"));
    expect((await step("diff", here("target"))).stdout).toBe(`no difference: ${await current()} runs\n`);
  });

  it("of a specialisation that is not there", async () => {
    const { stderr, exitCode } = await step("diff", [...here("target"), "--specialisation", "gaming"]);
    expect([exitCode, stderr]).toEqual([
      1,
      expect.stringMatching(/: diff failed: there is no \S+\/specialisation\/gaming\n$/),
    ]);
  });

  it("is a list of paths where nix is too old", async () => {
    const old = `#!/bin/bash\nfor word; do [ "$word" != diff-closures ] || exit 1; done\nexec -a "$(basename "$0")" /srv/nix.real "$@"\n`;
    await ssh(
      host,
      `cp -L /usr/bin/nix /srv/nix.real; cat >/srv/nix.old; chmod 755 /srv/nix.old; mkdir -p /srv/bin; mount --bind /srv/nix.old /usr/bin/nix`,
      { input: old },
    );
    try {
      await renew();
      const { stdout } = await step("diff", here("builder"));
      expect(stdout).toMatch(/^\/nix\/store\/\S+ -> (\S+)\n(.*\n)*\+ \1\n/);
      expect(stdout).toContain(`\n- ${await current()}\n`);
    } finally {
      await ssh(host, "umount -l /usr/bin/nix");
    }
  });
});
