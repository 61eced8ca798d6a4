#!/usr/bin/env bash
# The main job for real: three hosts are booted here, deployed from a flake, looked at, and taken down again. Where no hosts
# can run, the same up to the point where they would be needed. `npm run demo` calls it through setup.sh.
# LOLLYPOPS_KEEP_HOSTS=1 leaves the hosts up and says how to reach them.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
fleet=$(mktemp -d "${TMPDIR:-/tmp}/lollypops-demo.XXXXXX")
log=$fleet.log
began=$SECONDS
hosts=(pop1:web1 pop2:web2 pop3:db1) # as in fixtures/fleet/hosts.nix

bold='' dim='' plain=''
if [[ -t 1 && -z ${NO_COLOR-} && ${TERM-} != dumb ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi

main() {
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  if [[ -n ${LOLLYPOPS_NO_HOSTS-} ]]; then without_hosts; else with_hosts; fi
}

with_hosts() {
  quiet 'Boot three hosts (containers with their own systemd, sshd and nix)' "$root/test/testhosts" up 3
  ssh_config=$("$root/test/testhosts" env | sed -n 's/^SSH_CONFIG=//p')
  export LP_REMOTE_SSH_OPTS="-F $ssh_config"
  quiet 'Make a git repository with the flake of fixtures/fleet' "$root/test/fleet" "$fleet"
  quiet 'Install what stands for NixOS on each host' each_host install
  cd "$fleet"
  loud 'lollypops-gen > Taskfile.yml   (nix evaluates the flake)' generate
  loud 'task --list' task --list
  loud 'task deploy-all' task deploy-all
  loud 'The hosts now' each_host look
  loud 'task deploy-all, once more: nothing to change' task deploy-all
}

without_hosts() {
  say "${bold}No hosts can run here (they need root on Linux): this shows what would be run on them.$plain"
  "$root/test/fleet" "$fleet"
  cd "$fleet"
  if command -v nix >/dev/null; then
    loud 'lollypops-gen > Taskfile.yml   (nix evaluates the flake)' generate
  else
    loud 'lollypops-gen --from hosts.json > Taskfile.yml   (saved output of nix eval: no nix here)' generate --from hosts.json
  fi
  loud 'task --list' task --list
  export LOLLYPOPS_DRY_RUN=1
  loud 'LOLLYPOPS_DRY_RUN=1 task deploy-all' task deploy-all
}

generate() { # ARGS…
  node "$root/dist/cli.js" "$@" >Taskfile.yml || return
  echo "$(wc -l <Taskfile.yml) lines; the hosts' part begins like this:"
  grep -n -m1 -A12 '^tasks:' Taskfile.yml
}

each_host() { # FUNCTION: for each host, with its address and its name in the flake
  local pair pids=() failed=0 pid
  if [[ $1 == look ]]; then
    for pair in "${hosts[@]}"; do look "${pair%:*}" "${pair#*:}"; done
    return
  fi
  for pair in "${hosts[@]}"; do "$1" "${pair%:*}" "${pair#*:}" & pids+=($!); done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  return $failed
}

install() { "$root/test/nixos/mark-nixos" "$1" "$fleet" "$2"; }

look() { # HOST NAME
  echo "$bold$2$plain ($1)"
  ssh -F "$ssh_config" "root@$1" '
    echo "  runs        $(readlink -f /run/current-system)"
    echo "  boots       $(sed -n "s|^options init=\(.*\)/init|\1|p" "/boot/loader/entries/$(sed -n "s/^default //p" /boot/loader/loader.conf)")"
    echo "  flake       $(readlink -f /var/src/lollypops/flake)"
    echo "  hello       $(systemctl is-active hello), read from its secret: $(cat /run/hello)"
    find /var/src -type f -exec stat -c "  %A  %U:%G  %n" {} +'
}

say() { printf '%s\n' "$*"; }

quiet() { # TEXT COMMAND…: one line; the output only when it fails
  local since=$SECONDS
  printf '%s==> %s%s … ' "$bold" "$1" "$plain"
  shift
  if "$@" >"$log" 2>&1; then
    say "$dim$((SECONDS - since)) s$plain"
  else
    say failed
    cat "$log"
    exit 1
  fi
}

loud() { # TEXT COMMAND…: with its output
  local since=$SECONDS status=0
  say "$bold==> $1$plain"
  shift
  "$@" || status=$?
  say "$dim    $((SECONDS - since)) s$plain"
  ((status == 0)) || { say "That failed (exit $status)."; exit "$status"; }
}

finish() {
  local status=$?
  trap '' INT TERM HUP # whatever comes: the hosts go
  cd "$root"
  if [[ -z ${LOLLYPOPS_NO_HOSTS-} && ${LOLLYPOPS_KEEP_HOSTS-} == 1 ]]; then
    say "Still up: ssh -F ${ssh_config-} root@pop1; the flake and its Taskfile.yml are in $fleet"
    say "In there: export LP_REMOTE_SSH_OPTS='${LP_REMOTE_SSH_OPTS-}'"
    say "Away with the hosts: TESTHOSTS_SET=${TESTHOSTS_SET:-0} test/testhosts down"
  else
    if [[ -z ${LOLLYPOPS_NO_HOSTS-} ]]; then quiet 'Take the hosts down' "$root/test/testhosts" down; fi
    rm -rf "$fleet"
  fi
  rm -f "$log"
  ((status != 0)) || say "${bold}Done in $((SECONDS - began)) s.$plain"
  exit "$status"
}

main
