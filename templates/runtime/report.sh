# shellcheck shell=sh
# A deployment of several hosts: its beginning, the choice of hosts, and the honest end.
# A host stands here as NAME[:STEP,STEP…], its steps where they are not the usual ones.
# shellcheck disable=SC2015,SC2034,SC2154

usual=deploy-flake,deploy-secrets,rebuild
sweep() { # runs that a kill left behind
  for old in "$runs"/*-*; do
    pid=${old##*/}; pid=${pid%%-*}
    [ "$(born "$pid")" = "${old##*-}" ] || rm -rf -- "$old"
  done
}
verb_begin() { # HOST…
  [ $# -gt 0 ] || exit 2
  [ $# = 1 ] || [ -z "$LP_REMOTE_HOST" ] || refuse "LP_REMOTE_HOST=$LP_REMOTE_HOST would send $# hosts to one machine; deploy one host with it"
  source=''
  # One source for the whole run, whatever is edited meanwhile.
  case $step in '' | deploy-flake | rebuild | build | diff) [ -n "$dry" ] || prefetch || exit 1 ;; status) [ -n "$dry" ] || prefetch || source='' ;; esac
  make_run
  [ -z "$source" ] || say "$source$nl$dir" >"$run/source"
  for one; do
    case $one in *:*) ;; *) one=$one:${step:-$usual} ;; esac
    # A whole deployment of a host happens once in a run, whichever groups it is in.
    [ -z "$step" ] || rm -f -- "$run/host.${one%%:*}" "$run/changed.${one%%:*}"
    say "$one"
  done >"$run/hosts.$name"
}
verb_start() { # of a task that is the user's own
  [ -z "$dry" ] || say "$step: a task of your own, not run"
  mark failed 'its own words are above'
}
verb_done() { ! in_run || : >"$run/changed.$host"; done_step; }

after() { # sets $next to the step after $1 in the plan $2, or '' at its end
  next=${2%%,*}
  [ -n "$1" ] || return 0
  case ,$2, in *",$1,"*) next=,$2,; next=${next#*",$1,"}; next=${next%%,*} ;; esac
}
outcome_of() { # HOST:PLAN; sets $outcome and $why
  host=${1%%:*} plan=${1#*:} outcome='' at='' why=''
  [ ! -e "$run/host.$host" ] || read -r outcome at why <"$run/host.$host"
  case $outcome in
    ok | '') after "$at" "$plan" ;;
    *) why="$at${why:+: $why}"; return ;;
  esac
  if [ -n "$next" ] && [ -e "$run/stop" ]; then outcome=interrupted why="before $next"
  elif [ -n "$next" ]; then outcome=failed why="$next (its own words are above)"
  elif [ -e "$run/changed.$host" ]; then outcome=deployed
  else outcome=unchanged; fi
}
verb_end() {
  in_run || exit 0
  deployed=0 unchanged=0 total=0 bad=''
  while read -r one; do
    total=$((total + 1)); outcome_of "$one"
    case $outcome in
      deployed) deployed=$((deployed + 1)) ;;
      unchanged) unchanged=$((unchanged + 1)) ;;
      *) bad="$bad$nl  $host: $outcome at $why" ;;
    esac
  done <"$run/hosts.$name"
  good=$((deployed + unchanged)) what=deployed${LOLLYPOPS_GUARD:+ without guard}
  if [ -n "$step" ]; then what="with $step done"; elif [ -n "$dry" ]; then what=shown
  elif [ "$unchanged" -gt 0 ]; then what="$what, $unchanged of them unchanged"; fi
  say "$good of $total hosts $what${bad:+; NOT done:}$bad"
  # The notes stay until the next run: another group's hosts may have been deployed by this one.
}

# shellcheck disable=SC2254 # a selector is a pattern
matches() { # does host $1 match the selector $2? $groups holds "@group=host,host" words
  case $2 in
    @*) for word in $groups; do
        case ${word%%=*} in $2) case ,${word#*=}, in *",$1,"*) return 0 ;; esac ;; esac
      done; return 1 ;;
    *) case $1 in $2) return 0 ;; esac; return 1 ;;
  esac
}
verb_selected() { # HOST… @GROUP=HOST,… -- SELECTOR…: prints the hosts selected; on an error nothing, and says why
  set -f
  hosts='' groups=''
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in @*) groups="$groups $1" ;; *) hosts="$hosts $1" ;; esac; shift
  done
  [ $# = 0 ] || shift
  [ $# -gt 0 ] || { say "lollypops: say which hosts, as in: task deploy -- web1 '@web' '!web2'" >&2; exit 0; }
  only='!'; for selector; do case $selector in !*) ;; *) only='' ;; esac; done
  picked=''
  for one in $hosts; do
    take=$only
    for selector; do case $selector in !*) ;; *) ! matches "${one%%:*}" "$selector" || take=1 ;; esac; done
    for selector; do case $selector in !*) ! matches "${one%%:*}" "${selector#!}" || take='' ;; esac; done
    [ -z "$take" ] || picked="$picked $one"
  done
  for selector; do
    some=''; for one in $hosts; do ! matches "${one%%:*}" "${selector#!}" || some=1; done
    [ -n "$some" ] || { say "lollypops: no host or group matches '$selector' (task --list shows them)" >&2; exit 0; }
  done
  [ -n "$picked" ] || say "lollypops: these selectors leave no host: $*" >&2
  say "${picked# }"
}
