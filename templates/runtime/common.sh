# shellcheck shell=sh
# What every verb needs: words, messages, the variables of this run, and what is known of the run as a whole.
# Runs under any POSIX sh with POSIX utilities (and base64); arguments and variables are set by main.sh.
# shellcheck disable=SC2030,SC2031,SC2015,SC2034,SC2154

nl='
'
say() { printf '%s\n' "$*"; }
tell() { say "$*"; say "$*" >&9; }   # to the user, and to the host's log
# Wrong use: nothing has been done.
refuse() {
  [ -z "${run-}" ] || [ -z "$host$step" ] || mark failed "$*"
  tell "lollypops: ${host:+$host: }$*" >&2
  [ "$verb" != selected ] || exit 0   # its failure go-task tells with all of the environment; `begin` comes to the same
  finish 2
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
  case $1 in *[![:print:]]*) printable=$(printf '%s\n' "$1" | without_control | tr -d '\t\n') ;; esac
}
without_control() { tr -d '\000-\010\013-\037\177' | awk '{ gsub(/\302[\200-\237]/, ""); print }'; }   # nor those of UTF-8
set_neutral() { # $neutral, to $1 without what GitHub takes for commands, where it listens
  neutral=$1
  [ "${GITHUB_ACTIONS-}" = true ] || return 0
  while :; do case $neutral in *'##['*) neutral="${neutral%%'##['*}## [${neutral#*'##['}" ;; *) break ;; esac; done
  case ${neutral#"${neutral%%[#-~]*}"} in ::*) neutral=": ${neutral#"${neutral%%[#-~]*}:"}" ;; esac
}

# ---- the variables of a run: they come as one text, since `task x NAME=value` reaches no command's environment
settings='LP_REMOTE_HOST LP_REMOTE_USER LP_REMOTE_COMMAND LP_REMOTE_SSH_OPTS LP_REMOTE_SUDO_COMMAND LP_REMOTE_SUDO_OPTS REBUILD_ACTION SECRET LOLLYPOPS_SECRETS_IN_TURN LOLLYPOPS_GUARD LOLLYPOPS_DRY_RUN LOLLYPOPS_NOM LOLLYPOPS_FLAKE LOLLYPOPS_ANY_HOST LOLLYPOPS_RESULTS LOLLYPOPS_LOG_DIR LOLLYPOPS_TIMEOUT LOLLYPOPS_SKIP_UNREACHABLE TASK CLI_VERBOSE USER_WORKING_DIR TASKFILE TASKFILE_ID TASKFILE_DIR'
read_settings() { # lines NAME=value, just these and in this order
  { for setting in $settings; do
      IFS= read -r line; [ "${line%%=*}" = "$setting" ] || refuse "a variable of this run holds a line break: $line"
      eval "$setting=\${line#*=}"
    done
    ! IFS= read -r line || refuse "a variable of this run holds a line break: $line"; } <<EOF
$1
EOF
  for switch in LOLLYPOPS_DRY_RUN LOLLYPOPS_SECRETS_IN_TURN LOLLYPOPS_ANY_HOST LOLLYPOPS_NOM LOLLYPOPS_SKIP_UNREACHABLE; do
    eval "case \$$switch in 0) $switch='' ;; '' | 1) ;; *) refuse \"$switch is 1 or 0, not \$$switch\" ;; esac"
  done
  case $LOLLYPOPS_GUARD in 1) LOLLYPOPS_GUARD='' ;; '' | 0) ;; *) refuse "LOLLYPOPS_GUARD is 1 or 0, not $LOLLYPOPS_GUARD" ;; esac
  dry=$LOLLYPOPS_DRY_RUN verbose=$LOLLYPOPS_DRY_RUN
  [ "$CLI_VERBOSE" != true ] || verbose=1
  case $LOLLYPOPS_TIMEOUT in *[!0-9]* | 0* | ???????*) refuse "LOLLYPOPS_TIMEOUT is a number of seconds, not $LOLLYPOPS_TIMEOUT" ;; esac
  case ${REBUILD_ACTION:=switch} in
    switch | boot | test | dry-activate | build) ;;
    *) refuse "REBUILD_ACTION is switch, boot, test, dry-activate or build, not $REBUILD_ACTION" ;;
  esac
  [ -z "$USER_WORKING_DIR" ] || cd -- "$USER_WORKING_DIR" || exit 2
}
show() { [ -z "$verbose" ] || tell "+ $*" >&4; }   # a command, ready to paste

