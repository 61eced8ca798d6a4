// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell
/** The verbs as far as no host is needed: which one a call means, what they show, what they refuse, and `exec` behind a stand-in for ssh. */
import { chmodSync, mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { temporaryDirectory } from "./hosts.ts";
import { type CallOptions, call, type Shell, shellDirectory, shells, sparePath } from "./runtime.ts";

const controls = [...shells.map((shell) => ({ shell, spare: false })), { shell: "busybox" as Shell, spare: true }];

describe.each(controls)("$shell as sh, only busybox: $spare", ({ shell, spare }) => {
  let path: CallOptions;
  let cwd: string;
  let ssh: string;
  beforeAll(async () => {
    path = spare ? { only: await sparePath(shell, ["ssh", "nix"]) } : { path: await shellDirectory(shell) };
    cwd = temporaryDirectory();
    ssh = join(cwd, "ssh");
    // Joins its words as sshd does, and a login shell reads them.
    writeFileSync(ssh, '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift 2\nexec sh -c "$*"\n');
    writeFileSync(join(cwd, "become"), '#!/bin/sh\nshift\nexec "$@"\n');
    for (const file of [ssh, join(cwd, "become")]) chmodSync(file, 0o755);
  });
  const run = (words: readonly string[], variables: Record<string, string> = {}, options: CallOptions = {}) =>
    call(words, { ...path, cwd, env: { XDG_RUNTIME_DIR: mkdtempSync(join(cwd, "run-")) }, variables, ...options });
  const to = (host: string) => ["--host", host, "--to", `root@${host}`];

  test.each([
    ["web1:status", "web1", "status", "+ ssh"],
    ["fleet:web1:rollback", "web1", "rollback", "+ new="],
    ["web1:reboot", "web1", "reboot", "+ ssh"],
    ["web1:ssh", "web1", "ssh", "+ ssh"],
    ["web1", "web1", "rebuild", "+ src="],
    ["fleet:status", "status", "rebuild", "+ src="], // a host of that name, whole
    ["web1:rebuild", "web1", "rebuild", "+ src="],
  ])("the task %s of host %s is a %s", async (task, host, step, first) => {
    const { stdout, exitCode } = await run(["rebuild", ...to(host)], { TASK: task, LOLLYPOPS_DRY_RUN: "1" });
    expect(stdout.startsWith(first)).toBe(true);
    expect(stdout).toMatch(new RegExp(`^${step}: shown, not run\n$`, "m"));
    expect(exitCode).toBe(0);
  });

  test("a reboot shows its second part once its secrets are shown", async () => {
    const env = { XDG_RUNTIME_DIR: mkdtempSync(join(cwd, "run-")) };
    const variables = { TASK: "web1:reboot", LOLLYPOPS_DRY_RUN: "1" };
    const shown = [];
    for (const verb of ["rebuild", "rebuild", "rebuild"])
      shown.push((await run([verb, ...to("web1")], variables, { env })).stdout.match(/systemctl [a-z-]*/)?.[0]);
    expect(shown).toEqual(["systemctl reboot", "systemctl is-system-running", "systemctl reboot"]);
  });

  test.each([[["x"]], [["30 d"]], [["-1d"]], [["1.5d"]], [["30d", "5d"]], [["08"]], [["1w"]], [["d"]], [["999999"]]])(
    "%j is no age of garbage",
    async (words) => {
      const { stderr, exitCode } = await run(["gc", ...to("web1"), "--", ...words]);
      expect([stderr, exitCode]).toEqual([
        `lollypops: web1: gc takes one age in days, such as 30d, not ${words.join(" ")}\n`,
        2,
      ]);
    },
  );

  test("exec: the words as typed, all streams, the exit code", async () => {
    const exec = (words: readonly string[], input = "", flags: readonly string[] = []) =>
      run(["exec", ...to("web1"), "--ssh", ssh, ...flags, "--", ...words], {}, { input });
    const words = ["", "a b", "it's", '"', "$(x)", "*", "\\n", "-n", "é\n\n", "A=b", ";", "\t\u0001", "'\\''"];
    expect(await exec(["printf", "<%s>", ...words])).toEqual({
      stdout: words.map((word) => `<${word}>`).join(""),
      stderr: "",
      exitCode: 0,
    });
    expect(await exec(["A=b", "true"])).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("A=b") });
    const data = "\0\u0001\u001b[1m x\r\n\n";
    expect(await exec(["sh", "-c", "cat; exit 3"], data)).toEqual({
      stdout: data,
      stderr: "web1: exec failed: exit 3\n",
      exitCode: 1,
    });
    // A sudo that asks for no password.
    const asking = ["--sudo", join(cwd, "become"), "--password-command", "echo secret"];
    expect((await exec(["cat"], "in\n", asking)).stdout).toBe("in\n");
  });
});
