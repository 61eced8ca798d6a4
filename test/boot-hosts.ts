/** vitest's globalSetup of the tests on hosts: boots the hosts once for all files, after a look at the tools that those need. */
import { join } from "node:path";
import { execa } from "execa";

const testhosts = join(import.meta.dirname, "testhosts");

/** Throws a sentence about the first tool that is missing; nothing is skipped. */
export async function setup(): Promise<void> {
  for (const tool of ["nix", "task", "ssh", "git", "busybox", "systemd-nspawn"]) {
    const { failed } = await execa("sh", ["-c", `command -v ${tool}`], { reject: false });
    if (failed) throw new Error(`${tool} is not on PATH: \`npm test\` sets up what the tests need (test/setup.sh)`);
  }
  await execa(testhosts, ["up", "3"]);
}

/** Takes the hosts down, unless LOLLYPOPS_KEEP_HOSTS=1 asks to keep them for a look or for the next run. */
export async function teardown(): Promise<void> {
  if (process.env["LOLLYPOPS_KEEP_HOSTS"] !== "1") await execa(testhosts, ["down"]);
}
