# shellcheck shell=sh
# The system: built on the target, or here with --local-evaluation, then activated there in a unit of its own, on trial until
# it is confirmed from here over a new connection.
# shellcheck disable=SC2015,SC2034,SC2086,SC2154,SC2317

verb_check_vars() { tell "$step: ok"; done_step; }
verb_rebuild() { # WORD…: the health checks
  source='' query='' new=''
  if [ -n "$back" ]; then :; elif [ -n "$local_evaluation" ]; then build_here; else
    find_source
    query=${dir:+?dir=$dir}
    show_evaluation
  fi
  show_activation
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  case $guard$LOLLYPOPS_GUARD/$REBUILD_ACTION in 1/switch | 1/test) ;; *) confirm='' ;; esac
  set_marks; id=$gate mark='' words='' here_limit=0
  each_check tell_check "$@"
  after=''; ! in_run || [ ! -e "$notes/after.$host" ] || after=1
  quote_all "id=$id" "action=$REBUILD_ACTION" "new=$new" "run=${run##*/}" "secrets_after=$after" "by=lollypops-gen for $host, by $(id -un) at $(uname -n)" \
    "limit=$limit" "confirm=${confirm:+$((confirm + here_limit))}" "keep_failed=$keep_failed" "ignore=$ignore" "specialisation=$specialisation" "previous=$back"
  words="$quoted $words"
  quote_all "$config_dir/flake" "$source" "$query" "$attribute.\"$host\""
  eval "on_its_machine rebuild $words -- $quoted $nix_opts"
  case $outcome in ready | starting | activated) see_through "$@" ;; esac
  expect deployed unchanged
  case $outcome in deployed) changed "$why${LOLLYPOPS_GUARD:+, without guard}" ;; *) tell "$step: unchanged, $why" ;; esac
  done_step
}
show_activation() {
  case $REBUILD_ACTION in switch | test) show_stc test ;; dry-activate) show_stc dry-activate ;; esac
  case $REBUILD_ACTION in switch | boot) show_there '' "nix-env -p /nix/var/nix/profiles/system --set ${new:-\$new}"; show_stc boot ;; esac
}
show_stc() { show_there '' "systemd-run --collect --unit=nixos-rebuild-switch-to-configuration ${new:-\$new}/bin/switch-to-configuration $1"; }

each_check() { # DO WORD…: calls DO for each health check, its words in variables
  do=$1 name=''; shift
  for word; do
    case $word in
      name=*) [ -z "$name" ] || $do; name=${word#name=} on=target timeout=10 retries=3 cmd='' ;;
      on=control | timeout=* | retries=* | cmd=*) eval "${word%%=*}=\${word#*=}" ;;
      *) refuse "rebuild does not understand $word" ;;
    esac
  done
  [ -z "$name" ] || $do
}
tell_check() { # those of the target go there; those from here may take so much longer to confirm
  if [ $on = target ]; then quote_all "check=$name" "timeout=$timeout" "retries=$retries" "cmd=$cmd"; words="$words $quoted"
  else longest=$(((timeout + 6) * (retries + 1))); [ $here_limit -gt $longest ] || here_limit=$longest; fi
}
run_check() { # one from here, beside the others
  [ $on = control ] || return 0
  begun="$begun $name"
  (
    trap '' INT HUP; trap - TERM PIPE   # ended with all that it started, or those would stay
    REMOTE_HOST=${confirm_host:-${address:-localhost}} LC_ALL=$locale; export REMOTE_HOST
    while [ "$retries" -ge 0 ]; do
      said=$(within "$timeout" "$cmd" 2>&1 3>&- 4>&- 8>&- 9>&- </dev/null) && { echo "healthy $name" >&3; exit; }
      retries=$((retries - 1)); sleep 1
    done
    printf '%s\n' "$said" | sed "s/^/health check $name: /" >&4
  ) & pids="$pids $!"
}
within() { # SECONDS COMMAND; what is left of it then is ended
  sh -c -- "$2" & pid=$!
  ( n=$1; while [ "$n" -gt 0 ]; do sleep 1; n=$((n - 1)); done; end_all $pid ) >/dev/null 2>&1 & watch=$!
  wait $pid; ended=$?
  kill $watch 2>/dev/null
  return $ended
}
check_here() { # WORD…: all checks from here at once; fails if one does, and tells in $why
  begun='' pids=''
  healthy=$({ trap 'end_all $pids 2>/dev/null; exit' INT TERM HUP; each_check run_check "$@"; wait; echo "begun:$begun" >&3; } 3>&1 >&4)
  case $healthy in *begun:*) begun=${healthy##*begun:} sick='' ;; *) why="the health checks were interrupted"; return 1 ;; esac
  for name in $begun; do case "$nl$healthy$nl" in *"${nl}healthy $name$nl"*) ;; *) sick="$sick${sick:+, }$name" ;; esac; done
  [ -z "$sick" ] || { why="health check failed: $sick"; return 1; }
}

