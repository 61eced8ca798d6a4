# shellcheck shell=sh
# The way to a target: ssh with the host's options or the run's own, sudo, and programs that run there.
# shellcheck disable=SC2030,SC2031,SC2015,SC2034,SC2154

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
  case $store in ssh://localhost) store=ssh://Localhost ;; esac   # nix would take it for this machine, whatever the port
  case $address in \[*) address=${address#?}; address=${address%?} ;; esac
  to=${user:+$user@}$address
  [ -z "$LP_REMOTE_COMMAND" ] || { split LP_REMOTE_COMMAND "$LP_REMOTE_COMMAND"; ssh=$quoted; }
  [ -z "$LP_REMOTE_SSH_OPTS" ] || { split LP_REMOTE_SSH_OPTS "$LP_REMOTE_SSH_OPTS"; ssh_opts=$quoted; }
  add_ssh_opts
  [ -n "$LP_REMOTE_HOST" ] || return 0
  make_run
  if mkdir "$notes/address.of.$host" 2>/dev/null; then for first in "$notes"/address.of.*; do
    [ "${first##*/address.of.}" = "$host" ] || refuse "LP_REMOTE_HOST=$LP_REMOTE_HOST is already ${first##*/address.of.} in this run"
  done; fi
}
add_ssh_opts() { # the host's other settings. The user's options stand before: ssh takes the first of each. ServerAlive notices a dead line
  set -- -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3
  # A question can be answered for one host, on a terminal.
  [ -t 0 ] && [ -z "$batch" ] && [ ! -e "$notes/batch" ] || [ "$step" = ssh ] || set -- -o BatchMode=yes "$@"
  case $host_key in
    '') ;;
    strict) set -- -o StrictHostKeyChecking=yes "$@" ;;
    accept-new) set -- -o StrictHostKeyChecking=accept-new "$@" ;;
    *) key=${host_key#* }; key="${host_key%% *} ${key%% *}"
      case $key in *[!A-Za-z0-9@.+/=\ -]*) key='' ;; [a-z]*\ AAAA*) ;; *) key='' ;; esac
      [ -n "$key" ] || refuse "deployment.ssh.host-key is strict, accept-new or a public key, not $host_key"
      # A list of this key alone, for whatever name; no file holds it.
      set -- -o "KnownHostsCommand=/usr/bin/env echo * $key" -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes "$@" ;;
  esac
  hops=$jump${jump:+,}
  while [ -n "$hops" ]; do
    hop=${hops%%,*} hops=${hops#*,}
    case $hop in *@*) destination "the jump host's user" "${hop%%@*}" ;; esac
    hop=${hop#*@}; case $hop in \[*\]:*) hop=${hop%:*} ;; esac
    destination "the jump host" "$hop"
  done
  [ -z "$jump" ] || set -- -o "ProxyJump=$jump" "$@"
  [ -z "$identity" ] || set -- -i "$identity" -o IdentitiesOnly=yes "$@"
  [ -z "$port" ] || set -- -p "$port" "$@"
  quote_all "$@"; ssh_opts="$ssh_opts${ssh_opts:+ }$quoted"
}

