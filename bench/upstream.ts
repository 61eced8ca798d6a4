// The shape of upstream's Taskfile: a file per host, included under the host's name, with that host's variables at its
// top. Each task has as many commands, of about the length and with the variables, as upstream's.
import type { BenchHost } from "./hosts.ts";

const ssh = "{{.REMOTE_COMMAND}} {{.REMOTE_SSH_OPTS}} {{.REMOTE_USER}}@{{.REMOTE_HOST}}";
const top = { version: "3", output: "prefixed" };

/** The texts of the files by their paths; `Taskfile.yml` is the first to read. `flake` is a folder. */
export function upstreamShape(hosts: Readonly<Record<string, BenchHost>>, flake: string): Record<string, string> {
  const names = Object.keys(hosts).sort();
  const files = names.map((name) => [`hosts/${name}.yml`, hostFile(name, hosts[name] as BenchHost, flake)] as const);
  return Object.fromEntries(
    [["Taskfile.yml", rootFile(names, hosts)] as const, ...files].map(([path, value]) => [path, JSON.stringify(value)]),
  );
}

function rootFile(names: readonly string[], hosts: Readonly<Record<string, BenchHost>>) {
  const groupOf = (name: string) => hosts[name]?.deployment.group ?? "";
  const groups = [...new Set(names.map(groupOf))].sort();
  const calls = (members: readonly string[]) => members.map((task) => ({ task }));
  return {
    ...top,
    silent: true,
    includes: Object.fromEntries(names.map((name) => [name, { taskfile: `./hosts/${name}.yml` }])),
    tasks: {
      ...Object.fromEntries(
        names.map((name) => [
          name,
          { desc: `Provision host: ${name}`, cmds: calls((hosts[name]?.tasks ?? []).map((task) => `${name}:${task}`)) },
        ]),
      ),
      ...Object.fromEntries(
        groups.map((group) => {
          const deps = calls(names.filter((name) => groupOf(name) === group));
          return [group, { desc: `Provision group: ${group}`, deps }];
        }),
      ),
      all: { deps: calls(names) },
    },
  };
}

function hostFile(name: string, host: BenchHost, flake: string) {
  const step = (desc: string, cmds: readonly string[]) => ({ desc: `${desc}: ${name}`, deps: ["check-vars"], cmds });
  return {
    ...top,
    set: ["e", "pipefail"],
    vars: variables(name, host, flake),
    tasks: {
      "check-vars": { preconditions: [{ sh: 'test -n "{{.HOSTNAME}}"', msg: "no HOSTNAME: {{.HOSTNAME}}" }] },
      "deploy-flake": step("Deploy flake repository to", flakeCommands),
      "deploy-secrets": step("Deploy secrets to", secretCommands(host)),
      rebuild: { dir: flake, ...step("Rebuild configuration of", [rebuildCommand]) },
      ...host.extraTasks,
    },
  };
}

/** Eight that are the host's own, and the two that are the same for all. */
function variables(name: string, { deployment }: BenchHost, flake: string) {
  const settings = {
    REMOTE_USER: deployment.ssh.user,
    REMOTE_HOST: deployment.ssh.host,
    REMOTE_COMMAND: deployment.ssh.command,
    REMOTE_SSH_OPTS: deployment.ssh.opts.join(" "),
    REMOTE_SUDO_COMMAND: deployment.sudo.command,
    REMOTE_SUDO_OPTS: deployment.sudo.opts.join(" "),
  };
  return {
    ...Object.fromEntries(
      Object.entries(settings).map(([key, value]) => [key, `{{default ${JSON.stringify(value)} .LP_${key}}}`]),
    ),
    REBUILD_ACTION: '{{default "switch" .REBUILD_ACTION}}',
    REMOTE_CONFIG_DIR: deployment["config-dir"],
    LOCAL_FLAKE_SOURCE: flake,
    HOSTNAME: name,
  };
}

const flakeCommands = [
  'echo "Flake goes to {{.HOSTNAME}}"',
  `NIX_SSHOPTS="{{.REMOTE_SSH_OPTS}}" nix copy --substitute-on-destination --option builders-use-substitutes true \\
  --to ssh://{{.REMOTE_USER}}@{{.REMOTE_HOST}} {{.LOCAL_FLAKE_SOURCE}}\n`,
  `${ssh} \\\n  "mkdir -p {{.REMOTE_CONFIG_DIR}}"\n`,
  `${ssh} \\\n  "ln -sfn {{.LOCAL_FLAKE_SOURCE}} {{.REMOTE_CONFIG_DIR}}/flake"\n`,
];

const rebuildCommand = `${ssh} \\
  'nixos-rebuild {{.REBUILD_ACTION}} --flake "$(readlink -f {{.REMOTE_CONFIG_DIR}}/flake)#{{.HOSTNAME}}"'\n`;

function secretCommands({ secrets }: BenchHost): string[] {
  const each = Object.values(secrets.files).flatMap(({ name, path, cmd, owner, "group-name": group }) => [
    `echo '${name} goes to ${path}'`,
    `${ssh} \\\n  'umask 076; mkdir -p "$(dirname ${path})"'\n`,
    `value="$(${cmd})"\ntest $? -eq 0 || { echo "no value" >&2; exit 1; }\necho "$value" | ${ssh} \\
  "install -m 700 /dev/stdin ${path}"\n`,
    `${ssh} \\\n  "chown ${owner}:${group} ${path}"\n`,
  ]);
  return ['echo "Secrets go to {{.HOSTNAME}}"', ...each];
}
