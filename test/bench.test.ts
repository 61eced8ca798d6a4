// What `npm run bench` compares is worth comparing: both files are whole, and name the same tasks.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { type BenchHost, benchHosts } from "../bench/hosts.ts";
import { upstreamShape } from "../bench/upstream.ts";
import { mustRun, root, run, temporaryDirectory } from "./hosts.ts";
