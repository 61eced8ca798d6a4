# shellcheck shell=sh
# On the target: what a deployment of secrets leaves to be done, in a file so that a rebuild that fails loses none of it:
# owners that did not exist, units to restart, the boot entry, files to remove. The file `secrets` says which are ours.
# Words are separated by one blank; the path is the last of a line, and may hold some.
# shellcheck disable=SC2015,SC2030,SC2031,SC2034,SC2086,SC2154
state=/var/lib/lollypops
lines() { [ ! -e "$state/$1" ] || cat "$state/$1"; }
remember() { # FILE TEXT [WHAT-IT-HOLDS]
  [ "$2" != "${3-$(lines "$1")}" ] || return 0
  if [ -z "$2" ]; then rm -f -- "$state/$1"; return; fi
  [ -d $state ] || (umask 077; mkdir -p $state)
  (umask 077; printf '%s\n' "$2" >"$state/$1.new") && { [ "$1" = secrets ] || sync -- "$state/$1.new"; } &&
    mv -f -- "$state/$1.new" "$state/$1" || give_up "cannot write $state/$1"
}
waiting() { lines pending | grep -qx "$1"; }
identity() { stat -c %i:%Y -- "$1" 2>/dev/null; }   # a file that somebody else put there is another
exists() { [ -z "$2" ] || getent "$1" -- "$2" >/dev/null; }
as_user() { # USER COMMAND…: with his rights, none of our descriptors, no terminal, and not forever
  as_who=$1; shift
  timeout -k 5 300 setsid -w setpriv --reuid="$as_who" --regid="$(id -g -- "$as_who")" --init-groups env -i PATH="$PATH" HOME=/ "$@" 8>&- 9>&-
}

settle_owners() { # gives waiting secrets to the owners that exist by now; fails if there was none
  given='' left=''
  while IFS= read -r line; do
    case $line in own\ *) give ${line%%/*} && continue ;; esac
    left=$left$line$nl
  done <<LINES
$(lines pending)
LINES
  remember pending "${left%"$nl"}"
  [ -n "$given" ]
}
give() { # own OWNER GROUP MODE, of $line
  path=/${line#*/} group=${3#-} dir=${path%/*}
  exists passwd "$2" && exists group "$group" || return 1
  [ -f "$path" ] && [ ! -L "$path" ] || return 0
  has=$(stat -c '%U %G %a' -- "$path")
  [ "${has% *} $((0${has##* }))" != "$2 ${group:-$(id -gn -- "$2")} $((0$4))" ] || return 0
  # By now a directory may be another's, such as a unit's StateDirectory.
  (safe "${dir:-/}" "$path") >/dev/null && chown -- "$2:$group" "$path" && chmod -- "$4" "$path" || { say "not given to $2: $path"; return 1; }
  given=1 did=1
}

find_unit() { # sets $facts to the state of unit $1, and $invocation to what becomes another when it is started
  facts=$(systemctl show -p LoadState -p ActiveState -p InvocationID -- "$1")$nl
  invocation=${facts#*InvocationID=}; invocation=${invocation%%"$nl"*}
  case $facts in *ActiveState=failed*) invocation=failed ;; esac   # an activation makes inactive of that
}
settle_units() { # each unit once, if it runs since before its secret changed, or has failed; fails if one does, and tells in $broken
  restart='' reload=''
  while read -r line kind unit since; do
    case "$line $restart $reload " in "unit "*" $unit "*) continue ;; "unit "*) ;; *) continue ;; esac
    find_unit "$unit"
    case $since$facts in
      *LoadState=not-found*) printf '%s\n' "note: there is no unit $unit" ;;
      *ActiveState=failed* | failed*ActiveState=inactive*) restart="$restart $unit" ;;
      *ActiveState=inactive* | *ActiveState=deactivating*) ;;
      *) case $since in - | "$invocation") eval "$kind=\"\$$kind \$unit\"" ;; esac ;;
    esac
  done <<LINES
$(lines pending | sort -ru)
LINES
  [ -z "$restart$reload" ] || did=1
  [ -z "$restart" ] || { printf '%s\n' "restarting$restart"; systemctl restart -- $restart; } || { broken="restarting$restart failed"; return 1; }
  [ -z "$reload" ] || { printf '%s\n' "reloading$reload"; systemctl try-reload-or-restart -- $reload; } || { broken="reloading$reload failed"; return 1; }
  remember pending "$(lines pending | grep -v '^unit ')"
}

settle_removals() { # what the kept system no longer names, if this run's deployment of secrets said so
  waiting "run $run" || return 0
  gone=$nl
  while IFS= read -r line; do
    case $line in prune\ *) remove ${line%%/*} ;; esac
  done <<LINES
$(lines pending)
LINES
  remember secrets "$(lines secrets | while IFS= read -r line; do
    case $gone in *"$nl/${line#*/}$nl"*) ;; *) printf '%s\n' "$line" ;; esac
  done)"
  remember pending "$(lines pending | grep -v -e '^prune ' -e '^run ')"
}
remove() { # prune USER IDENTITY, of $line
  path=/${line#*/}; dir=${path%/*}
  # Another name of a secret that stays, through a directory that moved, is that secret.
  if [ "$(identity "$path")" = "$3" ] && [ ! -L "$path" ] && [ "$(lines secrets | grep -c "^$2 $3 /")" = 1 ]; then
    if [ "$2" = root ]; then (safe "${dir:-/}" "$path") >/dev/null && rm -f -- "$path"; else as_user "$2" rm -f -- "$path" </dev/null >/dev/null 2>&1; fi ||
      { say "not removed: $path"; return; }
    say "removed: $path"
  fi
  gone=$gone$path$nl
}
