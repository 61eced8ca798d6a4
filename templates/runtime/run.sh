# shellcheck shell=sh
# The run as a whole: its directory, what is noted of each host there, how a step ends, and what ends it before its time.
# shellcheck disable=SC2030,SC2031,SC2015,SC2034,SC2154

# ---- a directory named by go-task's pid and start time; the next run sweeps it
born() {
  if [ -r /proc/self/stat ]; then
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086
    set -- $stat; shift 19; say "$1"
  else ps -o lstart= -p "$1" | tr -dc 0-9A-Za-z; fi
}
find_run() {
  if [ -n "${XDG_RUNTIME_DIR-}" ] && [ -O "$XDG_RUNTIME_DIR" ]; then runs=$XDG_RUNTIME_DIR/lollypops
  else runs=${TMPDIR:-/tmp}; [ ${#runs} -le 40 ] || runs=/tmp; runs=$runs/lollypops-$(id -u); fi   # a socket's path has to be short
  birth=$(born $PPID) && [ -n "$birth" ] || exit 130   # go-task was killed
  run=$runs/$PPID-$birth
  notes=$run/${TASKFILE_ID:-0}   # of one Taskfile: others may run beside it, with other hosts of the same names
}
ours() { [ -d "$1" ] && [ -O "$1" ] && [ ! -L "$1" ]; }
in_run() { ours "$runs" && ours "$notes"; }   # what somebody else made does not count
make_run() { in_run || { mkdir -p -- "$notes" && in_run || refuse "cannot keep notes in $runs"; sweep; }; }
alive() { pid=${1##*/}; pid=${pid%%-*}; [ -n "${1##*-}" ] && [ "$(born "$pid")" = "${1##*-}" ]; }
sweep() { # runs that ended; what one that was killed did is still to be remembered
  for old in "$runs"/*-*; do
    alive "$old" || ! mv -- "$old" "$runs/gone.$$" 2>/dev/null || { (run=$runs/gone.$$; remember_all); rm -rf -- "$runs/gone.$$"; }
  done
}
now() { # sets $now, in hundredths of a second since some time
  if read -r now _ 2>/dev/null </proc/uptime; then now=${now%.*}${now#*.}; else now=$(date +%s)00; fi
}

# ---- a host's mark, one line: BEGAN NOW OUTCOME STEP WORDS; while a step runs its outcome is `running`, then `ok` or what is wrong
mark() { # OUTCOME WORDS
  in_run && [ -z "$nested$aside" ] || return 0
  now; host_began=${host_began:-$now}; set_printable "$2"; printf '%s\n' "$host_began $now $1 $step $printable" >"$notes/host.$host"
}
read_mark() { # of $host; sets $host_began, $marked, $outcome, $at and $why, to nothing if it has none
  host_began='' marked='' outcome='' at='' why=''
  ! read -r host_began marked outcome at why 2>/dev/null <"$notes/host.$host"
}
each_host() { # DO LIST: calls DO with each HOST:PLAN of the list, in $one
  while read -r one; do "$1"; done <"$2"
}
after() { # sets $next to the step after $1 in the plan $2, or '' at its end
  next=${2%%,*}
  [ -n "$1" ] || return 0
  case ,$2, in *",$1,"*) next=,$2,; next=${next#*",$1,"}; next=${next%%,*} ;; esac
}
outcome_of() { # HOST:PLAN; sets $host, $outcome, $at, $why and $took (hundredths of a second)
  host=${1%%:*} plan=${1#*:}; read_mark
  took=$((${marked:-0} - ${host_began:-0}))
  case $outcome in
    ok | '') after "$at" "$plan" ;;
    running) next='' outcome=failed
      case $at/$why in rebuild/ | rollback/ | reboot/*) outcome=unknown ;; esac
      why=${why:-killed}; return ;;
    *) next=''; return ;;
  esac
  if [ -z "$next" ]; then
    outcome=unchanged; [ ! -e "$notes/changed.$host" ] || outcome=deployed
    return
  fi
  at=$next
  if [ -e "$notes/instead.$name" ]; then read -r outcome why <"$notes/instead.$name"
  elif [ -e "$run/stop" ]; then outcome=interrupted why='before it began'
  else outcome=failed why='its own words are above'; fi
}

# ---- how a step begins and ends: 0 deployed or unchanged, 1 failed, 3 rolled back, 4 unreachable, 5 unknown, 130 interrupted
# Where several hosts are deployed it is `end` that tells, and fails: a step that failed would cost the others theirs, if the user has set failfast.
is_one_of_several() {
  case $TASK in *:steps) return 0 ;; *:reported) set -- "$notes"/hosts.* ;; *) set -- "$notes"/hosts.*:"${TASK##*:}" ;; esac
  [ -e "$1" ] && grep -qs "^$host:" "$@"
}
# A step by itself of a host that this run also deploys: what it comes to is not what becomes of the deployment.
look_aside() { [ -n "$several" ] || { set -- "$notes"/hosts.*; [ -e "$1" ] && grep -qs "^$host:" "$@" && aside=1; }; }
begin_step() { # unless its host, or the whole run, has come to its end
  make_run
  several=''; ! is_one_of_several || several=1
  look_aside
  read_mark
  case $outcome/$at in
    ok/* | / | running/"${TASK##*:}") ;;
    running/*) [ -n "$several" ] || nested=1 ;;   # part of a task of the user's own, which is what counts
    *) [ -z "$several" ] || exit 0; host_began='' outcome='' ;;
  esac
  if [ -e "$run/stop" ] || hung_up; then [ -n "$outcome" ] || mark interrupted 'before it began'; finish 130; fi
  open_log
  now; step_began=$now; mark running ''
  outcome='' at='' why=''
  watch "$LOLLYPOPS_TIMEOUT"
}
open_log() { # this host's; in a directory of the user's own
  [ -n "$LOLLYPOPS_LOG_DIR" ] || return 0
  mkdir -p -- "$LOLLYPOPS_LOG_DIR" && { : >>"$LOLLYPOPS_LOG_DIR/$host.log"; } 2>/dev/null && chmod -- 600 "$LOLLYPOPS_LOG_DIR/$host.log" ||
    refuse "cannot write LOLLYPOPS_LOG_DIR, $LOLLYPOPS_LOG_DIR/$host.log"
  exec 9>>"$LOLLYPOPS_LOG_DIR/$host.log"
  say "--- $(date -u +%Y-%m-%dT%H:%M:%SZ) $step" >&9
}
changed() { did=1; ! in_run || [ -n "$aside" ] || : >"$notes/changed.$host"; tell "$step: $*"; }
done_step() {
  look_aside
  mark ok ''
  if [ -n "$did" ] || [ -z "$aside" ] && [ -e "$notes/changed.$host" ]; then result deployed ''; else result unchanged ''; fi
  finish 0
}
fail() { # OUTCOME WORDS
  look_aside
  outcome=$1; shift
  case $signal$outcome in
    rolled-back | unknown | failed | unreachable) ;;
    ALRM*) case $outcome in unreachable | interrupted) outcome=failed ;; esac; set -- "not done within $LOLLYPOPS_TIMEOUT s (LOLLYPOPS_TIMEOUT)${*:+; $*}" ;;
    *) outcome=interrupted; set -- "by SIG$signal${*:+; $*}" ;;
  esac
  [ "$outcome$LOLLYPOPS_SKIP_UNREACHABLE" != unreachable1 ] || outcome=skipped
  mark "$outcome" "$*"; set_neutral "$*"
  tell "$host: $step $outcome: $neutral" >&2
  result "$outcome" "$*"
  set_code; finish "$code"
}
set_code() { # $code, of $outcome
  case $outcome in deployed | unchanged | skipped | ok) code=0 ;; failed) code=1 ;; rolled-back) code=3 ;; unreachable) code=4 ;; interrupted) code=130 ;; *) code=5 ;; esac
}
finish() { code=$1; [ -z "$several" ] || exit 0; exit "$1"; }
result() { # of a step by itself; of the others `end` tells
  [ -n "$LOLLYPOPS_RESULTS" ] && [ -z "$told$nested$dry" ] || return 0
  [ -z "$several" ] || [ "$step" = status ] || return 0
  case $TASK/$step/$1 in *:without-secrets/rebuild/* | *:without-secrets/*/[!du]* | */unknown) ;; *:without-secrets/*) return ;; esac
  result_line "$1" "$2"
}

# ---- before its time: Ctrl-C, a signal, the death of go-task, `task stop`, LOLLYPOPS_TIMEOUT
on_signal() { # NAME; a second one ends all at once
  if [ -n "$signal" ]; then
    # shellcheck disable=SC2046 # numbers
    kill $(below $$) 2>/dev/null
    exit 130
  fi
  signal=$1
  [ -n "${2-}" ] || unwatch
  case $1 in ALRM) ;; *) ! in_run || say "$1" >"$run/stop" ;; esac
}
on_watcher() { # [NAME], or else what whoever asked to stop has left
  [ -z "$signal" ] || return 0
  stopped=${1-}; [ -n "$stopped" ] || read -r stopped 2>/dev/null <"$run/stop" || stopped=TERM
  on_signal "$stopped" seen
}
# go-task, where it leads the session of a terminal that goes away, is the only one to hear it, and goes on.
hung_up() {
  if [ -t 0 ]; then : >"$run/terminal"; return 1; fi
  [ -e "$run/terminal" ] && say HUP >"$run/stop"
}
below() { # PID [EXCEPT]: all that it has started, but for what EXCEPT has
  ps -A -o pid= -o ppid= | awk -v top="$1" -v except="${2-0}" '{ up[$1] = $2 } END {
    for (one in up) { at = one; while (at in up && at != top && at != except) at = up[at]; if (at == top && one != top) print one } }'
}
# Stopped meanwhile: what it started after we looked would stay, and keep its output open.
# shellcheck disable=SC2046 # numbers
end_all() { for one; do kill -s STOP "$one"; kill "$one" $(below "$one"); kill -s CONT "$one"; done 2>/dev/null; }
# Beside a step. Its children get what Ctrl-C would give them, since sh hears a signal only when they have ended; those who do not obey are killed.
watch() { # [SECONDS]; on stdin may be a terminal, which is to stay
  { (
    trap '' INT HUP TERM
    left=${1:--1} terminal=''
    [ ! -t 5 ] || terminal=1
    while :; do
      sleep 1 >/dev/null 4>&- 5>&- 6>&- 8>&-
      left=$((left - 1))
      if [ $left = 0 ]; then end_step ALRM
      elif [ -n "$terminal" ] && [ ! -t 5 ]; then say HUP >"$run/stop"; end_step USR1
      elif [ -e "$run/stop" ] || [ "$(born $PPID)" != "${run##*-}" ]; then end_step USR1
      elif ! kill -0 $$; then exit; fi
      progress
    done
  ) 6>&2 </dev/null 2>/dev/null 9>&- & watcher=$!; } 5<&0
}
# A sh that has only just been started would lose any other signal.
unwatch() { [ -z "$watcher" ] || kill -s KILL "$watcher" 2>/dev/null; watcher=''; }
end_step() {
  # shellcheck disable=SC2016 # that shell's
  victims=$(below $$ "$(exec sh -c 'echo $PPID')")
  kill -s "$1" $$
  # shellcheck disable=SC2086 # numbers
  for force in INT TERM KILL; do
    kill -s $force $victims
    # not all at once: what sleeps outlives the step
    for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 1 >/dev/null 4>&- 5>&- 6>&- 8>&-; done
  done
  exit
}
progress() { # each half minute, from whichever step notices first
  now; read -r due <"$notes/progress" || return 0
  [ "$now" -ge "$due" ] && mkdir "$notes/progress.$due" || return 0
  say $((now + 3000)) >"$notes/progress"; rmdir "$notes/progress.$due"
  total=0 over=0 bad=0 waiting=0 busy=''
  for list in "$notes"/hosts.*; do [ ! -e "$list" ] || each_host count_host "$list"; done
  [ $total = 0 ] || say >&6 "$over of $total hosts done, $bad failed, $waiting waiting; longest:$(printf %s "$busy" | sort -n | awk -v now="$now" '
    NR < 4 { printf "%s %s (%s, %d s)", (NR > 1 ? "," : ""), $2, $3, (now - $1) / 100 }')"
}
count_host() {
  host=${one%%:*}; read_mark
  total=$((total + 1))
  case $outcome in
    '') waiting=$((waiting + 1)); return ;;
    running) busy="$busy$host_began $host $at$nl"; return ;;
    ok) after "$at" "${one#*:}"; [ -z "$next" ] || return 0 ;;
    *) bad=$((bad + 1)) ;;
  esac
  over=$((over + 1))
}
called_by_name() { # go-task reads names as regular expressions
  case $called in '' | "$host" | "$host:"* | *":$host" | *":$host:"*) ;; *) refuse "$called is not the name of a task" ;; esac
}
