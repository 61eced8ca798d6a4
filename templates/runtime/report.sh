# shellcheck shell=sh
# A deployment, of one host or several: its beginning, who answers, the waves, the honest end.
# A host stands here as NAME[:STEP,STEP…], its steps where they are not the usual ones.
# shellcheck disable=SC2030,SC2031,SC2015,SC2034,SC2154

usual=deploy-flake,deploy-secrets,rebuild
with_plan() { case $one in *:*) ;; *) one=$one:${step:-$usual} ;; esac; }   # $one
verb_begin() { # HOST…, with --table those of it that are to be deployed
  rows=''
  # shellcheck disable=SC2046 # names; a / stands between waves
  if [ -n "$table" ]; then rows=$(cat); if [ -n "$chosen" ]; then set -- $(say "$*" | tr ' ' '\n' | sed '/^[/]*$/d'); else set -- $(say "$rows" | sed 's/ .*//'); fi; fi
  [ $# -gt 0 ] || { [ -e "$notes/nothing" ] && exit 0; exit 2; }
  [ $# = 1 ] || [ -z "$LP_REMOTE_HOST" ] || refuse "LP_REMOTE_HOST=$LP_REMOTE_HOST would send $# hosts to one machine; deploy one host with it"
  called_by_name
  make_run
  hosts_list=$notes/hosts.$name
  now; say $((now + 3000)) >"$notes/progress"; say "$now" >"$notes/began.$name"
  # What counts for `retry`: a deployment of whole hosts that changes them.
  case $step$dry$SECRET/$TASK/$REBUILD_ACTION in /*:without-secrets/* | /*/dry-activate | /*/build) ;; /*) say "$fleet" >"$notes/fleet.$name" ;; esac
  for one; do
    with_plan
    # A whole deployment of a host happens once in a run, whichever groups it is in; steps by themselves are none of it.
    [ ! -e "$notes/host.${one%%:*}" ] || { [ -z "$step" ] && [ -e "$notes/whole.${one%%:*}" ]; } || rm -f -- "$notes/host.${one%%:*}" "$notes/changed.${one%%:*}"
    [ -n "$step" ] || : >"$notes/whole.${one%%:*}"
    say "$one"
  done >"$hosts_list"
  [ -s "$notes/began.$name" ] && [ "$(grep -c . "$hosts_list")" = $# ] || { rm -f -- "$hosts_list"; refuse "there is no room for notes in $runs"; }
  [ $# = 1 ] || { batch=1; : >"$notes/batch"; }
  warn_failfast $#
  [ -z "$dry" ] || return 0
  watch <&2; trap unwatch EXIT   # stdin may be the table
  [ $# = 1 ] || [ -z "$rows" ] || ask_all "$@"
  unless_asked_to_stop
  fetch_source
}
fetch_source() { # one for the whole run, whatever is edited meanwhile
  case $step in
    '') grep -Eq '[:,](deploy-flake|rebuild)(,|$)' "$hosts_list" || return 0 ;;
    deploy-flake | rebuild | build | diff | status) ;;
    *) return 0 ;;
  esac
  if prefetch; then say "$source$nl$dir" >"$notes/source"; return; fi
  [ "$step" != status ] || return 0
  unless_asked_to_stop
  say "failed nix flake prefetch of $flake failed (its own words are above)" >"$notes/instead.$name"; exit 1
}
warn_failfast() { # HOW-MANY: our steps never fail for go-task, since `end` does, but for the deployments beside it; a task of the user's own may
  called_with=" $(ps -o args= -p $PPID 2>/dev/null) " others=''
  [ "$1" = 1 ] || others=$(sed 's/^[^:]*://; s/$/,/; s/check-vars,//; s/deploy-flake,//; s/deploy-secrets,//; s/rebuild,//' "$hosts_list" | sort -u)
  set -- "$run"/*/hosts.*; [ $# = 1 ] || others=1
  case $called_with in *' -p '* | *' --parallel '*) others=1 ;; esac
  [ -n "$others" ] || return 0
  from='' up=$PWD; set --
  case ${TASK_FAILFAST-} in
    [1tT]*) from=TASK_FAILFAST ;;
    ?*) ;;
    *) while [ -n "$up" ]; do set -- "$@" "$up"; up=${up%/*}; done
      for place in "$@" "${HOME-}" "${XDG_CONFIG_HOME:-${HOME-}/.config}/task"; do
        for file in "$place"/.taskrc.yml "$place"/.taskrc.yaml "$place"/taskrc.yml; do ! grep -qs '^failfast: *true' "$file" || from=$file; done
      done ;;
  esac
  case $called_with in *' -F '* | *' --failfast '*) from=--failfast ;; esac
  [ -z "$from" ] || say "lollypops: $from is set: a task of your own that fails may stop the other hosts' tasks, and a deployment that fails the one beside it; task --failfast=false leaves them alone" >&2
}

# ---- who answers: all hosts are asked at once, but for a limit, by the login that their steps then share
ask_all() { # HOST[:PLAN]…
  slots=$run/slots.$$; mkfifo -- "$slots" && exec 7<>"$slots" || refuse "cannot make $slots"
  rm -f -- "$slots"; for slot in 1 2 3 4; do printf '\n\n\n\n\n\n\n\n' >&7; done
  many=$# askers=''
  while read -r one flags; do
    [ "$one" = "${1-}" ] || continue   # both are in one order
    shift
    case $one, in *:*deploy-flake,* | *:*deploy-secrets,* | *:*rebuild,*) ;; *:*) continue ;; esac
    read -r slot <&7; [ -z "$signal" ] || break
    (trap 'say >&7' EXIT; trap - INT TERM HUP; ask "$one" "$flags") </dev/null & askers="$askers $!"
  done <<EOF
$rows
EOF
  for asker in $askers; do [ -n "$signal" ] || wait "$asker"; done   # not for who watches
  # shellcheck disable=SC2046 # numbers
  [ -z "$signal" ] || kill $(below $$) 2>/dev/null
  exec 7>&-
}
ask() { # HOST[:PLAN] FLAGS: no step begins of one that does not answer
  host=${1%%:*} step=connect; read_mark; [ -z "$outcome" ] || return 0
  set +u; eval "set -- $2"; set -u   # go-task takes a variable that is not set for empty, too
  take_flags "$@"
  [ -z "$local" ] || return 0
  connect; now; host_began=$now
  if share; then
    # More of them than go-task will soon have use for.
    [ "$many" -le 64 ] || [ ! -S "$socket" ] || close_master "$socket"
    return 0
  fi
  set_marks; unreached
  # What a host that is there says when too many log in at once is for the step to find out.
  case $why in *'losed by '* | *'reset by '*) ;; *) explain_login; open_log; several=1; fail unreachable "${why:-ssh said nothing}" ;; esac
}

verb_wave() { # HOST[:PLAN]…: the next hosts begin only if these were deployed
  behind='' worst=0
  for one; do
    with_plan
    outcome_of "$one"
    case $outcome in deployed | unchanged) continue ;; esac
    behind="$behind${behind:+, }$host"; set_code
    case $worst/$code in */0 | 130/* | "$code/$code") ;; 0/* | */130) worst=$code ;; *) worst=1 ;; esac   # as `end`
  done
  [ -n "$behind" ] || return 0
  [ -e "$run/stop" ] || say "skipped hosts of a lower order were not deployed: $behind" >"$notes/instead.$name"
  say "lollypops: no more hosts begin, since these were not deployed: $behind" >&2
  [ "$worst" != 0 ] || worst=1; exit "$worst"
}

