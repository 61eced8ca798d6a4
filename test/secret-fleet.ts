/** Helpers of the tests of secrets: a fleet whose web1, on the first host, has the secrets and units that a test wants. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { cli, fleet, type HostSettings, markNixos, ssh, task, temporaryDirectory } from "./hosts.ts";

/** Options of secrets by name; `content` is what the command prints. */
export type Files = Record<string, { content?: string | Buffer; [option: string]: unknown }>;

/** The rest of a host: its own options of lollypops (`prune` is one of the secrets), and its system. */
export type Rest = HostSettings & { prune?: boolean };

/** The host that is web1, and where its secrets go. */
export const host = "pop1";
export const dir = "/srv/secrets";

/** Deployment as `ops`, with sudo. */
export const asOps = { deployment: { ssh: { user: "ops" }, sudo: { enable: true } } };

const none = { greeting: null, "api token": null, "tls/key.pem": null };

export type SecretFleet = Awaited<ReturnType<typeof secretFleet>>;

export async function secretFleet() {
  const place = await fleet();
  const contents = temporaryDirectory();
  let count = 0;

  /** As the configuration has them. */
  function secrets(files: Files): Record<string, object> {
    return Object.fromEntries(
      Object.entries(files).map(([name, { content = `content of ${name}\n`, ...options }]) => {
        const file = join(contents, String(count++));
        writeFileSync(file, content);
        return [name, { cmd: `cat ${file}`, ...options }];
      }),
    );
  }
  async function configure(files: Files, { lollypops, prune = false, version = "1", ...system }: Rest = {}) {
    const all = { "default-dir": dir, files: { ...none, ...secrets(files) }, prune };
    const units = { "hello.service": null, ...system.units };
    await place.change(
      { hosts: { web1: { ...system, units, lollypops: { ...lollypops, secrets: all } } } },
      { version: `${version}\n` },
    );
    const { stderr, exitCode } = await cli(["-o", "Taskfile.yml"], { cwd: place.dir });
    expect([exitCode, stderr]).toEqual([0, ""]);
  }
  async function deploy(...args: string[]): Promise<{ output: string; exitCode: number }> {
    const { stdout, stderr, exitCode } = await task(args, { cwd: place.dir });
    return { output: stdout + stderr, exitCode };
  }
  /** Deploys, and returns what it said once it has gone well. */
  async function deployed(...args: string[]): Promise<string> {
    const { output, exitCode } = await deploy(...args);
    expect([exitCode, exitCode === 0 ? "" : output]).toEqual([0, ""]);
    return output;
  }
  /** A host without secrets, right after its installation. */
  async function renew(): Promise<void> {
    await ssh(host, `rm -rf ${dir} /home/ops/s; mkdir -p /srv`);
    await markNixos(host, place.dir, "web1");
  }
  return { contents, secrets, configure, deploy, deployed, renew };
}

/** What no deployment leaves behind, be it done or failed. */
export async function expectNoLeftovers(): Promise<void> {
  expect(await ssh(host, "find / -xdev -name '.lollypops.*'; ls -d /run/lollypops 2>/dev/null || :")).toBe("");
}
