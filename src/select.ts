import { usageError } from "./errors.ts";
import { didYouMean } from "./nearest.ts";
import { reserved } from "./rules.ts";

/** What a selector looks at. */
export type Selectable = { readonly name: string; readonly groups: readonly string[] };

/** The names of the hosts that the selectors mean, sorted. No selector, or only negated ones, start from all hosts. */
export function selectHosts(hosts: readonly Selectable[], selectors: readonly string[]): string[] {
  const matches = selectors.map((selector) => ({ negated: selector.startsWith("!"), names: match(hosts, selector) }));
  const positive = matches.filter(({ negated }) => !negated);
  const all = positive.length === 0 ? hosts.map(({ name }) => name) : positive.flatMap(({ names }) => names);
  const without = new Set(matches.filter(({ negated }) => negated).flatMap(({ names }) => names));
  const selected = [...new Set(all)].filter((name) => !without.has(name)).sort();
  if (selected.length === 0 && selectors.length > 0) {
    throw usageError(`the selectors ${selectors.map(shown).join(" ")} leave no host`);
  }
  return selected;
}

/** Whether the hosts' groups must be known to select: names alone are much cheaper to read. */
export function needsGroups(selectors: readonly string[]): boolean {
  return selectors.some((selector) => /^!?@/.test(selector));
}

/** `*`, `?` and `[…]` (`[!…]` negated) as in the shell, the rest literal; matches whole names. */
export function globToRegExp(glob: string): RegExp {
  const source = glob.replace(/\[([!^]?)(\]?[^\]]*)\]|[\s\S]/g, (token: string, not?: string, set?: string) => {
    if (token === "*") return "[^]*";
    if (token === "?") return "[^]";
    if (set) return `[${not ? "^" : ""}${set.replace(/[\\\][^]/g, "\\$&")}]`;
    return token.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
  });
  try {
    return new RegExp(`^(?:${source})$`);
  } catch (cause) {
    throw usageError(`${shown(glob)} is not a pattern: a range in its brackets runs backwards`, { cause });
  }
}

function match(hosts: readonly Selectable[], selector: string): string[] {
  const positive = selector.replace(/^!/, "");
  const isGroup = positive.startsWith("@");
  const pattern = globToRegExp(isGroup ? positive.slice(1) : positive);
  const found = hosts.filter(({ name, groups }) => (isGroup ? groups : [name]).some((text) => pattern.test(text)));
  if (found.length === 0) throw nothing(hosts, selector, positive);
  return found.map(({ name }) => name);
}

/** A group is offered for a mistyped host and the other way round: `web` for `@web` is a likely slip. */
function nothing(hosts: readonly Selectable[], selector: string, positive: string) {
  const groups = [...new Set(hosts.flatMap((host) => host.groups))].sort().map((group) => `@${group}`);
  const all = [...hosts.map(({ name }) => name).sort(), ...groups];
  const isGroup = positive.startsWith("@");
  const slip = isGroup ? positive.slice(1) : `@${positive}`;
  const near = all.includes(slip)
    ? `; did you mean ${shown(slip)}?`
    : didYouMean(positive.replace(/[*?[\]]/g, ""), all);
  const some = `; there ${all.length === 1 ? "is" : "are"} ${all.slice(0, 5).map(shown).join(", ")}`;
  const rest = all.length > 5 ? ` and ${all.length - 5} more` : "";
  const message = `no ${isGroup ? "group" : "host"} matches ${shown(selector)}${near || (all[0] ? some + rest : "")}`;
  if (!reserved.includes(selector)) return usageError(message);
  return usageError(message, { hint: `${selector} is a task: lollypops-gen run -- ${selector}` });
}

const shown = (selector: string) => `\`${selector}\``;
