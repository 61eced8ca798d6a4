// Whole deployments of real hosts, which stand for NixOS machines: with nothing to do, beside upstream's commands done by
// hand (in the shape of its Taskfile); the same through a slow link; and guarded beside unguarded.
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { hostOfSecrets } from "./hosts.ts";
import { type Command, measureRounds, ratio } from "./measure.ts";
import { line } from "./print.ts";
import { addressOf, names, onHosts, quote, run, sideBySide, ssh, typical, write, writeTaskfile } from "./realhosts.ts";
import { slowLink } from "./relay.ts";
import { upstreamShape } from "./upstream.ts";

/** One flake, and below `scratch` directories to run go-task in: with a connection that is `shared`, with one for each
 * command (`apart`), with three `secrets` as well, and by `upstream`'s commands. */
export type Fleet = {
  readonly scratch: string;
  /** How ssh reaches the hosts. */
  readonly opts: readonly string[];
  /** A git repository, and its copy in the store. */
  readonly flake: string;
  readonly source: string;
};

export function benchDeploy(scratch: string): Promise<void> {
  return onHosts({
    title: "deployments of real hosts",
    measure: async (sshConfig) => {
      const flake = prepareFlake(join(scratch, "flake"));
      const near = prepareFleet(join(scratch, "near"), flake, ["-F", sshConfig]);
      prepareHosts(near);
      nothingToDo("nothing to do, one host", near, ["web1"], 9, 0.6);
      nothingToDo("nothing to do, 8 hosts at once", near, names, 5, 0.5);
      guarded(near);
      await farAway(scratch, flake, sshConfig, 20);
    },
  });
}

async function farAway(scratch: string, flake: string, sshConfig: string, milliseconds: number): Promise<void> {
  const host = /^hostname (.*)$/m.exec(run(["ssh", "-F", sshConfig, "-G", addressOf("web1")]))?.[1] ?? "";
  const link = await slowLink({ host, port: 22, milliseconds });
  const alias = ["HostName=127.0.0.1", `Port=${link.port}`, `HostKeyAlias=${addressOf("web1")}`];
  const opts = ["-F", sshConfig, ...alias.flatMap((option) => ["-o", option])];
  nothingToDo(`the same, ${milliseconds} ms away`, prepareFleet(join(scratch, "far"), flake, opts), ["web1"], 5, 0.6);
  await link.close();
}

function nothingToDo(title: string, fleet: Fleet, chosen: readonly string[], rounds: number, target: number): void {
  const ways = {
    ours: deploy(fleet, "shared", chosen),
    apart: deploy(fleet, "apart", chosen),
    secrets: deploy(fleet, "secrets", chosen),
    upstream: deploy(fleet, "upstream", chosen),
    hand: byHand(fleet, chosen),
    login: sideBySide(
      fleet.scratch,
      chosen.map((name) => there(fleet, name, "true")),
    ),
  };
  const [one, two, three] = [ways.ours, ways.apart, ways.secrets].map((way) => {
    run(way.argv, way.cwd);
    return logins(fleet, "web1", way, (said) => checkUnchanged(said, chosen));
  }) as [number, number, number];
  const theirs = logins(fleet, "web1", ways.upstream);
  const times = measureRounds(ways, rounds);
  const most = ratio(times.ours, times.upstream);
  const than = `upstream's commands ${typical(times.upstream)} and ${theirs}: ${most.toFixed(2)} times as long`;
  line(title, `${typical(times.ours)}, logins ${one}, ${than}`, `at most ${target} times`, most <= target);
  line("  no shared connection", `${typical(times.apart)}, logins ${two}`, "logins 1 and 2", one <= 1 && two <= 2);
  line("  three secrets as well", `${typical(times.secrets)}, logins ${three}`);
  line("  for comparison", `ssh true ${typical(times.login)}; the same by hand, shared ${typical(times.hand)}`);
}

/** A changed system each time. */
function guarded(fleet: Fleet): void {
  const command = { ...deploy(fleet, "shared", ["web1"]), before: () => change(fleet) };
  command.before();
  const said = run(command.argv, command.cwd);
  if (!said.includes("rebuild: switched to")) throw new Error(`web1 was not deployed: ${said}`);
  const times = measureRounds({ guarded: command, plain: { ...command, env: { LOLLYPOPS_GUARD: "0" } } }, 7);
  const text = `${typical(times.guarded)}, with LOLLYPOPS_GUARD=0 ${typical(times.plain)}`;
  line("a changed system, guarded", `${text}: ${ratio(times.guarded, times.plain).toFixed(2)} times as long`);
}

