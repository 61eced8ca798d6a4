# shellcheck shell=sh
# The way to a target: ssh with the host's options or the run's own, sudo, and programs that run there.
# shellcheck disable=SC2015,SC2034,SC2154

destination() { # refuses what ssh or a store URI would read as an option or a parameter
  case $2 in
    \[*:*\]) inner=${2#?}; inner=${inner%?}   # IPv6, perhaps with a zone
      case ${inner%%%*} in *[!0-9A-Fa-f.:]*) ;; *) case ${inner#*%} in -* | *[!A-Za-z0-9_.:-]*) ;; *) return 0 ;; esac ;; esac ;;
    [A-Za-z0-9_]*) case $2 in *[!A-Za-z0-9_.:%-]*) ;; *) return 0 ;; esac ;;
  esac
  refuse "$1 is no host name, address or user: $2"
}
connect() { # from --to, --ssh, --sudo and what the run overrides
  case $to in *@*) user=${to%%@*} address=${to#*@} ;; *) user='' address=$to ;; esac
  [ -z "$LP_REMOTE_HOST" ] || address=$LP_REMOTE_HOST
  [ -z "$LP_REMOTE_USER" ] || user=$LP_REMOTE_USER
  destination "the address (LP_REMOTE_HOST)" "$address"
  [ -z "$user" ] || destination "the user (LP_REMOTE_USER)" "$user"
  store=ssh://${user:+$user@}$address
  case $address in \[*) address=${address#?}; address=${address%?} ;; esac
  to=${user:+$user@}$address
  [ -z "$LP_REMOTE_COMMAND" ] || { split LP_REMOTE_COMMAND "$LP_REMOTE_COMMAND"; ssh=$quoted; }
  [ -z "$LP_REMOTE_SSH_OPTS" ] || { split LP_REMOTE_SSH_OPTS "$LP_REMOTE_SSH_OPTS"; ssh_opts=$quoted; }
  if [ -n "$sudo" ]; then
    [ -z "$LP_REMOTE_SUDO_COMMAND" ] || { split LP_REMOTE_SUDO_COMMAND "$LP_REMOTE_SUDO_COMMAND"; sudo=$quoted; }
    [ -z "$LP_REMOTE_SUDO_OPTS" ] || { split LP_REMOTE_SUDO_OPTS "$LP_REMOTE_SUDO_OPTS"; sudo_opts=$quoted; }
    case ${sudo##*/} in sudo | doas) sudo="$sudo -n" ;; esac   # a prompt could reach nobody
    sudo=$sudo${sudo_opts:+ $sudo_opts}
  fi
  # The user's options first: ssh takes the first of each. ServerAlive notices a dead line.
  ssh_opts="$ssh_opts${ssh_opts:+ }-o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
  [ -n "$LP_REMOTE_HOST" ] || return 0
  make_run
  if mkdir "$run/address.of.$host" 2>/dev/null; then for first in "$run"/address.of.*; do
    [ "${first##*/address.of.}" = "$host" ] || refuse "LP_REMOTE_HOST=$LP_REMOTE_HOST is already ${first##*/address.of.} in this run"
  done; fi
}
show_there() { # NAME= or nothing, then a command as it would be typed on the target, with sudo where the host has it
  [ -n "$verbose" ] || return 0
  assign=$1; shift
  quote "${sudo:+$sudo }$*"
  # What is only known later stands in variables of this side, not the target's.
  there=$(printf '%s' "$quoted" | sed "s/\$src/'\"\$src\"'/g; s/\$new/'\"\$new\"'/g")
  line="$ssh $ssh_opts $to $there"
  show "${assign:+$assign\$(}$line${assign:+)}"
}

# on_target PROGRAM WORD…: runs one of the target programs there. It travels over stdin up to a random mark, with its
# words, so that none of it shows in a process list; what `payload` prints follows it. Lines that begin with the mark are
# for us, the rest is printed. Sets $outcome (`here` if it began, then what it said), $why (its words, or else the last
# line printed), $at (the last place in a log that it told) and $status (ssh's).
on_target() {
  mark=$(random) gate=$(random) program=$1; shift
  quote_all "$@"
  loader="text= nl=\$(printf \"%b.\" \"\\n\"); nl=\${nl%.}; while IFS= read -r l; do [ \"\$l\" = B$gate ] && break; done; while IFS= read -r l && [ \"\$l\" != D$gate ]; do text=\$text\$l\$nl; done; eval \"\$text\" && main \"\$@\""
  there="${sudo:+$sudo -- }sh -c '$loader'"
  heard=$(
    { { printf '%s\n' "B$gate" "mark=$mark"; target_common; "target_$program"; printf '%s\n' "set -- $quoted" "D$gate"; payload; } 2>/dev/null |
        eval "$ssh $ssh_opts -T -- \"\$to\" \"\$there\"" 2>&1
      printf '\n%s exit %s\n' "$mark" $?; } | hear
  )
  told "$heard"
}
payload() { :; }
told() { # the four lines that `hear` ends with
  { read -r at; read -r status; read -r outcome; IFS= read -r why; } <<EOF
$1
EOF
}
hear() { # prints what is for the user; at the end tells what it heard for us, in four lines
  trap '' INT   # ends when the other side does, not before it has told why
  at='' status='' outcome='' why='' last='' blank=''
  while IFS= read -r line; do
    case $line in
      "$mark at "*) at=${line#"$mark at "} ;;
      "$mark exit "*) status=${line#"$mark exit "} ;;
      "$mark "*) line=${line#"$mark "}; outcome=${line%% *} why=${line#"$outcome"}; why=${why# } ;;
      '') blank=1 ;;
      *) [ -z "$blank" ] || { printf '\n' >&4; blank=''; }
        printf '%s\n' "$line" >&4
        case $line in *'nix log /nix/store/'* | *'For full logs, run'*) ;; *) last=${line#"${line%%[! ]*}"} ;; esac ;;
    esac
  done
  printf '%s\n' "$at" "$status" "$outcome" "${why:-$last}"
}
expect() { # ends the step unless the target said one of $@
  case $status in 0 | 255) for word; do [ "$outcome" != "$word" ] || return 0; done ;; esac
  case $outcome in
    failed | unknown) fail "$outcome" "$why" ;;
    here) fail failed "the connection ended early: $why" ;;
    *) [ "$status" != 255 ] || fail unreachable "${why:-ssh said nothing}"; fail failed "$why (exit $status)" ;;
  esac
}
