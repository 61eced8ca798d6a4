// Rules that no single option can tell: names that would mean two things, and steps that nobody defines.
import { brokenHost, builtinSteps, commonSteps, type Host, parseHost } from "./hosts.ts";
import { didYouMean } from "./nearest.ts";
import { isStraight } from "./options.ts";

/** What was read: the options of each host, and nix's message for each that could not be evaluated. */
export type Input = {
  readonly hosts: Readonly<Record<string, unknown>>;
  readonly failures: Readonly<Record<string, string>>;
};

/** Task names of the fleet; some are of later versions, so that no host takes them meanwhile. */
export const reserved = ["default", "all", "deploy-all", "deploy", "retry", "stop"];

/** All hosts of an input, sorted, and all that is wrong with it. */
export function checkHosts(input: Input): { hosts: Host[]; problems: string[] } {
  const parsed = Object.entries(input.hosts).map(([name, value]) => parseHost(name, value));
  const broken = Object.entries(input.failures).map(([name, error]) => brokenHost(name, error));
  const hosts = [...parsed.flatMap(({ host }) => host ?? []), ...broken].sort((a, b) => (a.name < b.name ? -1 : 1));
  const names = [...Object.keys(input.hosts), ...Object.keys(input.failures)].sort();
  return {
    hosts,
    problems: [...parsed.flatMap(({ problems }) => problems), ...names.flatMap(checkName), ...checkAll(hosts)],
  };
}

function checkName(name: string): string[] {
  if (reserved.includes(name)) return [`${name}: a host cannot have this name, it is a task of the whole fleet`];
  if (/^[A-Za-z0-9_][A-Za-z0-9_.@-]*$/.test(name)) return [];
  return [`${JSON.stringify(name)}: a host's name is made of A-Z a-z 0-9 _ . @ - and begins with a letter, digit or _`];
}

function checkAll(hosts: readonly Host[]): string[] {
  return [
    ...hosts.flatMap(checkAddress),
    ...hosts.flatMap(checkSteps),
    ...hosts.flatMap(checkPaths),
    ...checkGroups(hosts),
  ];
}

function checkGroups(hosts: readonly Host[]): string[] {
  const names = new Set(hosts.map(({ name }) => name));
  const members = (group: string) => hosts.filter(({ groups }) => groups.includes(group)).map(({ name }) => name);
  return [...new Set(hosts.flatMap(({ groups }) => groups))].sort().flatMap((group) => {
    const where = `lollypops.deployment.group of ${members(group).join(", ")}`;
    if (reserved.includes(group)) return [`group ${group} (${where}): this name is a task of the whole fleet`];
    return names.has(group)
      ? [`group ${group} (${where}) and host ${group} would be one task; rename one of them`]
      : [];
  });
}

function checkSteps(host: Host): string[] {
  const known = [...builtinSteps, ...Object.keys(host.extraTasks)];
  const names = `${host.name}: lollypops.tasks names`;
  return [...new Set(host.tasks)].flatMap((task) => {
    if (commonSteps.includes(task) && !known.includes(task))
      return [`${names} ${task}, which is no part of a deployment; run it by itself: task ${host.name}:${task}`];
    if (!known.includes(task)) return [`${names} ${task}, which is no step of a deployment${didYouMean(task, known)}`];
    return host.tasks.indexOf(task) === host.tasks.lastIndexOf(task) ? [] : [`${names} ${task} twice`];
  });
}

/** Without an option the name is the address, and `@` would make a user of it. */
function checkAddress(host: Host): string[] {
  if (host.error !== undefined || host.local || !host.address.includes("@")) return [];
  return [`${host.name}: this name is no address; set lollypops.deployment.ssh.host`];
}

function checkPaths(host: Host): string[] {
  const paths = host.secrets.map(({ path }) => path);
  return host.secrets.flatMap(({ name, path }, index) => {
    // A name is the end of the path where none is set.
    if (!isStraight(path)) return [`${host.name}: the secret ${name} has no place of its own: ${path}; set its path`];
    const first = paths.indexOf(path);
    return first === index
      ? []
      : [`${host.name}: the secrets ${host.secrets[first]?.name} and ${name} have one path, ${path}`];
  });
}
