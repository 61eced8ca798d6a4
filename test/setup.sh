#!/usr/bin/env bash
# setup.sh COMMAND…: makes sure of all that the demo and the tests need, then runs COMMAND with it on PATH.
#
# What it installs stays in .cache/ and node_modules/ of this checkout, but for Debian packages and the test hosts' base
# image (/var/cache/testhosts), which need root. It may be interrupted, and run twice or twice at once; it is quiet when
# nothing is missing. Without root, or off Linux, it sets up what it can and says LOLLYPOPS_NO_HOSTS=1 to COMMAND.
# Works with the bash 3.2 of macOS.
set -euo pipefail
cd "$(dirname "$0")/.."

go_task=3.54.0
nix_at_least=2.18
cache=$PWD/.cache
log=$cache/setup.log
PATH=$PATH:/usr/sbin:/sbin

main() {
  mkdir -p "$cache"
  lock
  : >"$log"
  check_node
  if can_host; then debian_packages; else export LOLLYPOPS_NO_HOSTS=1; fi
  npm_packages
  build
  provide_task
  provide_nix
  [[ -n ${LOLLYPOPS_NO_HOSTS-} ]] || [[ -e ${TESTHOSTS_CACHE:-/var/cache/testhosts}/${TESTHOSTS_SUITE:-trixie}/.complete ]] ||
    stage 'the base image of the test hosts' test/testhosts image
  exec 7>&- # the lock
  [[ -n ${LOLLYPOPS_NO_HOSTS-} ]] || choose_hosts
  PATH=$PWD/node_modules/.bin:$PATH
}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

stage() { # TEXT COMMAND…: a line that says what is done and how long it took; the output goes to the log
  local since=$SECONDS
  printf 'setup: %s … ' "$1" >&2
  shift
  if "$@" >>"$log" 2>&1; then
    printf '%d s\n' $((SECONDS - since)) >&2
  else
    printf 'failed\n' >&2
    tail -20 "$log" >&2
    die "the whole output is in $log"
  fi
}

lock() { # one setup at a time (descriptor 7)
  has flock || return 0
  exec 7>"$cache/setup.lock"
  flock -n 7 || { say 'waiting for another setup in this checkout'; flock 7; }
}

check_node() {
  { has node && has npm; } || die 'needs Node.js 20.19 or newer with npm'
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
    die "needs Node.js 20.19 or newer; this is $(node --version)"
}

can_host() { # may this process boot test hosts?
  local why
  if [[ $(uname -s) != Linux ]]; then
    why='they need Linux'
  elif [[ $EUID != 0 ]]; then
    why='they need root'
  elif ! unshare --mount --net true 2>/dev/null; then
    why='root may make no namespaces here (an unprivileged container?)'
  else
    return 0
  fi
  say "no test hosts: $why"
  return 1
}

debian_packages() {
  local pair missing=()
  for pair in debootstrap:debootstrap systemd-nspawn:systemd-container ip:iproute2 ssh:openssh-client git:git sudo:sudo \
    shellcheck:shellcheck busybox:busybox; do
    has "${pair%:*}" || missing+=("${pair#*:}")
  done
  python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip) # go-task's releases, this one and an old one
  ((${#missing[@]} > 0)) || return 0
  has apt-get || die "needs ${missing[*]} (names of the Debian packages)"
  [[ " ${missing[*]} " != *' debootstrap '* ]] || missing+=(debian-archive-keyring)
  stage "Debian packages: ${missing[*]}" install_debian "${missing[@]}"
}

install_debian() {
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

npm_packages() { # npm writes the inner lock last, so it stands for a whole installation
  [[ package-lock.json -nt node_modules/.package-lock.json ]] || return 0
  stage 'npm packages' install_npm
}

install_npm() { npm ci --include=dev --ignore-scripts --no-audit --no-fund; }

build() {
  [[ ! -e dist/cli.js || -n $(find src tsconfig.build.json -newer dist/cli.js -print) ]] || return 0
  stage 'npm run build' npm run --silent build
}

provide_task() {
  is_our_task task && return
  PATH=$cache/bin:$PATH
  is_our_task "$cache/bin/task" && return
  stage "go-task $go_task" install_task
}

is_our_task() { [[ $("$1" --version 2>/dev/null) == *"$go_task" ]]; }

install_task() {
  local new=$cache/task.new
  rm -rf "$new"
  mkdir -p "$new" "$cache/bin"
  task_from_pypi "$new" || task_from_go "$new" || return
  mv "$new/task" "$cache/bin/task"
  rm -rf "$new"
}

task_from_pypi() { # DIR: the wheel holds the released binary
  python3 -m pip download --no-deps --only-binary=:all: --dest "$1" "go-task-bin==$go_task" &&
    python3 -m zipfile -e "$1"/*.whl "$1" &&
    mv "$(find "$1" -type f -name task)" "$1/task" &&
    chmod +x "$1/task" &&
    is_our_task "$1/task"
}

task_from_go() { GOBIN=$1 go install "github.com/go-task/task/v3/cmd/task@v$go_task" && is_our_task "$1/task"; }

provide_nix() { # Debian 12's own is too old; the test hosts' image carries a newer one
  local version
  version=$(nix --version 2>/dev/null | sed 's/.* //') || true
  [[ -z $version || $(printf '%s\n%s\n' "$nix_at_least" "$version" | sort -V | head -1) != "$nix_at_least" ]] || return 0
  [[ -z ${LOLLYPOPS_NO_HOSTS-} ]] || { say "no nix $nix_at_least or newer on PATH: what needs it fails"; return 0; }
  PATH=$cache/nix:$PATH
  "$cache/nix/nix" --version >/dev/null 2>&1 ||
    stage "nix for this machine, and the test hosts' base image if it is missing" test/testhosts nix "$cache/nix"
}

choose_hosts() { # a set of hosts that no other demo or test uses at the moment; the lock (descriptor 8) lasts as long as COMMAND
  local number
  [[ -z ${TESTHOSTS_SET-} ]] || return 0
  for number in 1 2 3 4; do # 6 to 9 are their second halves (vitest.config.ts)
    exec 8>"/run/testhosts-$number.user"
    if flock -n 8; then
      export TESTHOSTS_SET=$number
      return
    fi
  done
  die 'all sets of test hosts are in use; set TESTHOSTS_SET to share one'
}

(($# > 0)) || die 'which command?'
main
export PATH
exec "$@"
