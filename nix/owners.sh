# shellcheck shell=sh
# Gives waiting secrets to owners that did not exist when they were deployed: for use when accounts have been made.
# It needs chmod, chown, getent and stat on PATH, and never fails: a problem is a line on stderr. What it reads is left
# alone, as the next deployment settles it.
[ ! -e /var/lib/lollypops/pending ] || (
  root_alone() { # may nobody but root put something else into the directory $1?
    [ "$(cd -- "${1:-/}" && pwd -P)" = "${1:-/}" ] || return 1
    rest=$1; set -- /
    while [ -n "$rest" ]; do set -- "$@" "$rest"; rest=${rest%/*}; done
    states=$(stat -c %u:%a -- "$@") || return 1
    for state in $states; do
      case $state in 0:1???) ;; 0:*[2367]? | 0:*[2367] | [!0]* | 0[!:]*) return 1 ;; esac
    done
  }
  give() { # OWNER GROUP MODE PATH
    getent passwd -- "$1" >/dev/null || return 0
    [ "$2" = - ] || getent group -- "$2" >/dev/null || return 0
    [ -f "$4" ] && [ ! -L "$4" ] || return 0
    root_alone "${4%/*}" || {
      printf '%s\n' "lollypops: $4 stays root's: a parent is a symbolic link, or others can change it" >&2
      return 0
    }
    # chown clears what chmod set beyond rwx.
    chown -- "$1:${2#-}" "$4" && chmod -- "$3" "$4"
  }
  while IFS= read -r line; do
    case $line in own\ *) line=${line#own } ;; *) continue ;; esac
    owner=${line%% *} line=${line#* }; group=${line%% *} line=${line#* }
    give "$owner" "$group" "${line%% *}" "${line#* }"
  done </var/lib/lollypops/pending
) || :
