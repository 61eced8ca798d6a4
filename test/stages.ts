/** Helpers of the tests of interruption: fleets of three hosts, and the stages at which a deployment of them can wait until `letGo`. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { expect } from "vitest";
import { remoteProcesses, script, taskfileOf, until } from "./faults.ts";
import {
  activationHeld,
  letGo as dropHold,
  expectNothingLeft as expectNothingOfGuard,
  holdActivation,
  holdNix,
  nixHeld,
  state,
} from "./guard.ts";
import { cli, type Fleet, fleet, fleetHosts, markFleet, ssh, temporaryDirectory } from "./hosts.ts";

/** What the hosts are called, and which host of this machine each is. */
const targets = Object.fromEntries(Object.entries(fleetHosts).map(([host, name]) => [name, host]));
export const names = Object.keys(targets);

/** Commands that run here wait as long as this is there; each notes that it has begun. */
const hold = join(temporaryDirectory(), "hold");
const slow = script(
  `echo begun >"${hold}.$1"; while [ -e ${hold} ]; do sleep 0.1; done; echo content of "$1"; echo >"${hold}.$1.done"`,
);
const secret = "/srv/secrets/token";

type Place = {
  dir: string;
  /** What the next deployment will change. */
  renew: () => Promise<void>;
  /** What of a host would differ if anything had been deployed to it. */
  look: (name: string) => Promise<string>;
};

/** Hosts without a flake, whose tasks come from `taskfileOf`. */
async function here(host: object): Promise<Place> {
  const of = (name: string) => ({ deployment: { ssh: { host: targets[name], user: "root" } }, files: {}, ...host });
  const dir = await taskfileOf(
    Object.fromEntries(
      names.map((name) => {
        const files = { token: { path: secret, cmd: `${slow} ${name}` } };
        return [name, { ...of(name), files }];
      }),
    ),
  );
  const done = (name: string) => `${hold}.${name}.done`;
  const look = async (name: string) =>
    `${existsSync(done(name))} ${await ssh(targets[name] ?? "", `cat ${secret} 2>/dev/null || :`)}`;
  const renew = async () => {
    for (const name of names) rmSync(done(name), { force: true });
    for (const host of Object.values(targets)) await ssh(host, `rm -rf ${secret}; mkdir -p /srv/secrets`);
  };
  return { dir, renew, look };
}

/** Hosts with a flake and a system, right after their installation. */
async function systems(): Promise<Place> {
  const secrets = { files: { greeting: null, "api token": null, "tls/key.pem": null, "db password": null } };
  const all = { units: { "hello.service": null }, lollypops: { tasks: ["deploy-flake", "rebuild"], secrets } };
  const made: Fleet = await fleet({ all });
  await tidy(); // a run that was killed may have left something that waits
  await markFleet(made);
  const { stdout, stderr, exitCode } = await cli([], { cwd: made.dir });
  expect([exitCode, stderr]).toEqual([0, ""]);
  let version = 1;
  const renew = () => made.change({ all }, { "Taskfile.yml": stdout, version: `${++version}\n` });
  const look = async (name: string) => (await state(targets[name], name)).replace(/, [\d ]*$/, "");
  return { dir: made.dir, renew, look };
}

/** Each made when it is first asked for. */
const makers = {
  systems,
  secrets: () => here({ tasks: ["deploy-secrets"] }),
  own: () => here({ tasks: ["smoke"], extraTasks: { smoke: { cmds: [`${slow} {{.HOSTNAME}}`] } } }),
};
const places: Partial<Record<keyof typeof makers, Promise<Place>>> = {};
export function place(kind: keyof typeof makers): Promise<Place> {
  places[kind] ??= makers[kind]();
  return places[kind];
}

const begun = (name: string) => until("the command runs", () => existsSync(`${hold}.${name}`));
export const waitHere = async () => writeFileSync(hold, "");
const onAll = (work: (host: string) => Promise<void>) => async () => {
  await Promise.all(Object.values(targets).map(work));
};

