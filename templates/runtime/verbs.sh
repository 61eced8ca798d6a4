# shellcheck shell=sh
# What one does with a host day by day: status, rollback, reboot, gc, ssh, exec; and is it the right machine?
# shellcheck disable=SC2015,SC2016,SC2034,SC2154

# on_its_machine PROGRAM WORD…: on_target, with two more words before these; a machine that runs another host's system is refused.
on_its_machine() {
  program=$1; shift
  any=$LOLLYPOPS_ANY_HOST; ! in_run || [ ! -e "$notes/any.$host" ] || any=1
  on_target "$program" "host=$host" "any=$any" "$@"
  [ "$outcome" = other ] || return 0
  system=$why; refuse_other; make_run; : >"$notes/any.$host"
  on_target "$program" "host=$host" any=1 "$@"
}
refuse_other() { # ends the step if system $system is that of another host of this Taskfile
  whose=${system#nixos-system-}
  while [ "$whose" != "${whose%-*}" ]; do
    whose=${whose%-*}   # where the name ends and the version begins, nobody can tell
    [ "$whose" != "$host" ] || return 0
    in_taskfile "$whose" || continue
    [ -n "${source-}" ] || find_source
    quote "path:$source${dir:+?dir=$dir}#$attribute.\"$host\".config.system.build.toplevel.name"
    own=$(eval "nix eval --raw $nix_opts $quoted" 2>&4) || own=''
    case $own in "nixos-system-$whose-"*) return ;; esac   # two hosts may have one name
    fail failed "this looks like $whose's machine (its running system is $system); LOLLYPOPS_ANY_HOST=1 goes on all the same"
  done
}
in_taskfile() { [ ! -r "$TASKFILE" ] || grep -Fqx -e "  '$1:rebuild':" -e "  $1:rebuild:" -- "$TASKFILE"; }

verb_status() {
  quote "$config_dir/flake"
  show_there '' "readlink -f /run/current-system /run/booted-system /nix/var/nix/profiles/system $quoted"
  show_there '' 'systemctl list-units --state=failed,auto-restart'
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  if in_run && [ -e "$notes/source" ]; then find_source; else prefetch 2>/dev/null || source=''; fi
  on_target status "$config_dir/flake" 4>/dev/null
  if [ "$outcome" != status ]; then
    [ "$status" != 255 ] || fail unreachable "${why:-ssh said nothing}"
    expect status
  fi
  read -r current booted generation next reboot there ill <<EOF
$why
EOF
  tell_status; done_step
}
tell_status() { # what the target told, as a line and in the results
  words="runs $current"
  if [ "$current" = - ]; then words='runs no NixOS'; elif [ "$next" = - ]; then words="$words, generation $generation"; else words="$words; generation $generation, $next, boots next"; fi
  case $booted in - | "$current") ;; *) words="$words; booted $booted" ;; esac
  [ "$reboot" = false ] || words="$words; reboot needed"
  words="$words; failed units: ${ill:-none}; flake: "
  case $reboot in true | false) ;; *) reboot=null ;; esac
  ours=false flake_words='another'
  case $there in - ) flake_words=none ;; "$source") ours=true flake_words=ours ;; esac
  [ -n "$source" ] || { ours=null; flake_words="$there, ours is not known"; }
  tell "$step: $words$flake_words"
  fields=''
  for field in current booted flake; do
    eval "value=\$$field"; [ $field != flake ] || value=$there
    if [ "$value" = - ]; then json=null; else json "$value"; fi; fields="$fields,\"$field\":$json"
  done
  list=''; for unit in $ill; do json "$unit"; list="$list${list:+,}$json"; done
  case $generation in '' | *[!0-9]*) generation=null ;; esac
  told=1
  result_line unchanged "$words$flake_words" \
    "$fields,\"generation\":$generation,\"reboot\":$reboot,\"failed\":[$list],\"ours\":$ours"
}

verb_rollback() { # WORD…, as for a rebuild
  show_there new= 'readlink -f /nix/var/nix/profiles/system-$(($(readlink /nix/var/nix/profiles/system | tr -dc 0-9) - 1))-link'
  back=1; verb_rebuild "$@"
}

