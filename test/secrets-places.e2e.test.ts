/** Places on a real host that take no secret, or that somebody else has a hand in: nothing is changed, or nothing goes astray. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
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
  start,
  taskfile,
  until,
} from "./faults.ts";
import { run, ssh } from "./hosts.ts";

const look = () => ssh(host, `cd ${dir} && find . -printf '%P %u:%g %m %i %s\\n' | sort`);
const cksum = async (text: string) => (await run("cksum", [], { input: text })).stdout;

beforeEach(emptyDir);
afterEach(() => expectNothingLeft());

describe("a place that does not take it: ", () => {
  type Case = { setup?: string; break: string; mend: string; words: string; path?: string; content?: string };
  const cases: Record<string, Case> = {
    "the disk is full": {
      setup: "mkdir m && mount -t tmpfs -o size=200k tmpfs m",
      break: ":",
      mend: "mount -o remount,size=1m m",
      words: `no room in ${dir}/m`,
      path: `${dir}/m/b`,
      content: "x".repeat(300_000),
    },
    "no inode is left": {
      setup: "mkdir m && mount -t tmpfs -o nr_inodes=3 tmpfs m",
      break: "touch m/last",
      mend: "rm m/last; mount -o remount,nr_inodes=9 m",
      words: `cannot write in ${dir}/m`,
      path: `${dir}/m/b`,
    },
    "the file system is read-only": {
      setup: "mkdir m && mount -t tmpfs tmpfs m",
      break: "mount -o remount,ro m",
      mend: "mount -o remount,rw m",
      words: `cannot write in ${dir}/m`,
      path: `${dir}/m/b`,
    },
    "/run is full": {
      break: "fallocate -l $(($(df --output=avail -B1 /run | tail -1) - 300000)) /run/filler",
      mend: "rm /run/filler",
      words: "not all of it arrived, or there is no room in /run; no secret was changed",
      content: "x".repeat(1_000_000),
    },
    "/var/lib/lollypops is read-only": {
      break: "cd /var/lib/lollypops && mount --bind . . && mount -o remount,bind,ro .",
      mend: "umount /var/lib/lollypops",
      words: "cannot write /var/lib/lollypops/secrets",
    },
    "a directory is there": { break: "rm b; mkdir b", mend: "rmdir b", words: `b: ${dir}/b is a directory` },
    "a mount point is there": {
      break: "mount --bind /etc/hostname b",
      mend: "umount b",
      words: `b: ${dir}/b is a mount point; set the path to its source`,
    },
    "a mount point with blanks in its path is there": {
      break: "mount --bind /etc/hostname ' a \\ b'",
      mend: "umount ' a \\ b'",
      words: `b: ${dir}/ a \\ b is a mount point; set the path to its source`,
      path: `${dir}/ a \\ b`,
    },
  };

  test.each(Object.entries(cases))(
    "%s",
    async (_, { setup = ":", words, path = `${dir}/b`, content = "new", ...now }) => {
      await ssh(host, `cd ${dir} && ${setup}`);
      const both = (text: string, other: string) => ({
        a: { path: `${dir}/a`, content: text },
        b: { path, content: other },
      });
      expect(await deploy(await taskfile(both("old", "old")))).toMatchObject({ status: 0 });
      await ssh(host, `cd ${dir} && ${now.break}`);
      const before = await look();
      const cwd = await taskfile(both("new", content));
      const { output, status } = await deploy(cwd);
      expect(output).toContain(`web1: deploy-secrets failed: ${words}\n`);
      expect(status).toBe(1);
      expect(await look()).toBe(before);
      await ssh(host, `cd ${dir} && ${now.mend}`);
      expect((await deploy(cwd)).output).toContain("2 changed, 0 unchanged");
      expect(await ssh(host, `cat ${dir}/a '${path}' | cksum`)).toBe(await cksum(`new${content}`));
    },
  );
});

describe("among the parents", () => {
  const changeable = "a parent directory can be changed by others than root";
  test.each([
    ["is a symbolic link", "ln -s /var/tmp l", "a symbolic link is among the parents; write the real path"],
    ["is a dangling one", "ln -s /nowhere l", "a symbolic link is among the parents; write the real path"],
    ["is a directory of somebody else", "mkdir -p l/d; chown games l", changeable],
    ["is a directory that anybody may write to", "mkdir -p l/d; chmod 777 l", changeable],
    ["is one that a group may write to", "mkdir -p l/d; chmod 770 l; chgrp mail l", changeable],
    ["is a file", "touch l", `${dir}/l is no directory`],
  ])("%s: refused", async (_, command, words) => {
    await ssh(host, `cd ${dir} && ${command}`);
    const before = await look();
    const { output, status } = await deploy(await taskfile({ a: { path: `${dir}/a` }, b: { path: `${dir}/l/d/b` } }));
    expect(output).toContain(`web1: deploy-secrets failed: b: ${words}\n`);
    expect(status).toBe(1);
    expect(await look()).toBe(before);
  });
});

test("a symbolic link at the place is replaced, and what it leads to is left alone", async () => {
  await ssh(host, `echo mine >/srv/mine; ln -s /srv/mine ${dir}/a; ln -s /nowhere ${dir}/b; ln -s /etc ${dir}/c`);
  const paths = Object.fromEntries(["a", "b", "c"].map((name) => [name, { path: `${dir}/${name}` }]));
  expect((await deploy(await taskfile(paths))).output).toContain("3 changed, 0 unchanged");
  expect(await ssh(host, `find ${dir} -type l; cat /srv/mine ${dir}/a ${dir}/c`)).toBe(
    "mine\ncontent of a\ncontent of c\n",
  );
});

describe("another account of the host is at work all the time:", () => {
  const flip = (path: string) =>
    `ln -sfn /srv/victim ${path}; cat ${path}/b; rm -f ${path}; mkdir ${path}; cat ${path}/b; cat .lollypops.*/b /run/lollypops/*/*/*/*; mv ${path} gone; rm -rf gone; ln /srv/victim/keep ${path}; cat ${path}; rm -f ${path}`;
  /** ops does this over and over, from here on; what it gets to read is in /srv/log/loot. */
  async function attack(text: string): Promise<void> {
    await ssh(
      host,
      "mkdir -m 711 /srv/victim; echo kept >/srv/victim/keep; chmod 644 /srv/victim/keep; mkdir -m 777 /srv/log",
    );
    const loop = `cd ${dir}/m; while [ ! -e /srv/stop ]; do ${text}; done`;
    await ssh(host, `nohup sh -c '${loop}' >/srv/log/loot 2>/dev/null & echo`, { user: "ops" });
  }
  /** Deploys: it is done or refused, and nothing else. */
  async function deployUnder(cwd: string, path: string): Promise<void> {
    const { output, status } = await deploy(cwd);
    const stopped =
      /failed: b: .*(symbolic link is among|can be changed by others|is changing its parent|cannot make|is a directory)|a rename failed/;
    if (status !== 0) expect(output).toMatch(stopped);
    else expect(await ssh(host, `stat -c '%U %a %F' ${path} && cat ${path}`)).toBe("root 400 regular file\npois0n");
    await ssh(host, `rm -rf ${dir}/m/d ${dir}/m/b`);
  }
  test.each([
    ["its own directory: always refused", "install -d -o ops m", flip("d"), `${dir}/m/d/b`, 1],
    ["one for all, where root makes a directory", "mkdir -m 1777 m", flip("d"), `${dir}/m/d/b`, 0],
    [
      "one for all, where root makes a file",
      "mkdir -m 1777 m",
      `${flip("b")}; ln -s /srv/victim .lollypops.0123456789`,
      `${dir}/m/b`,
      0,
    ],
  ])("%s", async (_, setup, text, path, afterwards) => {
    await ssh(host, `cd ${dir} && ${setup}`);
    const cwd = await taskfile({ b: { path, content: "pois0n" } });
    await attack(text);
    try {
      for (let round = 0; round < 10; round++) await deployUnder(cwd, path);
    } finally {
      await ssh(host, "touch /srv/stop");
    }
    expect(await ssh(host, "ls -A /srv/victim; cat /srv/victim/keep; grep -c pois0n /srv/log/loot || :")).toBe(
      "keep\nkept\n0\n",
    );
    await until("it has stopped", async () => (await remoteProcesses()) === "");
    await ssh(host, `cd ${dir}/m && rm -rf b d`);
    expect(await deploy(cwd)).toMatchObject({ status: afterwards });
  });

  test("a directory goes away while it is looked at: refused", async () => {
    const own = (command: string) => ssh(host, `cd ${dir}/m && ${command}`, { user: "ops" });
    await ssh(host, `mkdir -m 1777 ${dir}/m`);
    await own("mkdir d");
    await hold("stat", 1, `${dir}/m/d`); // somebody else of the host may call it, too
    const running = start(await taskfile({ b: { path: `${dir}/m/d/b` } }), ["web1:deploy-secrets"]);
    await held();
    await own("rmdir d");
    await letGo();
    await running.child;
    expect(running.said()).toContain("deploy-secrets failed: b: somebody is changing its parent directories\n");
  });
});