/** The hosts of `fixtures/fleet`, more of them and without its unit, which would need a secret. */
export function prepareFlake(flake: string): string {
  run([resolve("test/fleet"), flake]);
  const machine = JSON.parse(readFileSync(join(flake, "settings.json"), "utf8"));
  const hosts = Object.fromEntries(names.map((name) => [name, { units: {} }]));
  const all = { units: { "hello.service": null }, kernelKiB: 4 };
  writeFileSync(join(flake, "settings.json"), JSON.stringify({ ...machine, all, hosts }));
  run([resolve("test/fleet"), flake]);
  return flake;
}

export function prepareFleet(scratch: string, flake: string, opts: readonly string[]): Fleet {
  const values = join(scratch, "values");
  for (const number of [1, 2, 3]) write(join(values, `secret-3-${number}`), `secret ${number}\n`);
  const hosts = (count: number, ssh = {}) => Object.fromEntries(names.map((name) => [name, host(name, count, ssh)]));
  const host = (name: string, count: number, ssh: object) => {
    const { deployment, ...rest } = hostOfSecrets(addressOf(name), opts, values, count);
    return { ...rest, deployment: { ...deployment, ssh: { ...deployment.ssh, ...ssh } } };
  };
  const source = JSON.parse(run(["nix", "flake", "prefetch", "--json", flake])).storePath;
  const at = (way: string) => join(scratch, way);
  writeTaskfile(at("shared"), hosts(0), flake);
  writeTaskfile(at("apart"), hosts(0, { multiplex: false }), flake);
  writeTaskfile(at("secrets"), hosts(3), flake);
  for (const [path, text] of Object.entries(upstreamShape(hosts(0), source))) write(join(at("upstream"), path), text);
  return { scratch, opts, flake, source };
}

/** NixOS machines, with what upstream calls there. */
function prepareHosts(fleet: Fleet): void {
  const install = "cat >/usr/local/bin/nixos-rebuild && chmod 755 /usr/local/bin/nixos-rebuild";
  const each = names.map((name) => {
    const mark = [resolve("test/nixos/mark-nixos"), addressOf(name), fleet.flake, name].map(quote).join(" ");
    return `${mark} && ${there(fleet, name, install)} <${quote(resolve("bench/nixos-rebuild.sh"))}`;
  });
  run(sideBySide(fleet.scratch, each).argv);
}

let version = 1;

function change({ flake }: Fleet): void {
  version++;
  writeFileSync(join(flake, "version"), `${version}\n`);
  run([resolve("test/fleet"), flake]);
}

/** go-task's call for one host, or for all. */
export function deploy({ scratch }: Fleet, way: string, chosen: readonly string[]): Command {
  const [one = ""] = chosen;
  return { argv: ["task", chosen.length === 1 ? one : "web"], cwd: join(scratch, way) };
}

/** The least that there is to do, through one connection: is the source there, and is what it builds what runs? */
function byHand({ scratch, opts, source }: Fleet, chosen: readonly string[]): Command {
  const commands = chosen.map((name) => {
    const address = addressOf(name);
    const socket = ["ControlMaster=auto", "ControlPersist=20", `ControlPath=${scratch}/${address}`];
    const shared = [...opts, ...socket.flatMap((option) => ["-o", option])];
    const system = `${source}#nixosConfigurations.${name}.config.system.build.toplevel`;
    const look = `[ "$(nix build --no-link --print-out-paths ${system})" = "$(readlink -f /run/current-system)" ]`;
    const copy = `NIX_SSHOPTS=${quote(shared.join(" "))} nix copy --to ssh://root@${address} ${source}`;
    return `${copy} && ${ssh(shared, address, look)} && ssh ${shared.map(quote).join(" ")} -O exit root@${address} 2>&1`;
  });
  return sideBySide(scratch, commands);
}

function there({ opts }: Fleet, name: string, command: string): string {
  return ssh(opts, addressOf(name), command);
}

/** How often sshd of a host lets somebody in meanwhile. */
function logins(fleet: Fleet, name: string, { argv, cwd }: Command, check: (said: string) => void = () => {}): number {
  const count = "journalctl --sync; journalctl -q | grep -c 'Accepted publickey'";
  const accepted = () => Number(run(["sh", "-c", there(fleet, name, count)]));
  const before = accepted();
  check(run(argv, cwd));
  return accepted() - before - 1; // this very question's own
}

/** A deployment that does something, or nothing at all, would be compared with the wrong thing. */
export function checkUnchanged(said: string, chosen: readonly string[]): void {
  if (said.match(/rebuild: unchanged/g)?.length !== chosen.length) throw new Error(`not ${chosen} unchanged: ${said}`);
}
