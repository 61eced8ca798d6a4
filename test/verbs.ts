/** Helpers of the tests of verbs: calls of the runtime for web1, which is pop1, with a flake and a Taskfile that names some hosts. */
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach } from "vitest";
import { type Fleet, fleet, markNixos, ssh, sshConfig, temporaryDirectory } from "./hosts.ts";
import { type CallOptions, call } from "./runtime.ts";

export const host = "pop1";
export const profile = "/nix/var/nix/profiles/system";
export const unit = "nixos-rebuild-switch-to-configuration";

/** The flake, made once a file; the directory that a test calls from, and what makes its calls one run. */
export const here = {} as { made: Fleet; cwd: string; env: Record<string, string> };

/** Before the tests of a file: pop1 is a fresh NixOS, web1 of a new flake. */
export function prepare(): void {
  beforeAll(async () => {
    here.made = await fleet();
    await markNixos(host, here.made.dir, "web1");
    const keys = ["web1", "web2", "web1-b", "web1-2"].map((name) => `  '${name}:rebuild':\n`);
    await here.made.change({}, { "Taskfile.yml": `tasks:\n${keys.join("")}` });
  });
  beforeEach(() => {
    here.cwd = temporaryDirectory();
    here.env = { XDG_RUNTIME_DIR: mkdtempSync(join(here.cwd, "run-")) };
  });
}

/** How a verb is called: `to` is where it goes, root on pop1 unless it says otherwise. */
export type VerbOptions = CallOptions & { to?: string };

/** A call of a verb for web1, under a task of its step's name. */
export function verb([name = "", ...words]: readonly string[], task: string, more: VerbOptions = {}) {
  const { to = `root@${host}`, variables, ...options } = more;
  const TASKFILE = join(here.made.dir, "Taskfile.yml");
  const given = { TASK: `web1:${task}`, LP_REMOTE_SSH_OPTS: `-F ${sshConfig}`, TASKFILE };
  const env = { ...here.env, ...options.env };
  return call([name, "--host", "web1", "--to", to, ...words], {
    cwd: here.cwd,
    ...options,
    env,
    variables: { ...given, ...variables },
  });
}

/** The steps that are the very call of rebuild. */
export const step = (name: string, more: VerbOptions = {}, words: readonly string[] = []) =>
  verb(["rebuild", "--flake", here.made.dir, ...words], name, more);

/** Makes `top` the next generation of the profile. */
export const commit = (top: string) =>
  ssh(host, `nix-env -p ${profile} --set ${top} && ${top}/bin/switch-to-configuration boot`);
