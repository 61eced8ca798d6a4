// Hosts shared out among the jobs of a CI runner.
import { usageError } from "./errors.ts";
import type { Selectable } from "./select.ts";

/** One job: its number from 1, a name for people, and its hosts, sorted. */
export type Shard = { readonly shard: number; readonly name: string; readonly hosts: readonly string[] };

/** Where the matrix goes, and how many jobs that takes. */
export const formats = {
  github: { most: 256, whose: "GitHub" },
  gitlab: { most: 200, whose: "GitLab" },
} as const;
export type Format = keyof typeof formats;

// GitLab names a job `JOB: [1, web, web1 web2]`, of 255 characters at most, and fails without a word beyond; JOB gets 40 of them.
const gitlabRoom = 255 - 40 - ": []".length;

/**
 * The matrix of these hosts as one line of JSON: for GitHub the value of `strategy.matrix`, for GitLab of `parallel.matrix`.
 * Without a number of shards, each host is one. Throws usageError if there are more of them than hosts, or than the runner takes.
 */
export function matrixOf(hosts: readonly Selectable[], format: Format, count?: number): string {
  const { most, whose } = formats[format];
  if (count === undefined && hosts.length > most) {
    const hint = `--shards ${most}, or less, puts several hosts into each`;
    throw usageError(`${hosts.length} hosts are more jobs than the ${most} that a matrix of ${whose} has room for`, {
      hint,
    });
  }
  if (count !== undefined && count > most)
    throw usageError(`--shards ${count}: a matrix of ${whose} has room for ${most} jobs`);
  if (count !== undefined && count > hosts.length)
    throw usageError(`--shards ${count} is more than there are hosts (${hosts.length})`);
  const shards = shardsOf(hosts, count ?? hosts.length);
  return `${JSON.stringify(format === "github" ? forGithub(shards) : shards.map(forGitlab))}\n`;
}

const forGithub = (shards: readonly Shard[]) => ({
  include: shards.map(({ hosts, ...shard }) => ({ ...shard, hosts: hosts.join(" ") })),
});

function forGitlab({ shard, name, hosts }: Shard): Record<string, string> {
  const entry = { SHARD: String(shard), NAME: name, HOSTS: hosts.join(" ") };
  const { length } = Object.values(entry).join(", ");
  if (length <= gitlabRoom) return entry;
  const hint = "let --shards be a larger number, so that each has fewer hosts";
  throw usageError(
    `shard ${shard} (${name}): its hosts are too long for GitLab, which makes them part of the job's name`,
    {
      hint,
    },
  );
}

/**
 * Shares hosts out among `count` shards (1 to the number of hosts) whose sizes differ by one at most, the same way in whatever
 * order they come. A host belongs to its first group by name, or to itself. The largest group goes first (of equal ones
 * the first by name), into the fullest shard that has room for all of it. It is split only if no shard has: then the
 * emptiest is filled with its first hosts, and the others go on likewise. Shards are in the order of their first hosts.
 */
export function shardsOf(hosts: readonly Selectable[], count: number): Shard[] {
  const room = Array.from({ length: count }, (_, at) => Math.ceil((hosts.length - at) / count));
  const shards = room.map((): string[] => []);
  for (const group of groupsOf(hosts).values()) {
    let rest = group;
    while (rest.length > 0) {
      const at = placeFor(rest.length, room);
      const here = rest.slice(0, room[at]);
      shards[at]?.push(...here);
      room[at] = (room[at] ?? 0) - here.length;
      rest = rest.slice(here.length);
    }
  }
  const sorted = shards.map((names) => names.sort()).sort(([a = ""], [b = ""]) => (a < b ? -1 : 1));
  return sorted.map((names, at) => ({ shard: at + 1, name: nameOf(names, hosts), hosts: names }));
}

/** The index of the tightest room for all of `size`, else of the largest room; the first of equal ones. */
function placeFor(size: number, room: readonly number[]): number {
  const fitting = room.filter((free) => free >= size);
  return room.indexOf(fitting.length > 0 ? Math.min(...fitting) : Math.max(...room));
}

/** Hosts by group, both in the order of placing. A host without a group is one: a host and a group cannot share a name. */
function groupsOf(hosts: readonly Selectable[]): Map<string, string[]> {
  const all = new Map<string, string[]>();
  for (const { name, groups } of hosts) {
    const [group = name] = groups.toSorted();
    const names = all.get(group);
    if (names === undefined) all.set(group, [name]);
    else names.push(name);
  }
  for (const names of all.values()) names.sort();
  const bySize = ([a, { length: ofA }]: [string, string[]], [b, { length: ofB }]: [string, string[]]) =>
    ofB - ofA || (a < b ? -1 : 1);
  return new Map([...all].sort(bySize));
}

/** The host; the group, if these are all of its hosts; else the first host and how many more. No two shards have the same. */
function nameOf(names: readonly string[], hosts: readonly Selectable[]): string {
  const [first = "", ...others] = names;
  if (others.length === 0) return first;
  const members = (group: string) => hosts.filter(({ groups }) => groups.includes(group)).length;
  const [own, ...further] = hosts.filter(({ name }) => names.includes(name)).map(({ groups }) => groups);
  const common = (own ?? []).filter((group) => further.every((groups) => groups.includes(group))).toSorted();
  return common.find((group) => members(group) === names.length) ?? `${first} and ${others.length} more`;
}