# One login for all that a run does on a host: a master in the background, which ends 15 s after its last use. The socket is
# named by all that tells where ssh goes, and how. `fresh=1` gives the next call a connection of its own.
share() { # sets $way to the words for it; fails if the login did, with ssh's words in $log
  way='' log=/dev/null
  [ -z "$fresh" ] || { fresh='' way='-S none -o ConnectTimeout=5 '; return 0; }
  case $multiplex$local${ssh%% *} in 1ssh | 1*/ssh) ;; *) return 0 ;; esac
  [ "$step" != deploy-secrets ] || whole || return 0   # needs just one
  socket=$run/s.$(checksum "$ssh $ssh_opts $to").$host
  # A path of plain characters; of the 104 that a socket's may have, ssh takes 17.
  case $socket in *[!A-Za-z0-9_@/.-]*) return 0 ;; esac
  [ ${#socket} -le 86 ] || return 0
  if [ ! -S "$socket" ]; then
    log_in; case $? in 0) ;; 255) return 1 ;; *) return 0 ;; esac
  fi
  way="-S $socket -o ControlMaster=auto " log=$socket.log   # auto: one that died is silently done without
}
log_in() { # 255: in vain. 1: there is none to share, or else ssh can say better why
  in_run || (make_run) 2>/dev/null || return 1
  case $nl$(eval "$ssh $ssh_opts -G -- \"\$to\"" </dev/null 2>/dev/null) in *"${nl}controlpath "*) return 1 ;; esac   # the user's own
  : >"$socket.log"
  # Were it not to listen, for another one does, it runs `:` and ends.
  eval "$ssh -f -M -S \$socket -o ControlPersist=15 -E \$socket.log $ssh_opts -- \"\$to\" :" </dev/null >/dev/null 2>>"$socket.log" 4>&- 7>&- 8>&- 9>&-
  got=$? log=$socket.log
  [ -z "$signal" ] || return 255
  if [ $got = 0 ] && [ -S "$socket" ]; then
    [ ! -s "$log" ] || { (hear <"$log" >/dev/null); : >"$log"; }   # a banner, a new host key
    return 0
  fi
  # A proxy's words are dropped by a master.
  case $got$(cat "$log") in 255 | *"UNKNOWN port"* | *listen* | 0* | 1*) return 1 ;; esac
  return 255
}
whole() { case $TASK in "$host:steps" | *":$host:steps" | *:without-secrets) ;; *) return 1 ;; esac; }   # not a step by itself
leave() { # at the end of a step; its connection stays if the host's deployment goes on
  ended=$?; code=${code:-$ended}
  unwatch
  [ ! -e "$run/stop" ] || close_masters   # nobody else may be left to do it
  case $code$step in 0rebuild) ;; 0*) ! whole || return 0 ;; esac
  [ ! -S "$socket" ] || close_master "$socket"
}
close_masters() { for socket in "$run"/s.*; do [ ! -S "$socket" ] || close_master "$socket"; done; }
close_master() { ssh -F /dev/null -S "$1" -O stop x 2>/dev/null || rm -f -- "$1"; }   # it ends once nobody uses it
unreached() { # ssh's words of a login in vain
  heard=$({ cat "$log"; printf '\n%s exit 255\n' "$mark"; } | hear)
  told "$heard"
}
with_ssh() { # COMMAND…: with just this ssh, and these options, as nix's
  share || { set_marks; unreached; expect; }
  NIX_SSHOPTS=$way$ssh_opts own_path=$PATH
  case "$ssh|$ssh_opts" in *\'*) wrap_ssh ;; "ssh|"*) ;; *) wrap_ssh ;; esac
  export NIX_SSHOPTS
  "$@"
  PATH=$own_path
}
wrap_ssh() { # nix takes the `ssh` of PATH, and before 2.26 it splits the options at blanks
  make_run; bin=$run/nix.$$; mkdir -p "$bin"
  quote "$PATH"; printf '#!/bin/sh\nPATH=%s\nexec %s "$@"\n' "$quoted" "$ssh $NIX_SSHOPTS" >"$bin/ssh"
  chmod 700 "$bin/ssh"; [ -x "$bin/ssh" ] || refuse "$runs takes no programs, so that nix cannot use this ssh: $ssh"
  PATH=$bin:$PATH NIX_SSHOPTS=''
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
  queued=''
  while [ -n "$LOLLYPOPS_SECRETS_IN_TURN" ] || [ ! -e "$run/unlocked" ]; do
    set -C; { echo $$ >"$run/turn"; } 2>/dev/null && turn=1; set +C
    [ -z "$turn" ] || break
    [ -z "$signal" ] && [ ! -e "$run/stop" ] || { signal=${signal:-INT}; fail interrupted "before its secrets were asked for"; }
    holder=''; read -r holder 2>/dev/null <"$run/turn"
    [ -n "$queued" ] || [ -z "$watcher" ] || { queued=1; unwatch; watch; }   # it is not this host that takes so long
    # It was killed, or its command failed; one of those who see it takes its turn away, once.
    [ -z "$holder" ] || kill -0 "$holder" 2>/dev/null || ! mkdir "$run/gone.$holder" 2>/dev/null || rm -f "$run/turn"
    sleep 0.1
  done
  [ -z "$queued" ] || { unwatch; watch "$LOLLYPOPS_TIMEOUT"; }
}
end_first() { # the others need not wait, now that one command went well
  [ -z "$turn" ] || [ -n "$LOLLYPOPS_SECRETS_IN_TURN" ] || : >"$run/unlocked"
}
end_turn() { [ -z "$turn" ] || [ -z "$LOLLYPOPS_SECRETS_IN_TURN" ] || rm -f "$run/turn"; turn=''; }
tell_password() { # for sudo: asked once a step, kept in a variable; one that was refused is not tried on another host
  [ -n "$sudo" ] && [ -n "$password_command" ] && [ -z "$password" ] || return 0
  refused=$run/refused.$(checksum "$password_command")
  [ ! -e "$refused" ] || fail failed "sudo refused this password on another host of this run; it is not tried again"
  take_turn
  password=$(trap - PIPE; LC_ALL=$locale sh -c -- "$password_command" 4>&- 8>&- 9>&-) || fail failed "deployment.sudo.password-command ended with exit $?; nothing was sent"
  end_first; end_turn
  case $password in '') fail failed "deployment.sudo.password-command printed nothing; nothing was sent" ;;
    *"$nl"*) fail failed "deployment.sudo.password-command printed more than one line; nothing was sent" ;; esac
}

