import { expect, test } from "vitest";
import { checkHosts } from "../src/rules.ts";

const problems = (hosts: Record<string, unknown>, failures: Record<string, string> = {}) =>
  checkHosts({ hosts, failures }).problems;

test("hosts are sorted, those that do not evaluate among them", () => {
  const { hosts } = checkHosts({ hosts: { web2: {}, web10: {}, Web1: {} }, failures: { mail: "error: no" } });
  expect(hosts.map(({ name, error }) => [name, error])).toEqual([
    ["Web1", undefined],
    ["mail", "error: no"],
    ["web10", undefined],
    ["web2", undefined],
  ]);
});

test.each<[string, Record<string, unknown>, Record<string, string>, string]>([
  ["reserved", { retry: {} }, {}, "retry: a host cannot have this name, it is a task of the whole fleet"],
  ["reserved, and broken", {}, { all: "error" }, "all: a host cannot have this name, it is a task of the whole fleet"],
  [
    "a group of a broken host's name",
    { web1: { deployment: { group: "mail" } } },
    { mail: "error" },
    "group mail (lollypops.deployment.group of web1) and host mail would be one task; rename one of them",
  ],
  [
    "a broken host's name",
    {},
    { "a b": "error" },
    '"a b": a host\'s name is made of A-Z a-z 0-9 _ . @ - and begins with a letter, digit or _',
  ],
  ["@ without an address", {}, { "a@b": "error" }, ""],
  ["@ with an address", { "a@b": { deployment: { ssh: { host: "b" } } } }, {}, ""],
  ["a step of the user's", { web1: { tasks: ["check"], extraTasks: { check: "true" } } }, {}, ""],
  [
    "a step that deploys nothing",
    { web1: { tasks: ["check-secrets"] } },
    {},
    "web1: lollypops.tasks names check-secrets, which is no part of a deployment; run it by itself: task web1:check-secrets",
  ],
  [
    "check-secrets of the user's",
    { web1: { tasks: ["check-secrets"], extraTasks: { "check-secrets": "true" } } },
    {},
    "",
  ],
  ["@ without an address, on this machine", { "a@b": { deployment: { local: true } } }, {}, ""],
  [
    "a password with local evaluation",
    {
      web1: { deployment: { "local-evaluation": true, sudo: { enable: true, "password-command": "pass ops" } } },
    },
    {},
    "",
  ],
  ["the group default", { web1: { deployment: { group: "default" } } }, {}, ""],
  [
    "the groups' default",
    { web1: { deployment: { groups: ["default"] } } },
    {},
    "group default (lollypops.deployment.group of web1): this name is a task of the whole fleet",
  ],
  [
    "two secrets that a name leads to one place",
    { web1: { secrets: { files: { a: { name: "b" }, b: {} } } } },
    {},
    "web1: the secrets b and b have one path, /var/src/lollypops-secrets/b",
  ],
  [
    "a user's secret in the place of the system's",
    {
      web1: {
        secrets: { files: { key: { path: "/home/alice/lollypops-secrets/key" } } },
        "home-manager": { users: { alice: { secrets: { files: { key: {} } } } } },
      },
    },
    {},
    "web1: the secrets key and key have one path, /home/alice/lollypops-secrets/key",
  ],
])("%s", (_, hosts, failures, expected) => {
  expect(problems(hosts, failures)).toEqual(expected === "" ? [] : [expected]);
});
