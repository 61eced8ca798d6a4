/** No secret is anywhere but in its place: each is a word that nothing else has, and it is looked for everywhere, on both sides. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { cli, type Fleet, fleet, markFleet, mustRun, run, ssh, task, temporaryDirectory } from "./hosts.ts";
import { runtime, shellDirectory } from "./runtime.ts";

const hosts = ["pop1", "pop2", "pop3"];
const names = ["plain", "late", "watched", "home", "password", "failing", "complaint", "decoy"] as const;
type Name = (typeof names)[number];
const words = Object.fromEntries(names.map((name) => [name, `${name}+%/${randomBytes(12).toString("hex")}`]));
const word = (name: Name) => words[name] as string;

/** A word as it is, in hex, as in a URL, and wherever it may stand in base64. */
function forms(text: string): string[] {
  const hex = Buffer.from(text).toString("hex");
  const aligned = [0, 1, 2].map((shift) => {
    const encoded = Buffer.from(" ".repeat(shift) + text).toString("base64");
    return encoded.slice(Math.ceil((shift * 8) / 6), Math.floor(((shift + text.length) * 8) / 6));
  });
  return [text, hex, hex.toUpperCase(), encodeURIComponent(text), hex.replace(/../g, "%$&"), ...aligned];
}
const patterns = Object.values(words).flatMap(forms);
const leaks = (text: string, but: readonly string[] = []) =>
  patterns.filter((pattern) => !but.includes(pattern) && text.replaceAll("\n", "").includes(pattern));

// What belongs to this test and holds the words; and what the runs get as theirs.
const sources = temporaryDirectory();
const own = temporaryDirectory();
const record = join(own, "calls");
const listed = join(sources, "patterns");
const env = {
  ...Object.fromEntries(
    ["HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"].map((name) => {
      mkdirSync(join(own, name), { mode: 0o700 });
      return [name, join(own, name)];
    }),
  ),
  // Whatever the runtime calls a variable, an export of that name is no way out.
  ...Object.fromEntries((runtime.text.match(/\b[a-z][a-z_]*\b/g) ?? []).map((name) => [name, "exported"])),
  PATH: [join(own, "bin"), process.env["PATH"]].join(delimiter),
};
const since = `@${Math.floor(Date.now() / 1000)}`;

/** A command that prints a word again and again, so that some are whole wherever an encoding breaks its lines. */
function command(name: Name, round: number): string {
  const content = Array.from({ length: 9 }, (_, index) => `${"-".repeat(index + round)}${word(name)}\n`).join("");
  writeFileSync(join(sources, `${name}.${round}`), content);
  return `cat ${join(sources, `${name}.${round}`)}`;
}

const secret = (name: Name, round: number, dir = "/srv/s", more = {}) => ({
  [name]: { path: `${dir}/${name}`, cmd: command(name, round), ...more },
});
const home = (round: number) => ({ users: { ops: { secrets: { files: secret("home", round, "/home/ops/s") } } } });

function settings(round: number) {
  const files = {
    ...{ "api token": null, "tls/key.pem": null, "db password": null },
    ...secret("plain", round),
    ...secret("late", round, "/srv/s", { when: "after" }),
    ...secret("watched", round, "/srv/s", { "restart-units": ["hello.service"] }),
  };
  const ops = { ssh: { user: "ops" }, sudo: { enable: true } };
  const sudo = { enable: true, "password-command": `cat ${join(sources, "password")}` };
  return {
    all: { lollypops: { secrets: { files } } },
    hosts: {
      web2: { lollypops: { deployment: ops, "home-manager": home(round) } },
      db1: { lollypops: { deployment: { ...ops, sudo } } },
    },
  };
}
/** The same, with a command that says what it should not, and fails. */
function failing() {
  const { all, hosts } = settings(2);
  const cmd = `${command("failing", 2)}; cat ${join(sources, "complaint")} >&2; exit 3`;
  return { all, hosts: { ...hosts, web1: { lollypops: { secrets: { files: { failing: { cmd } } } } } } };
}