# on_target PROGRAM WORD…: runs one of the target programs there. It travels over stdin after a random mark, with its
# words, so that none of it shows in a process list; what `payload` prints follows it. Lines that begin with the mark are
# for us, the rest is printed. Sets $outcome (`here` if it began, then what it said), $why (its words, or else the last
# line printed), $at (the last place in a log that it told) and $status (ssh's). Its stdin stays open until its last words were
# heard: when that ends before, it is ended with all that it has started (`tied`). Those that read data to its end need no such thing.
on_target() {
  tell_password
  [ -n "$mark" ] || set_marks
  share || { unreached; return 0; }
  program=$1; shift
  quote_all "$@"
  text="$(eval "$programs"; target_common; case $program in secrets) target_pending ;; rebuild) target_pending; target_guard ;; build) target_rebuild ;; esac; "target_$program")
set -- $quoted
: D$gate"
  case $program in secrets | import) main=main go='' ;; *) main=tied; open_line ;; esac
  # Words that sh, fish, zsh and csh read alike. A text that was cut is not run.
  loader="while IFS= read -r l; do [ \"\$l\" = B$gate ] && break; done; IFS= read -r mark; text=\$(head -c ${#text}); case \$text in *D$gate) eval \"\$text\"; $main \"\$@\";; esac"
  set_there
  heard=$( {
    # Both outlive ssh, to tell of its end: a master, or what ssh left, may hold the output for long.
    { trap : INT TERM HUP
      { [ -z "$password" ] || printf '%s\n' "$password"; printf '%s\n' "B$gate" "$mark"; printf %s "$text"; payload; [ -z "$go" ] || stand_by; } 2>/dev/null |
        { trap : INT TERM HUP; if [ -n "$local" ]; then sh -c "$there"; else eval "$ssh $way$ssh_opts -T -- \"\$to\" \"\$there\""; fi 2>&1 8>&- 9>&-; got=$?; [ -z "$go" ] || echo over >&8; exit $got; }
      printf '\n%s exit %s\n%s over\n' "$mark" $? "$mark"; } | hear
  } )
  told "$heard"
  [ -z "$go" ] || { echo end >&8; while read -r word <&8 && [ "$word" != end ]; do :; done; }   # words that nobody waited for
  case $status$why$way in '255-S /'*) why=$(sed -n '$p' "$log" | tr -d '\000-\037\177'); why=${why:-the shared connection ended} ;; esac
  [ "$status" != 77 ] || [ -n "$outcome$quiet" ] || { ! in_run || : >"$refused"; fail failed "sudo did not take the password; nothing was sent${why:+: $why}"; }
}
payload() { :; }
open_line() { # descriptor 8: what `hear`, which knows what the host said last, tells the one who feeds ssh
  [ -z "$line_open" ] || { go=1; return; }
  make_run; go=$run/go.$$
  { mkfifo -- "$go" && exec 8<>"$go"; } || fail failed "cannot make $go"
  rm -f -- "$go"; go=1 line_open=1
}
stand_by() { # the host waits for these words before it activates, and before it forgets; `over` is ssh
  while IFS= read -r word <&8 && [ "$word" != over ]; do
    [ "$word" != go ] || [ ! -e "$run/stop" ] || continue
    say "$word"
    [ "$word" != heard ] || break
  done
}
set_there() { # to what starts $loader on the target
  there="${sudo:+$sudo -- }sh -c '$loader'"
  # sudo gets one try, which shows whether it takes the password; one that does not ask leaves it to the loader, which drops it.
  [ -z "$password" ] || there="sh -c 'ulimit -c 0; unset p; IFS= read -r p; l=\"\$1\"; shift; printf \"%s\n\" \"\$p\" | \"\$@\" sh -c : || exit 77; { printf \"%s\n\" \"\$p\"; cat; } | \"\$@\" sh -c \"\$l\"' sh '$loader' $sudo --"
}
told() { # the four lines that `hear` ends with
  mark=''
  { read -r at; read -r status; read -r outcome; IFS= read -r why; } <<EOF
$1
EOF
}
hear() { # prints what is for the user; at the end tells what it heard for us, in four lines
  trap '' INT HUP TERM   # ends when the other side does, not before it has told why
  at='' status='' outcome='' why='' last='' blank='' c1=$(printf '\302')
  while IFS= read -r line; do
    case $line in *[[:cntrl:]]* | *"$c1"*) line=$(say "$line" | without_control) ;; esac   # a terminal obeys some
    case $line in
      "$mark at "*) at=${line#"$mark at "} ;;
      "$mark over") break ;;
      "$mark exit "*) status=${line#"$mark exit "} ;;
      "$mark "*) line=${line#"$mark "}; outcome=${line%% *} why=${line#"$outcome"}; why=${why# }
        # What the host waits for: to be told to go on, and that its last words were heard.
        [ -z "$go" ] || case $outcome in ready) echo go >&8 ;; here | starting) ;; activated) echo over >&8 ;; *) echo heard >&8 ;; esac ;;
      '') blank=1 ;;
      *) [ -z "$blank" ] || { tell >&4; blank=''; }
        # Of one try among many, only the host's own words.
        [ "$quiet$outcome" = 1 ] || pass
        case $line/$last in
          *'nix log /nix/store/'*/* | *'For full logs, run'*/*) ;;
          'error: unexpected end-of-file/error: '*) ;;   # nix here, about the nix there that has just said why
          *) last=${line#"${line%%[! ]*}"} ;;
        esac ;;
    esac
  done
  printf '%s\n' "$at" "$status" "$outcome" "${why:-$last}"
}
pass() { set_neutral "$line"; tell "$neutral" >&4; }   # a host's words, to the user
expect() { # ends the step unless the target said one of $@
  case $status in 0 | 255) for word; do [ "$outcome" != "$word" ] || return 0; done ;; esac
  case $outcome in
    failed | rolled-back | unknown) fail "$outcome" "$why" ;;
    here) fail failed "the connection ended early${why:+: $why}" ;;
    *) explain_login
      case $status in 255) fail unreachable "${why:-ssh said nothing}" ;; '') fail failed "${why:-ssh was ended}" ;; *) fail failed "$why (exit $status)" ;; esac ;;
  esac
}
explain_login() { # what to do about the words of ssh in $why
  case $why/$host_key in
    "Host key verification failed."*/*\ *) why="the host's key is not that of deployment.ssh.host-key" ;;
    "Host key verification failed."*) why="Host key verification failed: the key is not known here, or is another than it was. Look at it with '$ssh $to', or set deployment.ssh.host-key" ;;
  esac
}
