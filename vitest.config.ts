import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { defineConfig } from "vitest/config";

// What test/setup.sh has put there before, so that plain `npx vitest` finds it too.
const tools = ["bin", "nix"].map((name) => join(import.meta.dirname, ".cache", name)).filter((dir) => existsSync(dir));
process.env["PATH"] = [...tools, process.env["PATH"]].join(delimiter);

// A set of hosts for each worker. test/setup.sh picks a free first one; vitest by itself takes the last.
const first = process.env["TESTHOSTS_SET"] ?? "5";
process.env["TESTHOSTS_SETS"] = [first, (Number(first) + 5) % 10].join(",");

const hasHosts = process.env["LOLLYPOPS_NO_HOSTS"] !== "1";
if (!hasHosts && process.env["CI"])
  throw new Error("CI runs all tests: LOLLYPOPS_NO_HOSTS=1 means that none run on hosts");
if (!hasHosts) console.warn("Without test hosts (they need root on Linux): test/*.e2e.test.ts are left out.");

const fast = { name: "fast", include: ["test/**/*.test.ts"], exclude: ["test/**/*.e2e.test.ts"], testTimeout: 60_000 };

// One file at a time on each set of hosts; nothing here is about time, so the limits only end what hangs.
const onHosts = {
  name: "hosts",
  include: ["test/**/*.e2e.test.ts"],
  globalSetup: ["test/boot-hosts.ts"],
  setupFiles: ["test/worker-hosts.ts"],
  maxWorkers: 2,
  sequence: { groupOrder: 1 },
  testTimeout: 300_000,
  hookTimeout: 300_000,
};

export default defineConfig({
  test: { projects: [{ test: fast }, ...(hasHosts ? [{ test: onHosts }] : [])] },
});