# Beside a run, a child of go-task's: who hears a signal while only tasks of the user's own run.
verb_awake() { while [ -e "$notes/hosts.$name" ] && [ -z "$signal" ] && [ ! -e "$run/stop" ] && alive "$run"; do sleep 1; done; }
verb_stop() { # all deployments of this user
  some=''
  for one in "$runs"/*-*; do
    [ "$one" != "$run" ] && ours "$one" && alive "$one" && say TERM >"$one/stop" && some="$some ${pid}" || :
  done
  if [ -n "$some" ]; then say "told to stop, and to tell what became of the hosts: go-task, process$some"
  else say "no deployment of yours is running"; fi
}

# ---- the end: what became of each host, told to people and machines
verb_end() {
  trap '' INT TERM HUP   # nor do its children hear them: whoever asked to stop is to be told
  in_run && [ -e "$notes/hosts.$name" ] || exit 0
  total=$(grep -c . "$notes/hosts.$name")
  settle_list; now; read -r began <"$notes/began.$name"
  close_masters
  [ "$(grep -c . "$told_file")" = "$total" ] || { say "lollypops: there is no room in $runs to tell what became of $total hosts" >&2; exit 1; }
  what=deployed${LOLLYPOPS_GUARD:+ without guard}
  case $REBUILD_ACTION in dry-activate | build) what="done with $REBUILD_ACTION" ;; esac
  if [ -n "$step" ]; then what="with $step done"; elif [ -n "$dry" ]; then what=shown; fi
  tell_people <"$told_file"
  [ "${GITHUB_ACTIONS-}" != true ] || tell_github <"$told_file"
  host=''; [ -z "$LOLLYPOPS_RESULTS" ] || [ -n "$dry" ] || [ "$step" = status ] || results '' <"$told_file"
  remember
  code=$(awk -F'\t' -v codes='deployed 0 unchanged 0 skipped 0 failed 1 rolled-back 3 unreachable 4 unknown 5 interrupted 130' '
    BEGIN { for (n = split(codes, word, " "); n > 0; n -= 2) code[word[n - 1]] = word[n] }
    # of several hosts the plainest; skipped with no host that is wrong is as asked
    code[$3] && (!got || code[$3] == 130) { got = code[$3] } code[$3] && code[$3] != got { got = got == 130 ? 130 : 1 } END { print got + 0 }' "$told_file")
  [ "$code" != 0 ] || [ ! -e "$notes/instead.$name" ] || code=1   # nobody asked for these to be skipped
  rm -f -- "$told_file" "$notes/began.$name" "$notes/fleet.$name" "$notes/instead.$name"
  exit "$code"
}
settle_list() { # of this name: it is over. $told_file has a line for each host, HOST STEP OUTCOME HUNDREDTHS MESSAGE, between tabs
  told_file=$notes/told.$name
  each_host settle_host "$notes/hosts.$name" >"$told_file"
  rm -f -- "$notes/hosts.$name"
}
settle_host() { outcome_of "$one"; printf '%s\t%s\t%s\t%s\t%s\n' "$host" "$at" "$outcome" "$took" "$why"; }
tell_people() { # of a host that is not as asked a line of its own
  colour=''; [ ! -t 1 ] || [ -n "${NO_COLOR-}" ] || [ "${TERM-}" = dumb ] || colour=1
  logs=$LOLLYPOPS_LOG_DIR awk -F'\t' -v what="$what" -v colour=$colour -v took=$((now - began)) -v again="$([ ! -e "$notes/fleet.$name" ] || [ -n "$dry" ] || say "${TASK%"${TASK##*:}"}retry")" '
    BEGIN { logs = ENVIRON["logs"]; github = ENVIRON["GITHUB_ACTIONS"] == "true" }
    function time(n) { return n < 6000 ? sprintf("%.1f s", n / 100) : sprintf("%d min %d s", n / 6000, n % 6000 / 100) }
    function paint(code, text) { return colour ? "\033[" code "m" text "\033[0m" : text }
    { total++; count[$3]++; if (!($3 in place)) { place[$3] = ++kinds; kind[kinds] = $3 }
      for (i = 3; i > 0 && $4 > slow[i]; i--) { slow[i + 1] = slow[i]; who[i + 1] = who[i] } ; slow[i + 1] = $4; who[i + 1] = $1 }
    $3 != "deployed" && $3 != "unchanged" {
      lines = lines "  " paint($3 == "skipped" ? 33 : 31, $1 ": " $3) " at " $2 ": " $5 (logs && $4 > 0 ? " (log: " logs "/" $1 ".log)" : "") "\n" }
    END {
      if (github) gsub(/##\[/, "## [", lines)   # which would be commands there
      same = count["unchanged"]; good = count["deployed"] + same
      for (i = 1; i <= kinds; i++) if (kind[i] != "deployed" && kind[i] != "unchanged") rest = rest (rest ? ", " : "; NOT done: ") count[kind[i]] " " kind[i]
      print paint(rest ? 1 : 32, good " of " total " hosts " what (same && what ~ /^deployed/ ? ", " same " of them unchanged" : "")) rest
      printf "%stook %s", lines, time(took)
      for (i = 1; i <= 3 && total > 1 && slow[i] > 0; i++) printf "%s%s %s", i == 1 ? "; slowest: " : ", ", who[i], time(slow[i])
      print (rest && again ? "; again: task " again : "")
    }'
}
