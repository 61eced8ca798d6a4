# shellcheck shell=sh
# A host's secrets: every command runs here first; one stream then carries all of them, or nothing does.
# Words: name=… begins a secret, then path= mode= owner= group= as= (who writes it) when= restart= reload= empty= initrd= cmd=
# A value lives in a shell variable, as base64: variables lose NULs. It is never an argument, nor in a file here.
# shellcheck disable=SC2015,SC2016,SC2034,SC2154

each_secret() { # DO WORD…: calls DO for each secret that SECRET asks for, its words in variables
  do=$1 n=0 name=''; shift
  for word; do
    case $word in
      name=*) one_secret; name=${word#name=} path='' mode=0400 owner=root group='' as=root when='' restart='' reload='' empty='' initrd='' cmd='' ;;
      path=/*[!/] | mode=* | owner=* | group=* | as=* | when=after | restart=* | reload=* | empty=1 | initrd=1 | cmd=*)
        eval "${word%%=*}=\${word#*=}" ;;
      *) refuse "deploy-secrets does not understand $word" ;;
    esac
  done
  one_secret
}
one_secret() {
  case ",$SECRET," in ,, | *",$name,"*) [ -z "$name" ] || { n=$((n + 1)); $do; } ;; esac
}
known_secrets() { # refuses a name in SECRET that none of the words $@ has, with those that resemble it most
  wanted=$SECRET,
  while [ -n "$wanted" ]; do
    one=${wanted%%,*} wanted=${wanted#*,} found='' names=''
    for word; do case $word in "name=$one") found=1 ;; name=*) names=$names${word#name=}$nl ;; esac; done
    [ -n "$found" ] || refuse "SECRET: there is no secret $one${names:+; there is $(printf %s "$names" | nearest "$one")}"
  done
}
nearest() { # three of the names on stdin, those that it takes the fewest changes to make of $1
  awk -v a="$1" '{
    for (j = 0; j <= length($0); j++) d[0, j] = j
    for (i = 1; i <= length(a); i++) {
      d[i, 0] = i
      for (j = 1; j <= length($0); j++) {
        d[i, j] = d[i - 1, j - 1] + (substr(a, i, 1) != substr($0, j, 1))
        if (d[i - 1, j] < d[i, j]) d[i, j] = d[i - 1, j] + 1
        if (d[i, j - 1] < d[i, j]) d[i, j] = d[i, j - 1] + 1
      }
    }
    print d[length(a), length($0)], $0
  }' | sort -n | sed -n '1,3{s/^[0-9]* //;H;};${x;s/\n//;s/\n/, /g;p;}'
}
show_secret() {
  set -- install -D -m "$mode" -o "$owner" ${group:+-g "$group"} /dev/stdin "$path"
  [ "$as" = root ] || set -- runuser -u "$as" -- "$@"
  quote_all "$@"; there="${sudo:+$sudo }$quoted"
  [ -n "$local" ] || { quote "$there"; there="$ssh $ssh_opts $to $quoted"; }
  # What is more than one plain command would be cut by the pipe.
  case $cmd in *[\;\&\|\#\<\>"$nl"]* | *\\) quote "$cmd"; set -- "sh -c $quoted" ;; *) set -- "$cmd" ;; esac
  [ -z "$sudo" ] || [ -z "$password_command" ] || set -- "{ $password_command; $1; }"
  show "$1 | $there"
}
fetch() { (trap - PIPE; LC_ALL=$locale exec sh -c -- "$cmd" 4>&- 3>&- 8>&- 9>&-); }   # with the words of this machine's user, terminal and locale
check() {
  take_turn
  value=$( { { fetch || printf '!%s!' "$?" >&3; } | base64; } 3>&1)
  case $value in
    *!*!*) missing="$missing$nl  $name: its command ended with exit $(printf '%s\n' "$value" | sed -n 's/.*!\([0-9]*\)!.*/\1/p')" ;;
    '') [ -n "$empty" ] || missing="$missing$nl  $name: its command printed nothing" ;;
    *) end_first ;;
  esac
  unset value
}
list_one() { # for the target
  quote_all "$name" "$path" "$mode" "$owner" "$group" "$as" "${when:-before}" "$restart" "$reload" "$initrd" "$empty"
  secrets="$secrets $quoted"
  eval "name$n=\$name"
}
print_one() { # its value and the mark, or on descriptor 3 what is wrong
  fetch || { printf '!%s!%s!' "$?" "$n" >&3; exit; }
  printf %s "$mark"
  end_first
}
# All values in one variable. One process encodes them: one for each takes longer than ssh.
gather() { # WORD…: sets $values, marked by $mark
  take_turn
  unset values
  values=$({ { each_secret print_one "$@"; printf end; } | base64; } 3>&1) || { [ -n "$signal" ] && why='' || why="base64 failed; "; fail failed "${why}nothing was sent"; }
  case $values in *!*!*)
    # By sed, since dash takes minutes for ${values#*!} on megabytes.
    failure=$(printf '%s\n' "$values" | sed -n 's/.*!\([0-9]*\)!\([0-9]*\)!.*/\1 \2/p'); unset values
    eval "name=\$name${failure#* }"
    fail failed "$name: its command ended with exit ${failure% *}; nothing was sent" ;;
  esac
  values=$values$nl
  end_turn
}
verb_secrets() { # deploy-secrets and check-secrets: which, is told by the name of the task
  [ -z "$SECRET" ] || known_secrets "$@"
  if [ "$step" = check-secrets ]; then check_secrets "$@"; fi
  secrets='' only='' waits='' later=''
  case $REBUILD_ACTION in dry-activate | build) only=compare ;; esac
  # What the whole deployment of the host goes on with.
  if [ -n "$rebuild" ] && whole; then waits=1; case $REBUILD_ACTION in switch | test) later=1 ;; esac; fi
  [ -z "$SECRET" ] || prune=''
  if [ -n "$verbose" ]; then each_secret show_secret "$@"; fi
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  [ "$asked" != reboot ] || secrets_there "$@"
  each_secret list_one "$@"
  [ $n -gt 0 ] || [ -n "$prune" ] || { tell "$step: none configured"; done_step; }
  set_marks; gather "$@"
  # shellcheck disable=SC2317 # on_target calls it
  payload() { printf %s "$values"; }
  eval "on_target secrets \"\$only\" \"\$later\" \"\$waits\" \"\$prune\" \"\${run##*/}\" $secrets"
  # Nobody here knows whether the target had all of it by then.
  [ "$outcome" != here ] || [ -n "$only" ] || { outcome=unknown why="the connection ended early, so the secrets are the old or the new ones${why:+: $why}"; }
  expect 'done'
  case $why in *" to come after the activation"*) : >"$notes/after.$host" ;; *) [ ! -e "$notes/after.$host" ] || rm -f -- "$notes/after.$host" ;; esac
  case $why in *removed*) changed "$why" ;; "0 changed, "* | "0 would"*) tell "$step: $why" ;; *) changed "$why" ;; esac
  done_step
}
check_secrets() {
  if [ -n "$dry" ]; then each_secret show_check "$@"; changed 'shown, not run'; done_step; fi
  missing=''; each_secret check "$@"; end_turn
  [ -z "$missing" ] || fail failed "$(printf %s "$missing" | grep -c .) of $n secrets are missing:$missing"
  tell "$step: $n of $n secrets are there"; done_step
}
show_check() { show "$cmd"; }