# From the start of the activation to its outcome. Every connection from here on is a new one: a lost one is no reason to
# give up, since the unit there goes on, and only a new login proves that one can still log in.
see_through() { # WORD…: the health checks
  next=follow reason='' home=$to left=$(((limit + ${confirm:-0}) / 5 + 20)) lost=''
  begun=$outcome
  began $why
  while :; do
    case $outcome in
      activated) if check_here "$@"; then next=confirm; else next=refuse reason=$why; fi ;;
      ready | starting | here | '')
        left=$((left - 1))
        [ $left -gt 0 ] || { outcome=unknown why="the host does not answer. Unless it was confirmed, it goes back to $old by itself; look at it"; break; }
        [ -n "$lost$signal" ] || tell "$step: the connection was lost; the activation goes on, looking for it"
        [ -z "$lost" ] || sleep 2
        lost=1 ;;
      gone) what_was_left; break ;;
      *) break ;;
    esac
    [ -z "$signal" ] || interrupted || break
    reach
  done
  to=$home
  [ -z "$signal" ] || [ "$outcome" != rolled-back ] || why="rolled back, ${why##*; }"
}
began() { old=$1 trial=$2 new=$3; }
reach() { # asks for the confirmation where the new system is to be, else at both places in turn
  verb_there=$next to=$home
  if [ -n "$confirm_host" ] && { [ "$outcome" = activated ] && [ $next = confirm ] || [ $((left % 2)) = 0 ]; }; then to=${user:+$user@}$confirm_host
  elif [ -n "$confirm_host" ] && [ $next = confirm ]; then verb_there=follow; fi
  seen=${at:-${seen:-0}} fresh=1 quiet=1
  on_target rebuild $verb_there "$id" "$seen" "$reason"
  quiet=''
}
interrupted() { # the guard there takes it back, and says so; without one it goes on. A second signal ends this at once
  [ -n "$confirm" ] || { outcome=failed why="the activation goes on there by itself"; return 1; }
  [ $next != refuse ] || return 0
  tell "$step: interrupted; telling the host to go back"
  next=refuse reason="interrupted"
  trap 'fail unknown "the host goes back to $old by itself, unless it was confirmed"' INT TERM HUP
}
what_was_left() { # /run forgets everything when a host starts anew
  set -- $why
  case $begun/${1-}/${2-} in
    */"$trial/$new") outcome=deployed why="$1 runs" ;;
    */"$trial"/*) if [ "$REBUILD_ACTION" = test ]; then outcome=deployed why="$1 runs"; else lost_track "$@"; fi ;;
    */"$old/$new") lost_track "$@" ;;
    ready/"$old"/*) outcome=failed why="the connection was lost before anything was activated; $old runs" ;;
    */"$old"/*) outcome=rolled-back why="the host was restarted, or knows nothing of this activation; $old runs" ;;
    *) lost_track "$@" ;;
  esac
}
lost_track() { outcome=unknown why="the host knows nothing of this activation. Look at it: ${1-} runs, the profile is ${2-}"; }
