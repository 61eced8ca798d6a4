/** vitest's setupFile of the tests on hosts: boots the set of this worker, unless it is up. */
import { join } from "node:path";
import { mustRun, root, set } from "./hosts.ts";

await mustRun(join(root, "test/testhosts"), ["up", "3"], { env: { TESTHOSTS_SET: set } });
