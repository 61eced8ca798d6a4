# shellcheck shell=sh
# Which hosts: those that `deploy` or `retry` asks for, and what `retry` needs to know: in a file for each fleet, lines HOST OUTCOME.
# shellcheck disable=SC2015,SC2034,SC2154

set_memory() { memory=$runs/last.$(checksum "$1"); }
remember() { # the first deployment of several hosts in a run is remembered instead of what was before, others beside it
  [ -e "$notes/fleet.$name" ] || return 0
  read -r of <"$notes/fleet.$name"; set_memory "$of"
  for try in 1 2 3 4 5 6 7 8 9 10; do ! mkdir "$memory.lock" 2>/dev/null || break; sleep 0.1; done   # one that was left is broken
  beside=''; [ ! -e "$notes/remembered" ] || beside=1
  { awk -F'\t' '{ print $1, $3 }' "$told_file"
    case $(grep -c . "$told_file")/$name/$beside in 1/* | */retry/* | *:retry/* | */*/?*) [ ! -e "$memory" ] ||
      awk -F'[\t ]' 'NR == FNR { now[$1]; next } !($1 in now)' "$told_file" "$memory" ;; esac; } >"$memory.$$"
  mv -- "$memory.$$" "$memory"; : >"$notes/remembered"
  rmdir -- "$memory.lock" 2>/dev/null
}
remember_all() { # what became of a run that was killed
  for list in "$run"/*/fleet.*; do
    notes=${list%/*} name=${list##*/fleet.}
    [ ! -e "$notes/hosts.$name" ] || { settle_list; remember; }
  done
}
choose_undone() { # narrows $hosts to those that were not deployed
  set_memory "$fleet"
  [ -e "$memory" ] || choose_none "nothing is known of an earlier deployment of this fleet on this machine; task deploy-all deploys every host"
  hosts=$(say "$hosts" | tr ' ' '\n' | awk '
    NR == FNR { if ($2 != "deployed" && $2 != "unchanged") undone[$1]; next } { split($0, part, ":") } $0 == "/" || part[1] in undone' "$memory" -)
}
nothing_to_do() { : >"$notes/nothing"; say "lollypops: nothing to do again: no host that was asked for is known as not deployed" >&2; }

# shellcheck disable=SC2254 # a selector is a pattern
matches() { # does host $1 match the selector $2? $groups holds "@group=host,host" words
  case $2 in
    @*) for word in $groups; do
        case ${word%%=*} in $2) case ,${word#*=}, in *",$1,"*) return 0 ;; esac ;; esac
      done; return 1 ;;
    *) case $1 in $2) return 0 ;; esac; return 1 ;;
  esac
}
choose_none() { # WHY: `begin` gets no host then, and refuses
  say "lollypops: $1" >&2
  picked=''; for one in $hosts; do [ "$one" != / ] || picked="$picked /"; done
  say "$picked"; exit 0
}
verb_selected() { # SELECTOR…, and on stdin HOST… and @GROUP=HOST,…: prints the hosts selected; on an error nothing, and says why
  retry=''; case $TASK in retry | *:retry) retry=1; make_run ;; esac
  set -f   # not before: the sweep needs its patterns
  hosts='' groups=''
  words=$(cat); for word in $words; do case $word in @*) groups="$groups $word" ;; *) hosts="$hosts $word" ;; esac; done
  [ -z "$retry" ] || { everyone=$hosts; choose_undone; }
  [ $# -gt 0 ] || [ -n "$retry" ] || choose_none "say which hosts, as in: task deploy -- web1 '@web' '!web2'"
  only='!'; for selector; do case $selector in !*) ;; *) only='' ;; esac; done
  picked=''
  for one in $hosts; do
    take=$only
    [ "$one" != / ] || { picked="$picked /"; continue; }
    for selector; do case $selector in !*) ;; *) ! matches "${one%%:*}" "$selector" || take=1 ;; esac; done
    for selector; do case $selector in !*) ! matches "${one%%:*}" "${selector#!}" || take='' ;; esac; done
    [ -z "$take" ] || picked="$picked $one"
  done
  for selector; do
    some=''; for one in ${everyone:-$hosts}; do ! matches "${one%%:*}" "${selector#!}" || some=1; done
    [ -n "$some" ] || choose_none "no host or group matches '$selector' (task --list shows them)"
  done
  case $retry${picked#"${picked%%[! /]*}"} in
    '') choose_none "these selectors leave no host: $*" ;;
    1) nothing_to_do ;;
  esac
  say "${picked# }"
}