/** Makes programs that note the arguments and the environment of each call in `calls`, before they become those of `path`. */
const recorder = (
  bin: string,
  calls: string,
  path: string,
  programs: string,
) => `mkdir -p ${calls} ${bin} && chmod 1777 ${calls}
  for name in ${programs}; do
    program=$(PATH=${path}; command -v $name) || { echo "there is no $name"; exit 1; }
    printf '#!/bin/sh\n{ /bin/cat /proc/$$/cmdline /proc/$$/environ >>${calls}/%s.$$; } 2>/dev/null\nexec %s "$@"\n' $name "$program" >${bin}/$name
    chmod 755 ${bin}/$name
  done`;
const here = "awk base64 cat grep id mkdir nix nix-store od printf rm sed sh sleep sort ssh tr";
const there =
  "awk base64 cat chmod chown cp env flock getent grep head id mkdir mktemp mv nix nix-env nix-store readlink rm sed setpriv setsid sh sha256sum sort stat sudo sync systemctl systemd-run tail timeout tr";

/** Looks, until told to stop, at all processes of this machine and its containers, and at what the runs write. */
function watch(): () => Promise<string> {
  const processes = `cd /proc && while kill -0 ${process.pid}; do grep -saoHF -f ${listed} [0-9]*/cmdline [0-9]*/environ | sort -u |
    while IFS= read -r hit; do echo "$hit in $(tr '\\0' ' ' <\${hit%%/*}/cmdline 2>/dev/null)"; done; done`;
  const files = `while kill -0 ${process.pid}; do grep -rsalF -D skip -f ${listed} ${own} ${place.dir}; done`;
  const watchers = [processes, files].map((loop) => {
    const child = spawn("/bin/sh", ["-c", loop], { stdio: ["ignore", "pipe", "inherit"], detached: true });
    let seen = "";
    child.stdout.on("data", (text) => (seen += text));
    const ended = new Promise((resolve) => child.on("close", resolve));
    return { child, ended, seen: () => seen };
  });
  return async () => {
    for (const { child } of watchers) process.kill(-(child.pid as number));
    await Promise.all(watchers.map(({ ended }) => ended));
    return watchers.map(({ seen }) => seen()).join("");
  };
}

/** Which files that are newer than this test hold a word. */
const search = (roots: string, file: string) =>
  `find ${roots} -xdev -newerct ${since} -type f -print0 2>/dev/null | xargs -0 -r grep -salF -f ${file} | sort -u`;

let place: Fleet;
let taskfile = "";
let seen = "";
let printed = "";
let failed = "";

async function configure(change: Parameters<Fleet["change"]>[0]): Promise<void> {
  await place.change(change);
  expect((await cli(["-o", "Taskfile.yml"], { cwd: place.dir })).stderr).toBe("");
  taskfile += readFileSync(join(place.dir, "Taskfile.yml"), "utf8");
}
async function output(args: string[], code = 0, more: Record<string, string> = {}): Promise<string> {
  const { stdout, stderr, exitCode } = await task(args, { cwd: place.dir, env: { ...env, ...more } });
  expect([args, exitCode, exitCode === code ? "" : stdout + stderr]).toEqual([args, code, ""]);
  return stdout + stderr;
}

async function prepareHosts(): Promise<void> {
  await markFleet(place);
  await ssh("pop3", "echo 'ops ALL=(ALL) ALL' >/etc/sudoers.d/ops; chpasswd", { input: `ops:${word("password")}\n` });
  for (const host of hosts) {
    await ssh(
      host,
      `rm -rf /srv/s /home/ops/s /calls; ${recorder("/usr/local/bin", "/calls", "/usr/sbin:/usr/bin", there)}`,
    );
  }
}

beforeAll(async () => {
  writeFileSync(listed, `${patterns.join("\n")}\n`);
  for (const name of ["password", "complaint"] as const) writeFileSync(join(sources, name), `${word(name)}\n`);
  place = await fleet();
  await prepareHosts();
  await mustRun("sh", ["-c", recorder(join(own, "bin"), record, `'${process.env["PATH"]}'`, here)]);
  const stop = watch();
  try {
    await run("sleep", ["1"], { env: { decoy: word("decoy") } });
    await deployAll();
  } finally {
    seen = await stop();
  }
});

