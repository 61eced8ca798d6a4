/** vitest's globalSetup of the tests on hosts: a look at the tools that those need, and the hosts' end. */
import { join } from "node:path";
import { execa } from "execa";

/** Throws a sentence about the first tool that is missing; nothing is skipped. */
export async function setup(): Promise<void> {
  for (const tool of ["nix", "task", "ssh", "git", "busybox", "systemd-nspawn"]) {
    const { failed } = await execa("sh", ["-c", `command -v ${tool}`], { reject: false });
    if (failed) throw new Error(`${tool} is not on PATH: \`npm test\` sets up what the tests need (test/setup.sh)`);
  }
}

/** Takes the hosts down, unless LOLLYPOPS_KEEP_HOSTS=1 asks to keep them for a look or for the next run. */
export async function teardown(): Promise<void> {
  if (process.env["LOLLYPOPS_KEEP_HOSTS"] === "1") return;
  for (const set of process.env["TESTHOSTS_SETS"]?.split(",") ?? [])
    await execa(join(import.meta.dirname, "testhosts"), ["down"], { env: { TESTHOSTS_SET: set } });
}
