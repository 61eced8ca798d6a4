// The fleet that is measured: saved input, in the shape that upstream and this program share.

type Secret = {
  readonly name: string;
  readonly "vault-name": string;
  readonly cmd: string;
  readonly path: string;
  readonly mode: string;
  readonly owner: string;
  readonly "group-name": string;
};

/** Commands are strings only, since upstream takes no others. */
type ExtraTask = { readonly desc: string; readonly deps: readonly string[]; readonly cmds: readonly string[] };

export type BenchHost = {
  readonly deployment: {
    readonly "config-dir": string;
    readonly group: string;
    readonly ssh: {
      readonly host: string;
      readonly user: string;
      readonly command: string;
      readonly opts: readonly string[];
      readonly multiplex?: boolean;
    };
    readonly sudo: { readonly enable: boolean; readonly command: string; readonly opts: readonly string[] };
  };
  readonly secrets: { readonly files: Readonly<Record<string, Secret>> };
  readonly tasks: readonly string[];
  readonly extraTasks: Readonly<Record<string, ExtraTask>>;
};

const groups = ["build", "cache", "db", "edge", "mail", "web"] as const;
const usual = ["deploy-flake", "deploy-secrets", "rebuild"];
const secrets = [
  "age-key",
  "api-token",
  "backup",
  "db-password",
  "ldap",
  "restic",
  "smtp",
  "tls-key",
  "vpn",
  "webhook",
];

/** Hosts `build1`, `cache1`, … `web1`, `build2`, …: six groups, ten secrets each, one in ten with a task of its own. */
export function benchHosts(count: number): Record<string, BenchHost> {
  return Object.fromEntries(Array.from({ length: count }, (_, index) => host(index)));
}

/** A host that gets `count` secrets, each the text of a file in `directory` on this machine. */
export function hostOfSecrets(address: string, opts: readonly string[], directory: string, count: number): BenchHost {
  const deployment = deploymentOf("web", address, opts);
  const names = Array.from({ length: count }, (_, index) => `secret-${count}-${index + 1}`);
  const files = names.map((name) => [name, { ...fileOf(address, name), cmd: `cat "${directory}/${name}"` }]);
  return { deployment, secrets: { files: Object.fromEntries(files) }, tasks: usual, extraTasks: {} };
}

/** Hosts `h00000`, … whose only step connects to nothing, or that have the usual steps and no secrets. */
export function plainHosts(count: number, tasks: readonly string[] = usual): Record<string, BenchHost> {
  const plain = (name: string) => {
    const deployment = deploymentOf("web", `${name}.example.org`, []);
    return { deployment, secrets: { files: {} }, tasks, extraTasks: {} };
  };
  return Object.fromEntries(numbered(count).map((name) => [name, plain(name)]));
}

/** Hosts `h00000`, … in six groups, with three secrets each. A command takes the place of ssh: `standin`, with the seconds that
 * one of the host's three connections takes as its first word. */
export function simulatedHosts(count: number, standin: string): Record<string, BenchHost> {
  const simulated = (name: string, index: number) => {
    const deployment = deploymentOf(groups[index % groups.length] ?? "web", `${name}.example.org`, []);
    const files = secrets.slice(0, 3).map((secret) => [secret, { ...fileOf(name, secret), cmd: `echo ${secret}` }]);
    const ssh = { ...deployment.ssh, command: `${standin} ${(secondsOf(index) / 3).toFixed(3)}` };
    return {
      deployment: { ...deployment, ssh },
      secrets: { files: Object.fromEntries(files) },
      tasks: usual,
      extraTasks: {},
    };
  };
  return Object.fromEntries(numbered(count).map((name, index) => [name, simulated(name, index)]));
}

/** How long a simulated host keeps its deployment waiting: 1 to 3 seconds, the same in each run. */
export const secondsOf = (index: number) => 1 + 2 * ((index * 0.6180339887) % 1);

const numbered = (count: number) => Array.from({ length: count }, (_, index) => `h${String(index).padStart(5, "0")}`);

function host(index: number): [string, BenchHost] {
  const group = groups[index % groups.length] ?? "web";
  const name = `${group}${Math.floor(index / groups.length) + 1}`;
  const deployment = deploymentOf(group, `${name}.example.org`, ["-p", "2222"]);
  const files = Object.fromEntries(secrets.map((secret) => [secret, fileOf(name, secret)]));
  const backup = {
    desc: `Back up ${name}`,
    deps: ["check-vars"],
    cmds: ["ssh {{.REMOTE_USER}}@{{.REMOTE_HOST}} systemctl start backup"],
  };
  return [name, { deployment, secrets: { files }, tasks: usual, extraTasks: index % 10 === 0 ? { backup } : {} }];
}

function deploymentOf(group: string, host: string, opts: readonly string[]): BenchHost["deployment"] {
  return {
    "config-dir": "/var/src/lollypops",
    group,
    ssh: { host, user: "root", command: "ssh", opts },
    sudo: { enable: false, command: "sudo", opts: [] },
  };
}

function fileOf(host: string, name: string): Secret {
  return {
    name,
    "vault-name": `${host}/${name}`,
    cmd: `pass show ${host}/${name}`,
    path: `/var/src/lollypops-secrets/${name}`,
    mode: "0400",
    owner: "root",
    "group-name": "root",
  };
}
