// A user's extra task as it stands in the Taskfile: their own words, with what upstream's tasks could rely on.
import type { TaskBody } from "./extra-tasks.ts";
import type { Host } from "./hosts.ts";
import { flakeSource, template, word, wordWithEnvironment } from "./quote.ts";
import { type Context, readyCall } from "./steps.ts";

/** The flags that tell the runtime which task of a user's own is meant. */
export const ownFlags = (host: Host, name: string) => `--host ${word(host.name)} --step ${word(name)}`;

/**
 * Adds to a task the variables that it mentions, a call that checks these and gets what it needs from the store, and one that
 * hears how its commands ended.
 */
export function ownTask(host: Host, name: string, body: TaskBody, context: Context): Readonly<Record<string, unknown>> {
  const { cmds, vars, dir, ...rest } = body;
  const text = JSON.stringify(body);
  const ready = readyCall(
    host,
    name,
    { text, usesConnection: /\.REMOTE_/.test(text), aliases: rest.aliases ?? [] },
    context,
  );
  const ended = `${context.launcher} ended ${ownFlags(host, name)} -- {{.EXIT_CODE}}`;
  const source = ready.includes(flakeSource) ? flakeSource : "";
  const variables = { ...mentioned(text + source, remoteVariables(host, context)), ...vars };
  return {
    ...rest,
    prefix: rest.prefix ?? host.name,
    // Where task was called, as for every step; upstream's default is "."
    dir: dir === undefined || dir === "." ? "{{.USER_WORKING_DIR}}" : dir,
    ...(Object.keys(variables).length > 0 ? { vars: variables } : {}),
    cmds: [{ defer: ended, silent: true }, { cmd: ready, silent: true }, ...(cmds ?? [])],
  };
}

/** Upstream's variables: the host's options, or for one run what LP_… says instead. */
function remoteVariables(host: Host, context: Context): Record<string, unknown> {
  const options = (list: readonly string[]) => list.map(wordWithEnvironment).join(" ");
  return {
    LOCAL_FLAKE_SOURCE: { sh: context.source },
    // ssh would look into its own configuration; a template cannot
    REMOTE_USER: overridable("REMOTE_USER", host.user === null ? '{{env "USER"}}' : live(host.user)),
    REMOTE_HOST: overridable("REMOTE_HOST", live(host.address)),
    REMOTE_COMMAND: overridable("REMOTE_COMMAND", live(host.ssh.command)),
    REMOTE_SSH_OPTS: [
      overridable("REMOTE_SSH_OPTS", live(options(host.ssh.opts))),
      ...(host.local ? [] : [live(options(sshWords(host)))]),
    ]
      .filter(Boolean)
      .join(" "),
    REMOTE_SUDO_COMMAND: overridable("REMOTE_SUDO_COMMAND", live(host.sudo?.command ?? "sudo")),
    REMOTE_SUDO_OPTS: overridable("REMOTE_SUDO_OPTS", live(options(host.sudo?.opts ?? []))),
    REMOTE_CONFIG_DIR: live(host.configDir),
    HOSTNAME: host.name,
    REBUILD_ACTION: '{{.REBUILD_ACTION | default "switch"}}',
  };
}

/** The connection's options as the runtime gives them to ssh; after `opts`, since ssh takes the first of each. */
function sshWords({ ssh: { port, identityFile, jumpHost, hostKey } }: Host): string[] {
  return [
    ...(port === null ? [] : ["-p", String(port)]),
    ...(identityFile === null ? [] : ["-i", identityFile, "-o", "IdentitiesOnly=yes"]),
    ...(jumpHost === null ? [] : ["-o", `ProxyJump=${jumpHost}`]),
    ...(hostKey === null ? [] : knownAs(hostKey)),
  ];
}

/** A public key is the only one that counts, whatever the files of known hosts say. */
function knownAs(key: string): string[] {
  const pinned = [`KnownHostsCommand=/usr/bin/env echo * ${key}`, "UserKnownHostsFile=/dev/null"];
  const policy = key === "accept-new" ? key : "yes";
  const options = key.includes(" ") ? [...pinned, "GlobalKnownHostsFile=/dev/null"] : [];
  return [...options, `StrictHostKeyChecking=${policy}`].flatMap((option) => ["-o", option]);
}

const overridable = (name: string, value: string) => `{{if .LP_${name}}}{{.LP_${name}}}{{else}}${value}{{end}}`;
const live = (text: string) => text.split(flakeSource).map(template).join(flakeSource);

/** Those that a text mentions, and the flake's source if one of these does. */
function mentioned(text: string, variables: Record<string, unknown>): Record<string, unknown> {
  const used = Object.entries(variables).filter(([name]) => new RegExp(`\\.${name}\\b`).test(text));
  const nested = JSON.stringify(used).includes(flakeSource);
  const source = nested ? { LOCAL_FLAKE_SOURCE: variables["LOCAL_FLAKE_SOURCE"] } : {};
  return { ...source, ...Object.fromEntries(used) };
}
