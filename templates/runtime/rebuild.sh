# shellcheck shell=sh
# The system: built on the target, or here with --local-evaluation, then activated there in a unit of its own.
# shellcheck disable=SC2015,SC2034,SC2154

verb_check_vars() { say "$step: ok"; done_step; }
verb_rebuild() {
  source='' query='' new=''
  if [ -n "$local_evaluation" ]; then build_here; else
    find_source
    query=${dir:+?dir=$dir}
    show_evaluation
  fi
  show_activation
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  set_marks; id=$gate mark=''
  after=''; ! in_run || [ ! -e "$run/after.$host" ] || after=1
  eval "on_target rebuild \"\$id\" \"\$REBUILD_ACTION\" \"\$new\" \"\${run##*/}\" \"\$after\" \"\$config_dir/flake\" \"\$source\" \"\$query\" \"\$attribute.\\\"\$host\\\"\" $nix_opts"
  follow
  expect deployed unchanged
  case $outcome in deployed) changed "$why" ;; *) say "$step: unchanged, $why" ;; esac
  done_step
}
show_activation() {
  [ "$REBUILD_ACTION" != build ] || return 0
  case $REBUILD_ACTION in switch | boot) show_there '' "nix-env -p /nix/var/nix/profiles/system --set ${new:-\$new}" ;; esac
  show_there '' "systemd-run --collect --unit=nixos-rebuild-switch-to-configuration ${new:-\$new}/bin/switch-to-configuration $REBUILD_ACTION"
}
follow() { # after a lost connection: the unit goes on there, and so do we, from the line where it was cut
  [ -z "$signal" ] || [ "$outcome" != started ] || { outcome=failed why="the activation goes on there by itself"; }
  tries=0
  while [ "$outcome" = started ] && [ $tries -lt 60 ] && [ -z "$signal" ]; do
    tries=$((tries + 1)); lost=$at
    [ $tries -gt 1 ] || say "$step: the connection was lost; the activation goes on, looking for it"
    sleep 2
    on_target rebuild follow "$id" "${lost:-0}"
    at=${at:-$lost}
    case $outcome in '' | here) outcome=started ;; esac
  done
  [ "$outcome" != started ] || { outcome=unknown; why="the target stopped answering while $new was being activated; look at it"; }
}
