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
  if [ -n "$sudo" ]; then
    [ -z "$LP_REMOTE_SUDO_COMMAND" ] || { split LP_REMOTE_SUDO_COMMAND "$LP_REMOTE_SUDO_COMMAND"; sudo=$quoted; }
    [ -z "$LP_REMOTE_SUDO_OPTS" ] || { split LP_REMOTE_SUDO_OPTS "$LP_REMOTE_SUDO_OPTS"; sudo_opts=$quoted; }
    case ${sudo##*/} in
      sudo) if [ -n "$password_command" ]; then sudo="$sudo -S -p ''"; else sudo="$sudo -n"; fi ;;   # a prompt could reach nobody
      doas) sudo="$sudo -n" ;;
    esac
    sudo=$sudo${sudo_opts:+ $sudo_opts}
  fi
  [ -z "$local" ] || { [ -z "$LP_REMOTE_HOST" ] || refuse "is this machine (deployment.local); LP_REMOTE_HOST is not for it"; ssh=''; return; }
  case $to in *@*) user=${to%%@*} address=${to#*@} ;; *) user='' address=$to ;; esac
  [ -z "$LP_REMOTE_HOST" ] || address=$LP_REMOTE_HOST
  [ -z "$LP_REMOTE_USER" ] || user=$LP_REMOTE_USER
  destination "the address (LP_REMOTE_HOST)" "$address"
  [ -z "$user" ] || destination "the user (LP_REMOTE_USER)" "$user"
  [ -z "$confirm_host" ] || destination "confirm-host" "$confirm_host"
  case $confirm_host in \[*) confirm_host=${confirm_host#?}; confirm_host=${confirm_host%?} ;; esac
  store=ssh://${user:+$user@}$address
  case $address in \[*) address=${address#?}; address=${address%?} ;; esac
  to=${user:+$user@}$address
  [ -z "$LP_REMOTE_COMMAND" ] || { split LP_REMOTE_COMMAND "$LP_REMOTE_COMMAND"; ssh=$quoted; }
  [ -z "$LP_REMOTE_SSH_OPTS" ] || { split LP_REMOTE_SSH_OPTS "$LP_REMOTE_SSH_OPTS"; ssh_opts=$quoted; }
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
  line="${sudo:+$sudo }$*"
  if [ -z "$local" ]; then
    quote "$line"
    # What is only known later stands in variables of this side, not the target's.
    line="$ssh $ssh_opts $to $(printf '%s' "$quoted" | sed "s/\$src/'\"\$src\"'/g; s/\$drv/'\"\$drv\"'/g; s/\$new/'\"\$new\"'/g")"
  fi
  show "${assign:+$assign\$(}${sudo:+${password_command:+$password_command | }}$line${assign:+)}"
}

# The first command of a run that tells a secret goes alone: it unlocks what the others need. With LOLLYPOPS_SECRETS_IN_TURN
# one host's commands go at a time.
take_turn() {
  [ -z "$turn" ] || return 0
  make_run
  while [ -n "$LOLLYPOPS_SECRETS_IN_TURN" ] || [ ! -e "$run/unlocked" ]; do
    set -C; { echo $$ >"$run/turn"; } 2>/dev/null && turn=1; set +C
    [ -z "$turn" ] || return 0
    [ -z "$signal" ] && [ ! -e "$run/stop" ] || { signal=${signal:-INT}; fail interrupted "before its secrets were asked for"; }
    holder=''; read -r holder 2>/dev/null <"$run/turn"
    # It was killed, or its command failed; one of those who see it takes its turn away, once.
    [ -z "$holder" ] || kill -0 "$holder" 2>/dev/null || ! mkdir "$run/gone.$holder" 2>/dev/null || rm -f "$run/turn"
    sleep 0.1
  done
}
end_first() { # the others need not wait, now that one command went well
  [ -z "$turn" ] || [ -n "$LOLLYPOPS_SECRETS_IN_TURN" ] || : >"$run/unlocked"
}
end_turn() { [ -z "$turn" ] || [ -z "$LOLLYPOPS_SECRETS_IN_TURN" ] || rm -f "$run/turn"; turn=''; }
tell_password() { # for sudo: asked once a step, kept in a variable; one that was refused is not tried on another host
  [ -n "$sudo" ] && [ -n "$password_command" ] && [ -z "$password" ] || return 0
  refused=$run/refused.$(printf %s "$password_command" | cksum | tr -dc 0-9)
  [ ! -e "$refused" ] || fail failed "sudo refused this password on another host of this run; it is not tried again"
  take_turn
  password=$(LC_ALL=$locale sh -c -- "$password_command" 4>&-) || fail failed "deployment.sudo.password-command ended with exit $?; nothing was sent"
  end_first; end_turn
  case $password in '') fail failed "deployment.sudo.password-command printed nothing; nothing was sent" ;;
    *"$nl"*) fail failed "deployment.sudo.password-command printed more than one line; nothing was sent" ;; esac
}

