import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Format, matrixOf, type Shard, shardsOf } from "../src/matrix.ts";
import { errorOf } from "./errors.ts";

/** `web1@web@eu db1`: hosts with their groups. */
const fleet = (text: string) =>
  text.split(" ").map((one) => {
    const [name = "", ...groups] = one.split("@");
    return { name, groups };
  });
const many = (count: number) => Array.from({ length: count }, (_, at) => ({ name: `host${at + 100}`, groups: [] }));
const shown = (shards: Shard[]) => shards.map(({ shard, name, hosts }) => `${shard} ${name}: ${hosts.join(" ")}`);

describe("shards", () => {
  test.each<[string, number, string[]]>([
    ["b a", 2, ["1 a: a", "2 b: b"]],
    ["b a c", 2, ["1 a: a", "2 b and 1 more: b c"]],
    ["web1@web db1@db web2@web db2@db", 2, ["1 db: db1 db2", "2 web: web1 web2"]],
    ["a@x b@y c@x d@y e@y", 2, ["1 x: a c", "2 y: b d e"]],
    // a group larger than a shard fills one; what is left of it goes where there is room
    ["a@x b@x c@x d@x e f", 2, ["1 a and 2 more: a b c", "2 d and 2 more: d e f"]],
    // three groups of three do not fit into two shards: the last is split
    [
      "a1@a a2@a a3@a b1@b b2@b b3@b c1@c c2@c c3@c",
      2,
      ["1 a1 and 3 more: a1 a2 a3 c3", "2 b1 and 4 more: b1 b2 b3 c1 c2"],
    ],
    // the first group by name decides; the shard is called after a group only if it has all of it
    ["web1@web@eu web2@web@us lb1@eu", 2, ["1 eu: lb1 web1", "2 web2: web2"]],
    ["web1@web@eu web2@web@eu db1@eu db2@eu@db", 2, ["1 db1 and 1 more: db1 web1", "2 db2 and 1 more: db2 web2"]],
  ])("%s in %i", (hosts, count, expected) => expect(shown(shardsOf(fleet(hosts), count))).toEqual(expected));
});

describe("the matrix", () => {
  const hosts = fleet("web1@web db1@db web2@web db2@db");

  test("of GitHub", () => {
    expect(matrixOf(hosts, "github", 2)).toBe(
      '{"include":[{"shard":1,"name":"db","hosts":"db1 db2"},{"shard":2,"name":"web","hosts":"web1 web2"}]}\n',
    );
    expect(JSON.parse(matrixOf(hosts, "github")).include).toHaveLength(4);
    expect(JSON.parse(matrixOf(many(256), "github")).include).toHaveLength(256);
  });

  test("of GitLab: strings only", () => {
    expect(matrixOf(hosts, "gitlab", 2)).toBe(
      '[{"SHARD":"1","NAME":"db","HOSTS":"db1 db2"},{"SHARD":"2","NAME":"web","HOSTS":"web1 web2"}]\n',
    );
  });

  test.each<[string, number, Format, number | undefined, string]>([
    ["more than hosts", 3, "github", 4, "--shards 4 is more than there are hosts (3)"],
    ["more than one host", 1, "github", 2, "--shards 2 is more than there are hosts (1)"],
    ["more than GitHub takes", 300, "github", 257, "--shards 257: a matrix of GitHub has room for 256 jobs"],
    ["more than GitLab takes", 300, "gitlab", 201, "--shards 201: a matrix of GitLab has room for 200 jobs"],
    [
      "a job a host",
      257,
      "github",
      undefined,
      "257 hosts are more jobs than the 256 that a matrix of GitHub has room for",
    ],
    [
      "a job a host",
      201,
      "gitlab",
      undefined,
      "201 hosts are more jobs than the 200 that a matrix of GitLab has room for",
    ],
    [
      "a long name",
      60,
      "gitlab",
      2,
      "shard 1 (host100 and 29 more): its hosts are too long for GitLab, which makes them part of the job's name",
    ],
  ])("refuses %s", (_, count, format, shards, message) => {
    const error = errorOf(() => matrixOf(many(count), format, shards));
    expect([error.exitCode, error.message]).toEqual([2, message]);
  });
});

describe("however the hosts are grouped", () => {
  const groups = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d", "e"), { maxLength: 2 });
  const some = fc
    .uniqueArray(fc.tuple(fc.stringMatching(/^h[a-z0-9.-]{1,5}$/), groups), {
      minLength: 1,
      maxLength: 40,
      selector: ([name]) => name,
    })
    .map((list) => list.map(([name, own]) => ({ name, groups: own })));
  const input = some.chain((hosts) =>
    fc.record({
      hosts: fc.constant(hosts),
      turned: fc.shuffledSubarray(hosts, { minLength: hosts.length }),
      count: fc.integer({ min: 1, max: hosts.length }),
    }),
  );
  const groupOf = ({ name, groups }: { name: string; groups: string[] }) => groups.toSorted()[0] ?? name;
  const always = (
    check: (input: { hosts: { name: string; groups: string[] }[]; count: number; shards: Shard[] }) => void,
  ) =>
    fc.assert(
      fc.property(input, ({ hosts, count }) => check({ hosts, count, shards: shardsOf(hosts, count) })),
      {
        numRuns: 400,
      },
    );

  test("each is in one shard, and the sizes are even", () =>
    always(({ hosts, count, shards }) => {
      expect(shards.flatMap((one) => one.hosts).sort()).toEqual(hosts.map(({ name }) => name).sort());
      const sizes = shards.map((one) => one.hosts.length);
      expect(shards.map(({ shard }) => shard)).toEqual(Array.from({ length: count }, (_, at) => at + 1));
      expect(Math.max(...sizes)).toBe(Math.ceil(hosts.length / count));
      expect(Math.min(...sizes)).toBe(Math.floor(hosts.length / count));
    }));

  test("a group is split only where no shard had room for it when its turn came", () =>
    always(({ hosts, shards }) => {
      const size = new Map<string, number>();
      for (const host of hosts) size.set(groupOf(host), (size.get(groupOf(host)) ?? 0) + 1);
      const sizeOf = (group: string) => size.get(group) ?? 0;
      const before = (a: string, b: string) => sizeOf(a) > sizeOf(b) || (sizeOf(a) === sizeOf(b) && a < b);
      const inside = shards.map((one) => hosts.filter(({ name }) => one.hosts.includes(name)).map(groupOf));
      for (const group of size.keys()) {
        if (inside.filter((own) => own.includes(group)).length < 2) continue;
        const rooms = inside.map((own) => own.length - own.filter((other) => before(other, group)).length);
        expect(Math.max(...rooms)).toBeLessThan(sizeOf(group));
      }
    }));

  test("names are different, and the same whatever the order", () => {
    fc.assert(
      fc.property(input, ({ hosts, turned, count }) => {
        const shards = shardsOf(hosts, count);
        expect(new Set(shards.map(({ name }) => name)).size).toBe(count);
        const other = turned.map(({ name, groups: own }) => ({ name, groups: own.toReversed() }));
        expect(shardsOf(other, count)).toEqual(shards);
      }),
    );
  });
});
