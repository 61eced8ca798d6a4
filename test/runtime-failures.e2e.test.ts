/** What goes wrong between here and a real host: nothing is left half done, and the step says what happened. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { deploy, dir, emptyDir, host, taskfile, withConfig } from "./faults.ts";
import { mustRun, sshConfig, task, temporaryDirectory } from "./hosts.ts";

describe("the connection", () => {
  beforeEach(emptyDir);
  const files = { a: { path: `${dir}/a` } };

  test("the host's key is another: refused, with the words of ssh", async () => {
    const dirOfKey = temporaryDirectory();
    await mustRun("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dirOfKey, "key")]);
    const [kind, key] = readFileSync(join(dirOfKey, "key.pub"), "utf8").split(" ");
    const address = (await mustRun("ssh", ["-G", "-F", sshConfig, host])).stdout.match(/^hostname (.*)$/m)?.[1];
    writeFileSync(join(dirOfKey, "known_hosts"), `${host},${address} ${kind} ${key}\n`);
    const other = withConfig(`-o UserKnownHostsFile=${dirOfKey}/known_hosts`);
    const { output, status } = await deploy(await taskfile(files), other);
    expect(output).toContain("REMOTE HOST IDENTIFICATION HAS CHANGED");
    expect(output).toMatch(/web1: deploy-secrets unreachable: Host key verification failed/);
    expect(status).toBe(4);
  });

  test("no answer: 4, and unreachable in the report", async () => {
    const cwd = await taskfile(files);
    expect(await deploy(cwd, withConfig("-p 1"))).toMatchObject({ status: 4 });
    const { stdout, exitCode } = await task(["all:deploy-secrets"], { cwd, env: withConfig("-p 1") });
    expect(stdout).toContain("0 of 1 hosts with deploy-secrets done; NOT done: 1 unreachable\n");
    expect(stdout).toMatch(/ {2}web1: unreachable at deploy-secrets: ssh: connect to host .*: Connection refused/);
    expect(exitCode).toBe(201);
  });
});