# on_target PROGRAM WORD…: runs one of the target programs there. It travels over stdin after a random mark, with its
# words, so that none of it shows in a process list; what `payload` prints follows it. Lines that begin with the mark are
# for us, the rest is printed. Sets $outcome (`here` if it began, then what it said), $why (its words, or else the last
# line printed), $at (the last place in a log that it told) and $status (ssh's).
on_target() {
  tell_password
  [ -n "$mark" ] || set_marks
  program=$1; shift
  quote_all "$@"
  text="$(target_common; case $program in secrets) target_pending ;; rebuild) target_pending; target_guard ;; build) target_rebuild ;; esac; "target_$program")
set -- $quoted
: D$gate"
  # Words that sh, fish, zsh and csh read alike. A text that was cut is not run.
  loader="while IFS= read -r l; do [ \"\$l\" = B$gate ] && break; done; IFS= read -r mark; text=\$(head -c ${#text}); case \$text in *D$gate) eval \"\$text\"; main \"\$@\";; esac"
  there="${sudo:+$sudo -- }sh -c '$loader'"
  # sudo gets one try, which shows whether it takes the password; one that does not ask leaves it to the loader, which drops it.
  [ -z "$password" ] || there="sh -c 'ulimit -c 0; unset p; IFS= read -r p; l=\"\$1\"; shift; printf \"%s\n\" \"\$p\" | \"\$@\" sh -c : || exit 77; { printf \"%s\n\" \"\$p\"; cat; } | \"\$@\" sh -c \"\$l\"' sh '$loader' $sudo --"
  heard=$(
    { { [ -z "$password" ] || printf '%s\n' "$password"; printf '%s\n' "B$gate" "$mark"; printf %s "$text"; payload; } 2>/dev/null |
        if [ -n "$local" ]; then sh -c "$there"; else eval "$ssh ${fresh:+-o ControlMaster=no -o ControlPath=none -o ConnectTimeout=5} $ssh_opts -T -- \"\$to\" \"\$there\""; fi 2>&1
      printf '\n%s exit %s\n' "$mark" $?; } | hear
  )
  told "$heard"
  [ "$status" != 77 ] || [ -n "$outcome" ] || { ! in_run || : >"$refused"; fail failed "sudo did not take the password; nothing was sent${why:+: $why}"; }
}
payload() { :; }
told() { # the four lines that `hear` ends with
  mark=''
  { read -r at; read -r status; read -r outcome; IFS= read -r why; } <<EOF
$1
EOF
}
hear() { # prints what is for the user; at the end tells what it heard for us, in four lines
  trap '' INT   # ends when the other side does, not before it has told why
  at='' status='' outcome='' why='' last='' blank=''
  while IFS= read -r line; do
    case $line in *[[:cntrl:]]*) line=$(printf %s "$line" | tr -d '\000-\010\013-\037\177') ;; esac   # a terminal obeys some
    case $line in
      "$mark at "*) at=${line#"$mark at "} ;;
      "$mark ready") : >"$go" ;;
      "$mark exit "*) status=${line#"$mark exit "} ;;
      "$mark "*) line=${line#"$mark "}; outcome=${line%% *} why=${line#"$outcome"}; why=${why# } ;;
      '') blank=1 ;;
      *) [ -z "$blank" ] || { printf '\n' >&4; blank=''; }
        # Of one try among many, only the host's own words.
        [ "$fresh$outcome" = 1 ] || printf '%s\n' "$line" >&4
        case $line in *'nix log /nix/store/'* | *'For full logs, run'*) ;; *) last=${line#"${line%%[! ]*}"} ;; esac ;;
    esac
  done
  printf '%s\n' "$at" "$status" "$outcome" "${why:-$last}"
}
expect() { # ends the step unless the target said one of $@
  case $status in 0 | 255) for word; do [ "$outcome" != "$word" ] || return 0; done ;; esac
  case $outcome in
    failed | rolled-back | unknown) fail "$outcome" "$why" ;;
    here) fail failed "the connection ended early${why:+: $why}" ;;
    *) [ "$status" != 255 ] || fail unreachable "${why:-ssh said nothing}"; fail failed "$why (exit $status)" ;;
  esac
}
