/** vitest's setupFile of the tests on hosts: takes a set of hosts for this worker alone, and boots it unless it is up. */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";

const sets = process.env["TESTHOSTS_SETS"]?.split(",") ?? [];
process.env["TESTHOSTS_SET"] = await ownSet();
await execa(join(import.meta.dirname, "testhosts"), ["up", "3"]);

/** The first set that no other worker has. Workers come and go with each file, so one that is about to end is waited for. */
async function ownSet(): Promise<string> {
  for (let tries = 0; tries < 600; tries++) {
    const free = sets.find((set) => claim(`/run/testhosts-${set}.worker`));
    if (free !== undefined) return free;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`the sets ${sets.join(" and ")} of test hosts are in use by other workers`);
}

/** Whether this process has the file, which holds its number and goes with it. */
function claim(file: string): boolean {
  try {
    writeFileSync(file, String(process.pid), { flag: "wx" });
  } catch {
    const owner = existsSync(file) ? readFileSync(file, "utf8") : "";
    if (owner === String(process.pid)) return true;
    if (owner !== "" && !existsSync(`/proc/${owner}`)) rmSync(file, { force: true });
    return false;
  }
  process.on("exit", () => rmSync(file, { force: true }));
  return true;
}