/** A `nix` of this machine that waits where it fetches the flake's source; the directory goes before PATH. */
export function slowPrefetch(): string {
  const dir = temporaryDirectory();
  const real = process.env["PATH"]?.split(delimiter).find((place) => existsSync(join(place, "nix")));
  const text = `#!/bin/sh\ncase " $* " in *" prefetch "*) ${slow} prefetch >/dev/null ;; esac\nexec ${real}/nix "$@"\n`;
  writeFileSync(join(dir, "nix"), text, { mode: 0o755 });
  return dir;
}
export const prefetching = () => begun("prefetch");

/** Where a deployment can wait: in which fleet, at which step, what makes it wait, and how one sees that it does. */
export const stages = {
  "its copy": {
    kind: "systems",
    step: "deploy-flake",
    hold: onAll((host) => holdNix("nix-store", "--serve", host)),
    reached: (name: string) => nixHeld(targets[name]),
  },
  "its build": {
    kind: "systems",
    step: "rebuild",
    hold: onAll((host) => holdNix("nix", "build", host)),
    reached: (name: string) => nixHeld(targets[name]),
  },
  "its activation": {
    kind: "systems",
    step: "rebuild",
    hold: onAll(holdActivation),
    reached: (name: string) => activationHeld(targets[name]),
  },
  "a secret's command": { kind: "secrets", step: "deploy-secrets", hold: waitHere, reached: begun },
  "a task of the user's own": { kind: "own", step: "smoke", hold: waitHere, reached: begun },
} as const;
export type Stage = keyof typeof stages;

/** Hosts on which nothing waits or is on trial, whatever the last test has left. */
export const tidy = onAll(async (host) => {
  const stop = "systemctl stop nixos-rebuild-switch-to-configuration 'lollypops-*' 2>/dev/null";
  const room = "nix-env -p /nix/var/nix/profiles/system --delete-generations +2 2>/dev/null"; // in /boot
  await ssh(host, `${dropHold}; ${stop}; systemctl reset-failed; rm -rf /run/lollypops; ${room} || :`);
});

/** Nothing waits any more. */
export async function letGo(): Promise<void> {
  rmSync(hold, { force: true });
  for (const name of [...names, "prefetch"]) rmSync(`${hold}.${name}`, { force: true });
  await onAll(async (host) => {
    await ssh(host, dropHold);
  })();
}

/** The marks in a run's directory: the step that each host that has begun is at, and whether it `running`, `ok` … */
export function marks(runtimeDir: string): { run: string; name: string; outcome: string; step: string }[] {
  const all = readdirSync(runtimeDir, { recursive: true, encoding: "utf8" });
  return all.flatMap((file) => {
    const [, name = ""] = file.match(/\/host\.([^/]+)$/) ?? [];
    if (name === "") return [];
    const [, , outcome = "", step = ""] = readFileSync(join(runtimeDir, file), "utf8").split(" ");
    return [{ run: dirname(join(runtimeDir, file)), name, outcome, step }];
  });
}

/** The name of the host that has got to this stage, and waits there. */
export async function waitingAt(stage: Stage, runtimeDir: string): Promise<string> {
  const { kind, step, reached } = stages[stage];
  const atStep = () => marks(runtimeDir).filter((one) => one.outcome === "running" && one.step === step);
  const isThere = (name: string) => kind === "systems" || existsSync(`${hold}.${name}`);
  const there = () => atStep().find(({ name }) => isThere(name))?.name;
  await until(`a host is at ${step}`, () => there() !== undefined);
  const name = there() as string;
  await reached(name);
  return name;
}

/** The host has heard that it is to go back. */
export const refused = (name: string) =>
  until("it has heard", async () => {
    return (await ssh(targets[name] ?? "", "ls -d /run/lollypops/*/refused 2>/dev/null || :")) !== "";
  });

/** No program of ours on any host, and no trace of an activation. */
export async function expectNothingThere(): Promise<void> {
  await onAll(async (host) => {
    await until(`no process is left on ${host}`, async () => (await remoteProcesses(host)) === "");
    await expectNothingOfGuard(host);
  })();
}
