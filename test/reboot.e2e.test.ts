/** Reboots, old generations and garbage: the runtime called as the Taskfile calls it. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testhosts, until } from "./faults.ts";
import { buildSystem, cut, markNixos, mend, ssh, trySsh } from "./hosts.ts";
import { runtime } from "./runtime.ts";
import { commit, here, host, prepare, profile, step, unit, type VerbOptions, verb } from "./verbs.ts";

prepare();
const generations = async () =>
  (await ssh(host, `cd ${profile.slice(0, -7)}; ls -d system-*-link | sed 's/[^0-9]//g' | sort -n`)).trim().split("\n");

describe("gc", () => {
  const gc = (words: string[] = [], more: VerbOptions = {}) => verb(["gc", "--", ...words], "gc", more);
  let tops: string[];

  beforeAll(async () => {
    await markNixos(host, here.made.dir, "web1");
    for (const version of ["2", "3", "4"]) {
      await here.made.change({}, { version: `${version}\n` });
      await commit(await buildSystem(host, here.made.dir, "web1"));
    }
    tops = (await ssh(host, `for i in 1 2 3 4; do readlink -f ${profile}-$i-link; done`)).trim().split("\n");
    await ssh(
      host,
      `touch -h -d '40 days ago' ${profile}-*-link; ln -sfn ${tops[0]} /run/booted-system; ln -sfn ${tops[2]} /run/current-system
      mkdir -p /run/standin; ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system`,
    );
  });
  afterAll(() => ssh(host, "rm -f /run/booted-system /nix/var/nix/gcroots/booted-system"));
  const exists = async (top = "") => (await trySsh(host, `test -e ${top}`)).exitCode === 0;

  test("not while something is activated", async () => {
    await ssh(host, `systemctl stop ${unit} 2>/dev/null; systemd-run --quiet --collect --unit=${unit} sleep 60`);
    const { stderr, exitCode } = await gc();
    await ssh(host, `systemctl stop ${unit}`);
    expect(stderr).toContain(`an activation runs there (unit ${unit})`);
    expect(exitCode).toBe(1);
  });

  test("nothing is old enough; then a boot loader that fails keeps all systems; then what is not used goes", async () => {
    expect(await gc(["60"])).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/gc: no generation removed, .* freed\n$/),
    });
    expect(await generations()).toEqual(["1", "2", "3", "4"]);

    await ssh(host, "touch /run/standin/bootloader-fails");
    const failed = await gc();
    await ssh(host, "rm /run/standin/bootloader-fails; : >/var/log/install-bootloader.log");
    expect(failed.stderr).toContain("gc failed: generations 2 removed, but the boot loader could not be written");
    expect(failed.exitCode).toBe(1);
    expect(await exists(tops[1])).toBe(true);

    const done = await gc();
    expect(done).toMatchObject({ stderr: "", exitCode: 0 });
    expect(done.stdout).toMatch(/^gc: no generation removed, \d+ store paths deleted, .* freed\n$/);
    expect(await generations()).toEqual(["1", "3", "4"]);
    expect(await Promise.all(tops.map(exists))).toEqual([true, false, true, true]);
    expect(await ssh(host, "cut -d' ' -f2- /var/log/install-bootloader.log")).toBe(
      `NIXOS_INSTALL_BOOTLOADER=0 ${tops[3]}\n`,
    );
  });
});

describe("reboot", () => {
  const state = `/run/testhosts${process.env["TESTHOSTS_SET"] === "0" ? "" : `-${process.env["TESTHOSTS_SET"]}`}`;
  const asked = `${state}/${host}/root/asked-to-reboot`;
  let top: string;

  /** pop1 boots as NixOS does, and to reboot is only to ask for it: the container would be gone. */
  beforeAll(async () => {
    await markNixos(host, here.made.dir, "web1");
    await ssh(
      host,
      `cd /etc/systemd/system
      printf '[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n[Service]\nType=oneshot\nExecStart=/bin/sh /boot-nixos\n[Install]\nWantedBy=sysinit.target\n' >boot-nixos.service
      printf '[Unit]\nDefaultDependencies=no\nWants=ask.service\n' >reboot.target
      printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=touch /asked-to-reboot\n' >ask.service
      for unit in ill worse; do printf '[Service]\nExecStart=false\n[Install]\nWantedBy=multi-user.target\n' >$unit.service; done
      printf 'for i in current booted; do ln -sfn $(cat /boots || readlink -f ${profile}) /run/$i-system; done\n' >/boot-nixos
      systemctl daemon-reload; systemctl enable boot-nixos ill; systemctl start ill || :; sh /boot-nixos`,
    );
    top = await buildSystem(host, here.made.dir, "web1");
    await commit(top);
  });
  afterAll(async () => {
    await ssh(
      host,
      "systemctl disable boot-nixos ill worse; cd /etc/systemd/system; rm boot-nixos.service reboot.target ask.service ill.service worse.service; rm -f /boots /boot-nixos /asked-to-reboot /srv/kept; systemctl daemon-reload; systemctl reset-failed",
    );
  });

  /** The first call, with a restart when the host asks for it. */
  async function reboot(text?: string) {
    rmSync(asked, { force: true });
    const call = step("reboot", text === undefined ? {} : { text });
    if (text !== undefined) return call;
    await until("the host is asked to reboot", () => existsSync(asked));
    await testhosts("restart", "1");
    return call;
  }
  const secrets = () =>
    verb(
      [
        "deploy-secrets",
        "--",
        "name=token",
        "path=/run/token",
        `cmd=echo asked >>'${here.cwd}/log'; echo new`,
        "name=kept",
        "path=/srv/kept",
        "cmd=echo kept",
      ],
      "reboot",
    );
  const again = () => step("reboot");

  test("into the boot default; secrets that are gone come back; what failed before does not count", async () => {
    await ssh(host, "echo old >/run/token; mkdir -p /srv; echo kept | install -m 400 /dev/stdin /srv/kept");
    expect(await secrets()).toMatchObject({ stdout: "deploy-secrets: all in place\n", exitCode: 0 });
    expect(existsSync(join(here.cwd, "log"))).toBe(false);
    const first = await reboot();
    expect(first).toMatchObject({
      stderr: "",
      exitCode: 0,
      stdout: expect.stringMatching(/^reboot: waiting for it\nreboot: back after \d+ s\n$/),
    });
    expect((await secrets()).stdout).toContain("deploy-secrets: 1 changed, 1 unchanged\n");
    expect(await ssh(host, "cat /run/token")).toBe("new\n");
    expect(await again()).toEqual({ stdout: `reboot: rebooted into ${top.slice(11)}\n`, stderr: "", exitCode: 0 });
  });

  test("a unit that failed only now is named", async () => {
    await ssh(host, "systemctl enable worse");
    expect(await reboot()).toMatchObject({ exitCode: 0 });
    expect(await again()).toEqual({
      stdout: "",
      stderr: "web1: reboot failed: rebooted, and units failed that had not before: worse.service\n",
      exitCode: 1,
    });
  });

  test("another system came up", async () => {
    const fresh = (await ssh(host, `readlink -f ${profile}-1-link`)).trim();
    await ssh(host, `echo ${fresh} >/boots`);
    const { stderr, exitCode } = await reboot();
    expect(stderr).toBe(
      `web1: reboot failed: rebooted, but it runs ${fresh.slice(11)} and not ${top.slice(11)}, the boot default; look at its boot loader\n`,
    );
    expect(exitCode).toBe(1);
  });

  const impatient = runtime.text.replace("patience=600", "patience=4");
  test("it does not go down, or not come back, in time; or was not there", async () => {
    const up = await reboot(impatient);
    expect(up).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("has not within 4 s") });
    const call = reboot(impatient);
    await until("the host is asked to reboot", () => existsSync(asked));
    await cut(1);
    const gone = await call;
    const dead = await step("reboot");
    await mend(1);
    expect(gone).toMatchObject({
      exitCode: 5,
      stderr: expect.stringContaining("unknown: it did not come back within 4 s"),
    });
    expect(dead).toMatchObject({ exitCode: 4, stdout: expect.not.stringContaining("waiting") });
  });

  test("not while something is activated", async () => {
    await ssh(host, `systemctl stop ${unit} 2>/dev/null; systemd-run --quiet --collect --unit=${unit} sleep 60`);
    const { stderr, exitCode } = await step("reboot");
    await ssh(host, `systemctl stop ${unit}`);
    expect(stderr).toContain(`an activation runs there (unit ${unit})`);
    expect(exitCode).toBe(1);
  });
});
