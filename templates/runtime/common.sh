# shellcheck shell=sh
# What every verb needs: words, messages, the variables of this run, and what is known of the run as a whole.
# Runs under any POSIX sh with POSIX utilities (and base64); arguments and variables are set by main.sh.
# shellcheck disable=SC2015,SC2034,SC2154

nl='
'
say() { printf '%s\n' "$*"; }
# Wrong use: nothing has been done.
refuse() {
  [ -z "${run-}" ] || [ -z "$step" ] || mark failed "$*"
  printf '%s\n' "lollypops: ${host:+$host: }$*" >&2
  exit 2
}

quote() { # sets $quoted to $1 as one word of shell, bare where it can be
  case $1 in
    '' | *[!A-Za-z0-9_@%+=:,./-]*) ;;
    *) quoted=$1; return ;;
  esac
  quoted='' rest=$1
  while :; do case $rest in *\'*) quoted=$quoted${rest%%\'*}"'\\''" rest=${rest#*\'} ;; *) break ;; esac; done
  quoted="'$quoted$rest'"
}
quote_all() { # sets $quoted to all words of $@, each quoted
  all=''
  for piece; do quote "$piece"; all="$all $quoted"; done
  quoted=${all# }
}
split() { # sets $quoted to the words of $2, split by shell quoting rules and never evaluated; $1 says where it is from
  left=$2 inside='' piece='' begun='' list=''
  while [ -n "$left" ]; do
    next=${left#?}; char=${left%"$next"} left=$next
    case $inside$char in
      [\'\"]) inside=$char begun=1; continue ;;
      \'\' | \"\") inside=''; continue ;;
      \\ | \"\\) # kept inside double quotes, unless what follows is special there
        [ -n "$left" ] || { inside=unfinished; break; }
        next=${left#?}; char=${left%"$next"} left=$next
        case $inside$char in \"[\"\$\`] | \"\\) ;; \"?*) piece=$piece\\ ;; esac ;;
      [[:space:]]) [ -z "$begun" ] || { quote "$piece"; list="$list $quoted"; }; piece='' begun=''; continue ;;
    esac
    piece=$piece$char begun=1
  done
  [ -z "$inside" ] || refuse "$1 has an unfinished quote: $2"
  [ -z "$begun" ] || { quote "$piece"; list="$list $quoted"; }
  quoted=${list# }
}
set_marks() { # $mark and $gate to random words
  mark='' gate=''
  for byte in $(od -An -N32 -tx1 /dev/urandom); do
    if [ ${#mark} -lt 32 ]; then mark=$mark$byte; else gate=$gate$byte; fi
  done
  [ ${#gate} = 32 ] || refuse "od and /dev/urandom gave no random words"
}
checksum() { # of $1; not every busybox has cksum
  printf %s "$1" | od -An -tu1 -v | awk '{ for (i = 1; i <= NF; i++) sum = (sum * 131 + $i) % 4294967291 } END { printf "%.0f", sum }'
}
set_printable() { # $printable, to $1 without control characters
  printable=$1
  case $1 in *[![:print:]]*) printable=$(printf '%s' "$1" | tr -d '\000-\037\177') ;; esac
}

# ---- the variables of a run: they come as one text, since `task x NAME=value` reaches no command's environment
settings='LP_REMOTE_HOST LP_REMOTE_USER LP_REMOTE_COMMAND LP_REMOTE_SSH_OPTS LP_REMOTE_SUDO_COMMAND LP_REMOTE_SUDO_OPTS REBUILD_ACTION SECRET LOLLYPOPS_SECRETS_IN_TURN LOLLYPOPS_GUARD LOLLYPOPS_DRY_RUN LOLLYPOPS_NOM LOLLYPOPS_FLAKE LOLLYPOPS_ANY_HOST LOLLYPOPS_RESULTS TASK CLI_VERBOSE USER_WORKING_DIR TASKFILE TASKFILE_DIR'
read_settings() { # lines NAME=value, just these and in this order
  { for setting in $settings; do
      IFS= read -r line; [ "${line%%=*}" = "$setting" ] || refuse "a variable of this run holds a line break: $line"
      eval "$setting=\${line#*=}"
    done
    ! IFS= read -r line || refuse "a variable of this run holds a line break: $line"; } <<EOF
$1
EOF
  for switch in LOLLYPOPS_DRY_RUN LOLLYPOPS_SECRETS_IN_TURN LOLLYPOPS_ANY_HOST LOLLYPOPS_NOM; do
    eval "case \$$switch in 0) $switch='' ;; '' | 1) ;; *) refuse \"$switch is 1 or 0, not \$$switch\" ;; esac"
  done
  case $LOLLYPOPS_GUARD in 1) LOLLYPOPS_GUARD='' ;; '' | 0) ;; *) refuse "LOLLYPOPS_GUARD is 1 or 0, not $LOLLYPOPS_GUARD" ;; esac
  dry=$LOLLYPOPS_DRY_RUN verbose=$LOLLYPOPS_DRY_RUN
  [ "$CLI_VERBOSE" != true ] || verbose=1
  [ -z "$LOLLYPOPS_RESULTS" ] || began=$(date +%s)
  case ${REBUILD_ACTION:=switch} in
    switch | boot | test | dry-activate | build) ;;
    *) refuse "REBUILD_ACTION is switch, boot, test, dry-activate or build, not $REBUILD_ACTION" ;;
  esac
  [ -z "$USER_WORKING_DIR" ] || cd -- "$USER_WORKING_DIR" || exit 2
}
show() { [ -z "$verbose" ] || printf '%s\n' "+ $*" >&4; }   # a command, ready to paste

# ---- the run: a directory named by go-task's pid and start time, made by `begin`, swept by the next run
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
  run=$runs/$PPID-$(born $PPID)
}
ours() { [ -d "$1" ] && [ -O "$1" ] && [ ! -L "$1" ]; }
in_run() { ours "$runs" && ours "$run"; }   # what somebody else made does not count
make_run() { in_run || { mkdir -p -- "$run" && in_run || refuse "cannot keep notes in $runs"; sweep; }; }
mark() { # what became of this host, for `end`: OUTCOME STEP WORDS
  in_run || return 0
  set_printable "$2"; printf '%s\n' "$1 $step $printable" >"$run/host.$host"
}

# ---- how a step ends: 0 deployed or unchanged, 1 failed, 3 rolled back, 4 unreachable, 5 unknown, 130 interrupted
changed() { in_run && : >"$run/changed.$host"; say "$step: $*"; }
done_step() { mark ok ''; exit 0; }
fail() { # OUTCOME WORDS
  outcome=$1; shift
  [ -z "$signal" ] || { outcome=interrupted; set -- "by SIG$signal${*:+; $*}"; }
  mark "$outcome" "$*"
  printf '%s\n' "$host: $step $outcome: $*" >&2
  case $outcome in failed) exit 1 ;; rolled-back) exit 3 ;; unreachable) exit 4 ;; interrupted) exit 130 ;; *) exit 5 ;; esac
}
on_signal() { signal=$1; ! in_run || : >"$run/stop"; }
called_by_name() { # go-task reads names as regular expressions
  case $called in '' | "$host" | "$host:"* | *":$host" | *":$host:"*) ;; *) refuse "$called is not the name of a task" ;; esac
}
unless_stopped() { # after an interruption nothing new starts
  in_run && [ -e "$run/stop" ] || return 0
  [ -e "$run/host.$host" ] || mark interrupted 'before it began'
  exit 130
}
