# shellcheck shell=sh
# On the target, before each program: answers, and where root may write.
# shellcheck disable=SC2015,SC2016,SC2034,SC2046,SC2154,SC3045
PATH=$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/sbin
LC_ALL=C; export LC_ALL
nl='
'
exec 2>&1; ulimit -c 0
cd /   # other accounts work from here too

say() { printf '%s\n' "$*"; }   # some echos obey a backslash in a name
answer() { printf '%s %s\n' "$mark" "$*"; }
give_up() { answer failed "$*"; exit 1; }
# main, which gets what comes over the connection. When that is lost before the last words of main were heard, main is ended with all
# that it has started, and that does not bring to its end what it has begun.
tied() {
  exec 3<&0
  {
    trap 'exit 0' TERM
    sh -c 'echo $PPID'
    while IFS= read -r word <&3; do say "$word" 2>/dev/null; [ "$word" != heard ] || exit 0; done
    me=$(exec sh -c 'echo $PPID')
    kill $(ps -A -o pid= -o ppid= | awk -v top=$$ -v except="$me" '{ up[$1] = $2 } END {
      for (one in up) { at = one; while (at in up && at != top && at != except) at = up[at]; if (at == top && one != top) print one } }') 2>/dev/null
  } | { read -r relay; (main "$@"); got=$?; kill "$relay" 2>/dev/null; exit $got; }
}
safe() { # may root write in directory $1? Not where somebody else can put another one in the way
  cd -P -- "$1" || [ -L "$1" ] || give_up "$2: $1 is no directory"
  [ "$PWD" = "$1" ] || give_up "$2: a symbolic link is among the parents; write the real path"
  cd /
  parent=${1%/} what=$2; set -- /
  while [ -n "$parent" ]; do set -- "$@" "$parent"; parent=${parent%/*}; done
  facts=$(stat -c '%u %a' -- "$@") || give_up "$what: somebody is changing its parent directories"
  # shellcheck disable=SC2086 # numbers
  set -- $facts
  while [ $# -gt 0 ]; do
    case $1:$2 in 0:1???) ;; 0:*[2367]? | 0:*[2367] | [!0]*) give_up "$what: a parent directory can be changed by others than root" ;; esac
    shift 2
  done
}
make_directory() { # $1, for $2, below what root alone can change; checked again since it may have been made meanwhile
  place=$1; while [ ! -e "${place:-/}" ] && [ ! -L "$place" ]; do place=${place%/*}; done
  safe "${place:-/}" "$2"
  [ "$place" != "$1" ] || [ ! -d "$1" ] || return 0
  [ -d "$1" ] || (umask 066; mkdir -p -- "$1") || give_up "$2: cannot make the directory $1"
  safe "$1" "$2"
}
right_machine() { # HOST ANY: unless any will do, one that runs a system of another name is not touched, but the name told
  runs=$(readlink -e /run/current-system) && [ -z "$2" ] || return 0
  runs=${runs##*/}; runs=${runs#*-}
  case $runs in
    nixos-system-"$1"-[0-9]*-[0-9]*) ;;   # it could be that of a host called $1-2
    nixos-system-"$1"-[0-9]*) return ;;
  esac
  answer other "$runs"; exit
}
idle() { # nothing may be activated meanwhile
  case $(systemctl is-active nixos-rebuild-switch-to-configuration) in active | *ing)
    give_up "an activation runs there (unit nixos-rebuild-switch-to-configuration); try again when it has ended" ;; esac
}
failing() { systemctl list-units --state=failed,auto-restart --plain --no-legend | awk '$1 !~ /\.scope$/ { print $1 }'; }
