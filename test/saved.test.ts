import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { AppError } from "../src/errors.ts";
import { readSaved } from "../src/saved.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "lollypops-saved-"));
  const files = {
    "web.json": { web1: { a: 1 }, web2: {} },
    "db.json": { schema: 1, hosts: { db1: { b: 2 } } },
    "hosts.json": { hosts: {}, schema: {} },
    "again.json": { schema: 1, hosts: { web1: {}, db1: {} } },
    "x[1].json": { x: {} },
  };
  for (const [name, value] of Object.entries(files)) writeFileSync(join(directory, name), JSON.stringify(value));
  symlinkSync("nowhere.json", join(directory, "lost.json"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const at = (name: string) => (name === "-" ? name : join(directory, name));
const read = (names: string[], input = "") => readSaved(names.map(at), Readable.from([input]));
const message = async (names: string[], input?: string) => {
  const error = await read(names, input).then(
    () => "nothing was refused",
    (refusal) => refusal,
  );
  return error instanceof AppError ? [error.exitCode, error.message.replaceAll(`${directory}/`, "")] : error;
};

test.each<[string[], object, string?]>([
  [["web.json"], { web1: { a: 1 }, web2: {} }],
  [["web.json", "db.json"], { web1: { a: 1 }, web2: {}, db1: { b: 2 } }],
  [["[wd]*.json"], { db1: { b: 2 }, web1: { a: 1 }, web2: {} }],
  [["web.json", "we*.json", "web.json"], { web1: { a: 1 }, web2: {} }],
  [["x[1].json"], { x: {} }],
  [["-"], { mail: {} }, '{"mail": {}}'],
  [["-", "db.json"], { db1: { b: 2 }, mail: {} }, '{"mail": {}}\n'],
])("%j", async (names, expected, input) => expect(await read(names, input)).toEqual(expected));

test("a host may be called hosts, and another one schema", async () => {
  expect(await read(["-"], '{"hosts": {}}')).toEqual({ hosts: {} });
  expect(await read(["hosts.json"])).toEqual({ hosts: {}, schema: {} });
});

test.each<[string[], number, string, string?]>([
  [["nothing.json"], 2, "--from nothing.json: there is no such file"],
  [["lost.json"], 2, "--from lost.json: there is no such file"],
  [["."], 2, "is a directory"],
  [["*.yaml"], 2, "--from *.yaml: no file matches"],
  [["web.json", "again.json", "db.json"], 4, "web1: stands in both web.json and again.json"],
  [["web.json", "again.json", "db.json"], 4, "db1: stands in both again.json and db.json"],
  [["-"], 4, "standard input: is cut off in the middle", '{"web1": {"deployment": "'],
  [["-"], 4, "standard input: is not JSON", "{'web1': {}}"],
  [["-", "web.json"], 4, "web1: stands in both standard input and web.json", '{"web1": {}}'],
])("%j: %i %s", async (names, code, expected, input) => {
  expect(await message(names, input)).toEqual([code, expect.stringContaining(expected)]);
});