async function deployAll(): Promise<void> {
  await configure(settings(0));
  printed += await output(["--dry", "-v", "deploy-all"]);
  printed += await output(["deploy-all", "LOLLYPOPS_DRY_RUN=1"]);
  printed += await output(["all:check-secrets", "-v"]);
  printed += await output(["deploy-all", "-v"]);
  await configure(settings(1));
  const bash = [await shellDirectory("bash"), env.PATH].join(delimiter);
  printed += await output(["deploy-all"], 0, { PATH: bash, SHELLOPTS: "allexport:verbose:xtrace" });
  await configure(failing());
  failed = await output(["deploy-all"], 201);
}

afterAll(async () => {
  for (const host of hosts) await ssh(host, `cd /usr/local/bin && rm -rf ${there} /calls /srv/s /home/ops/s`);
  await ssh("pop3", "echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops; usermod -p '!' ops");
});

it("is in no Taskfile, and in nothing that a run prints", () => {
  expect(leaks(taskfile)).toEqual([]);
  expect(leaks(printed)).toEqual([]);
});

it("is printed by a command that fails, for the terminal alone", () => {
  expect(failed).toContain(word("complaint"));
  expect(failed).toContain("failing: its command ended with exit 3; nothing was sent");
  expect(leaks(failed, [word("complaint")])).toEqual([]);
});

it("is in the arguments and the environment of no process, nor in a file that is there for a moment", () => {
  const lines = seen.split("\n").filter((line) => line);
  const [decoys, others] = [true, false].map((is) => lines.filter((line) => line.includes(word("decoy")) === is));
  expect(others).toEqual([]);
  expect(decoys).not.toEqual([]);
});

it("is left in no file of this machine", async () => {
  const roots = `/tmp /var/tmp /dev/shm /run ${homedir()} ${place.dir}`;
  expect((await run("ls", [record])).stdout).toMatch(/^base64[.]/m);
  const { stdout } = await run("sh", ["-c", search(roots, listed)]);
  expect(stdout.split("\n").filter((file) => file && !file.startsWith(sources))).toEqual([]);
  expect(stdout).toContain(listed);
});

it("would be in no core: the runtime leaves none, whatever the limit was", async () => {
  const killer = join(sources, "ssh");
  writeFileSync(killer, "#!/bin/sh\ncat /proc/$PPID/limits >limits\nkill -ABRT $PPID\n", { mode: 0o755 });
  const call = ["-c", 'ulimit -c unlimited; exec task "$@"', "sh", "web2:deploy-secrets"];
  await run("sh", [...call, `LP_REMOTE_COMMAND=${killer}`], { cwd: place.dir, env });
  expect(readFileSync(join(place.dir, "limits"), "utf8")).toMatch(/^Max core file size +0 /m);
  expect(readdirSync(place.dir).filter((file) => file.startsWith("core"))).toEqual([]);
});

it.each([
  ["pop1", ["late", "plain", "watched"].map((name) => `/srv/s/${name}`)],
  ["pop2", ["/home/ops/s/home", ...["late", "plain", "watched"].map((name) => `/srv/s/${name}`)]],
  ["pop3", ["late", "plain", "watched"].map((name) => `/srv/s/${name}`)],
])("is on %s in its place alone, and in no journal", async (host, places) => {
  await ssh(host, "cat >/run/patterns", { input: `${patterns.join("\n")}\n` });
  expect(await ssh(host, search("/ /run /tmp /dev/shm /boot", "/run/patterns"))).toBe(
    `${[...places, "/run/patterns"].sort().join("\n")}\n`,
  );
  expect(await ssh(host, "ls /calls")).toMatch(/^sha256sum[.]/m);
  const journal = `journalctl -o export --since ${since} | grep -caF -f /run/patterns; rm /run/patterns`;
  expect(await ssh(host, journal)).toBe("0\n");
});
