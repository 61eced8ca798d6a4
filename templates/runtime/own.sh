# shellcheck shell=sh
# A task that is the user's own: `start` is asked whether it may run, `ended` hears how its commands ended, `done` what came of it
# shellcheck disable=SC2015,SC2034,SC2154

verb_start() {
  make_run; read_mark
  case $outcome in ok | '') ;; *) exit 1 ;; esac
  [ ! -e "$run/stop" ] || { [ -n "$outcome" ] || mark interrupted 'before it began'; exit 1; }
  [ -z "$dry" ] || exit 1
  mark running 'its own words are above'
}
verb_ended() { # [EXIT]
  read_mark
  [ "$outcome $at" = "running $step" ] || exit 0
  case ${1-} in
    '' | 0) exit 0 ;;   # also what go-task refused, which gives no code
    130) [ ! -t 0 ] || [ -e "$run/stop" ] || say INT >"$run/stop" ;;   # Ctrl-C, and nobody else of us may have heard it
  esac
  outcome=failed; [ ! -e "$run/stop" ] || outcome=interrupted
  mark "$outcome" "exit $1 (its own words are above)"; open_log; tell "$host: $step $outcome: exit $1" >&2
}
verb_done() {
  several=''; ! is_one_of_several || several=1
  [ -z "$dry" ] || { make_run; changed 'a task of your own, not run'; done_step; }
  read_mark
  case $outcome/$at in running/"$step" | ok/"$step") : >"$notes/changed.$host"; mark ok ''; exit 0 ;; esac   # also what go-task had no reason to run
  set_code; finish "$code"
}
