# shellcheck shell=sh
# A host's secrets: every command runs here first; one stream then carries all of them, or nothing does.
# Words: name=… begins a secret, then path= mode= owner= group= as= (who writes it) cmd=
# A value lives in a shell variable, as base64: variables lose NULs. It is never an argument, nor in a file here.
# shellcheck disable=SC2015,SC2034,SC2154

each_secret() { # DO WORD…: calls DO for each secret, its words in variables
  do=$1 n=0; shift
  for word; do
    case $word in
      name=*) [ $n = 0 ] || $do; n=$((n + 1)); name=${word#name=} path='' mode=0400 owner=root group='' as=root cmd='' ;;
      path=/*[!/] | mode=* | owner=* | group=* | as=* | cmd=*) eval "${word%%=*}=\${word#*=}" ;;
      *) refuse "deploy-secrets does not understand $word" ;;
    esac
  done
  [ $n = 0 ] || $do
}
show_secret() {
  set -- install -D -m "$mode" -o "$owner" ${group:+-g "$group"} /dev/stdin "$path"
  [ "$as" = root ] || set -- runuser -u "$as" -- "$@"
  quote_all "$@"; quote "${sudo:+$sudo }$quoted"; there=$quoted
  # What is more than one plain command would be cut by the pipe.
  case $cmd in *[\;\&\|\#\<\>"$nl"]* | *\\) quote "$cmd"; set -- "sh -c $quoted" ;; *) set -- "$cmd" ;; esac
  show "$1 | $ssh $ssh_opts $to $there"
}
fetch() { # runs the secret's command; with the words of this machine's user, terminal and locale
  unset value "value$n"   # one that was exported to us would stay exported
  value=$( { { LC_ALL=$locale sh -c -- "$cmd" 4>&- 3>&- || printf '!%s!' "$?" >&3; } | base64; } 3>&1) || fail failed "$name: base64 failed; nothing was sent"
  case $value in *!*!*)
    # By sed, since dash takes minutes for ${value#*!} on megabytes.
    fail failed "$name: its command ended with exit $(printf '%s' "$value" | sed -n 's/.*!\([0-9][0-9]*\)!.*/\1/p'); nothing was sent" ;;
  esac
  [ -n "$value" ] || fail failed "$name: its command printed nothing; nothing was sent"
  value=$value$nl
  eval "value$n=\$value"
  quote_all "$name" "$path" "$mode" "$owner" "$group" "$as" "${#value}"
  secrets="$secrets $quoted"
}
send_values() { # on stdin of the target program, after it
  i=0; while [ "$i" -lt "$n" ]; do i=$((i + 1)); [ $i = 1 ] || say .; eval "printf %s \"\$value$i\""; done
  say "E$mark"
}
verb_deploy_secrets() {
  secrets=''
  case $REBUILD_ACTION in dry-activate | build) only=compare ;; *) only='' ;; esac
  if [ -n "$dry" ] || [ -n "$verbose" ]; then each_secret show_secret "$@"; fi
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  each_secret fetch "$@"
  [ $n -gt 0 ] || { say "$step: none configured"; done_step; }
  # shellcheck disable=SC2317 # on_target calls it
  payload() { send_values; }
  eval "on_target secrets \"\$only\" $secrets"
  expect 'done'
  case $why in "0 changed"* | "0 would"*) say "$step: $why" ;; *) changed "$why" ;; esac
  done_step
}
