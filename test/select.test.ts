import { describe, expect, test } from "vitest";
import { didYouMean, nearest } from "../src/nearest.ts";
import { globToRegExp, needsGroups, selectHosts } from "../src/select.ts";
import { errorOf } from "./errors.ts";

const hosts = [
  { name: "web2", groups: ["web", "eu"] },
  { name: "web1", groups: ["web"] },
  { name: "db1", groups: ["data", "eu"] },
  { name: "db10", groups: ["data"] },
  { name: "mail.example", groups: [] },
];
const all = ["db1", "db10", "mail.example", "web1", "web2"];

describe("selectHosts", () => {
  test.each<[string[], string[]]>([
    [[], all],
    [["web1"], ["web1"]],
    [
      ["web2", "db1", "web2"],
      ["db1", "web2"],
    ],
    [["web*"], ["web1", "web2"]],
    [["db?"], ["db1"]],
    [["[dw]*1"], ["db1", "web1"]],
    [["[!w]*1"], ["db1"]],
    [["*"], all],
    [["mail.example"], ["mail.example"]],
    [["@web"], ["web1", "web2"]],
    [["@eu"], ["db1", "web2"]],
    [["@*"], ["db1", "db10", "web1", "web2"]],
    [["@web", "!web1"], ["web2"]],
    [["!web1", "@web"], ["web2"]],
    [["!web1"], ["db1", "db10", "mail.example", "web2"]],
    [["!@eu"], ["db10", "mail.example", "web1"]],
    [["!web*", "!@data"], ["mail.example"]],
    [["db*", "!@e?"], ["db10"]],
  ])("%j means %j", (selectors, expected) => expect(selectHosts(hosts, selectors)).toEqual(expected));

  test.each([
    [["wbe1"], "no host matches `wbe1`; did you mean `web1`?"],
    [["webX*"], "no host matches `webX*`; did you mean `web1` or `web2`?"],
    [["web"], "no host matches `web`; did you mean `@web`?"],
    [["@db1"], "no group matches `@db1`; did you mean `db1`?"],
    [["@date"], "no group matches `@date`; did you mean `@data`?"],
    [["web1", "!web9"], "no host matches `!web9`; did you mean `web1` or `web2`?"],
    [["mailXexample"], "no host matches `mailXexample`; did you mean `mail.example`?"],
    [["zzzzzz"], "no host matches `zzzzzz`; there are `db1`, `db10`, `mail.example`, `web1`, `web2` and 3 more"],
    [[""], "no host matches ``; there are `db1`, `db10`, `mail.example`, `web1`, `web2` and 3 more"],
    [["web1", "!@web"], "the selectors `web1` `!@web` leave no host"],
    [["[z-a]"], "`[z-a]` is not a pattern: a range in its brackets runs backwards"],
  ])("%j is refused: %s", (selectors, message) => {
    const error = errorOf(() => selectHosts(hosts, selectors));
    expect([error.exitCode, error.message]).toEqual([2, message]);
  });

  test("no hosts and no selectors", () => expect(selectHosts([], [])).toEqual([]));
});

test.each<[string[], boolean]>([
  [[], false],
  [["web@1", "!x*"], false],
  [["@web"], true],
  [["a", "!@web"], true],
])("needsGroups(%j) is %j", (selectors, expected) => expect(needsGroups(selectors)).toBe(expected));

test.each<[string, string, boolean]>([
  ["a.c", "abc", false],
  ["a*", "a\nb", true],
  ["[]x]", "]", true],
  ["[a-c]", "b", true],
  ["[^a]", "a", false],
  ["[!]]", "]", false],
  ["[a\\]", "\\", true],
  ["[ab", "[ab", true],
  ["a+(b)|$", "a+(b)|$", true],
  ["web1", "xweb1", false],
])("the pattern %j against %j: %j", (glob, text, expected) => expect(globToRegExp(glob).test(text)).toBe(expected));

test.each<[string, string[]]>([
  ["cmdss", ["cmds", "cmd"]],
  ["CMDS", ["cmds", "cmd"]],
  ["dpes", ["deps"]],
  ["pre", ["preconditions", "prefix"]],
  ["xyz", []],
])("nearest to %j: %j", (name, expected) => {
  expect(nearest(name, ["cmd", "cmds", "deps", "prefix", "preconditions"])).toEqual(expected);
});

test("didYouMean lists up to three", () => {
  expect(didYouMean("web", ["web4", "web2", "web1", "web3"])).toBe("; did you mean `web1`, `web2` or `web3`?");
  expect(didYouMean("web", [])).toBe("");
});