# reboot is three calls: this one, deploy-secrets, which sends what is gone, and this one again.
verb_reboot() {
  note=$notes/reboot.$host
  ! in_run || [ ! -e "$note" ] || after_reboot
  show_there '' 'systemctl reboot'
  if [ -n "$dry" ]; then make_run; : >"$note"; changed 'shown, not run'; done_step; fi
  on_its_machine reboot start
  [ "$outcome" != here ] || fail unknown "the connection ended before the target told whether it reboots${why:+: $why}"
  expect rebooting
  read -r boot wanted ill <<EOF
$why
EOF
  tell "$step: waiting for it"
  await_boot
  [ "$system" = "$wanted" ] || [ "$booted" = "$wanted" ] ||
    fail failed "rebooted, but it runs ${system##*/} and not ${wanted##*/}, the boot default; look at its boot loader"
  make_run; printf '%s\n' "$system" "$ill" >"$note"
  tell "$step: back after $waited s"
  mark running 'rebooted; its secrets and units were not looked at'
  exit 0
}
await_boot() { # a login to another boot than $boot; sets $system and $booted
  patience=600 told_at=$(date +%s) waited=0
  while [ -z "$signal" ] && [ $waited -lt $patience ]; do
    sleep 2
    waited=$(($(date +%s) - told_at))
    [ ! -t 4 ] || printf '\r%s: %s s \r' "$step" $waited >&4
    fresh=1   # never a shared connection: that of before could look alive
    on_target reboot which 4>/dev/null
    read -r id system booted <<EOF
$why
EOF
    case $outcome/$id in up/"$boot") ;; up/*) return ;; esac
  done
  [ -z "$signal" ] || fail unknown 'it was told to reboot'
  [ "$outcome" != up ] || fail failed "it was told to reboot, and has not within $patience s"
  fail unknown "it did not come back within $patience s${why:+: $why}"
}
after_reboot() {
  { read -r system; read -r ill; } <"$note"; rm -f -- "$note"
  show_there '' 'systemctl is-system-running --wait'
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  on_target reboot settle "$ill"
  expect settled
  changed "rebooted into ${system##*/}"; done_step
}
secrets_there() { # after a reboot, all of them: so nothing is to be sent
  paths=''; each_secret add_path "$@"
  [ -n "$paths" ] || { tell "$step: none configured"; done_step; }
  eval "on_target reboot missing$paths"
  expect missing there
  [ "$outcome" = missing ] || { tell "$step: all in place"; done_step; }
}
add_path() { quote "$path"; paths="$paths $quoted"; }

verb_gc() { # [AGE], in days
  days=${*:-30d}; days=${days%d}
  case $days in '' | *[!0-9]* | 0?* | ??????*) refuse "gc takes one age in days, such as 30d, not $*" ;; esac
  show_there '' "nix-env -p /nix/var/nix/profiles/system --delete-generations ${days}d"
  show_there '' '/nix/var/nix/profiles/system/bin/switch-to-configuration boot'
  show_there '' nix-collect-garbage
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  on_its_machine gc "$days"
  [ "$outcome" != here ] || { outcome=unknown why="the connection ended early; what was begun there goes on${why:+: $why}"; }
  expect 'done'
  case $why in "no generation removed, 0 store"*) tell "$step: $why" ;; *) changed "$why" ;; esac
  done_step
}

verb_ssh() { # a login with a terminal, as the host's user
  show "${local:-$ssh $ssh_opts $to}"
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  if [ -n "$local" ]; then LC_ALL=$locale "${SHELL:-sh}" 4>&-; else eval "LC_ALL=\$locale $ssh $ssh_opts -- \"\$to\" 4>&-"; fi
  got=$?
  mark ok ''; exit $got
}
verb_exec() { # COMMAND WORD…: there as it was typed, with sudo where the host has it; its output is not touched
  [ $# -gt 0 ] || refuse "exec needs a command, as in: task $host:exec -- uptime"
  quote_all "$@"; show_there '' "$quoted"
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  tell_password
  set_marks
  # In letters that sh, fish, zsh and csh read alike; sudo may leave the password to what it starts.
  loader="eval \"\$(echo $(printf 'set -- %s; exec "$@"' "$quoted" | base64 | tr -d '\n') | base64 -d)\""
  [ -z "$password" ] || loader="while IFS= read -r l; do [ \"\$l\" = B$gate ] && break; done; $loader"
  set_there
  mark=''
  [ -z "$several" ] || exec </dev/null   # which of them would get it?
  if [ -z "$password" ]; then go_there; else
    { printf '%s\n' "$password" "B$gate"; [ -t 0 ] || cat; } 2>/dev/null | go_there; fi
  got=$?
  case $got in
    0) done_step ;;
    255) [ -n "$local" ] || fail unreachable 'ssh ended with 255 (its words are above), or the command did' ;;
    77) [ -z "$password" ] || fail failed 'exit 77: sudo did not take the password, or the command ended so' ;;
  esac
  fail failed "exit $got"
}
go_there() { if [ -n "$local" ]; then LC_ALL=$locale sh -c "$there" 4>&-; else eval "LC_ALL=\$locale $ssh $ssh_opts -T -- \"\$to\" \"\$there\" 4>&-"; fi; }
