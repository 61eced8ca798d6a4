# shellcheck shell=sh
# Where a system is built: evaluated here or on the target; built there, here or on a build host; brought to the target.
# shellcheck disable=SC2015,SC2034,SC2154

verb_build() { # its path is all that standard output gets
  [ -n "$dry" ] || exec 4>&2
  build_new
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  say "$new"; done_step
}
verb_diff() {
  [ -n "$dry" ] || exec 4>&2
  build_here
  exec 4>&1
  show_there '' "$nix_words store diff-closures /run/current-system $new${specialisation:+/specialisation/$specialisation}"
  [ -z "$dry" ] || { changed 'shown, not run'; done_step; }
  on_target diff "$new${specialisation:+/specialisation/$specialisation}"
  expect compared
  done_step
}

toplevel() { # of this host in flake $1, as one word
  quote "$1#$attribute.\"$host\".config.system.build.toplevel"
}
build_here() { build_new; bring; }   # sets $new, which the target then has
build_new() { # sets $new; it is where it was built
  case $local_evaluation$build_on in
    '') evaluate_there; return ;;
    1) set_drv; realise_there ;;
    1local) set_drv; realise_here ;;
    *) set_drv; on_builder realise_there ;;
  esac
}
show_evaluation() {
  quote "$config_dir/flake"
  show_there new= "$nix_words build --no-link --print-out-paths ${nix_opts:+$nix_opts }\"path:\$(readlink -f $quoted)${dir:+?dir=$dir}#$attribute.\\\"$host\\\".config.system.build.toplevel\""
}
evaluate_there() {
  find_source
  show_evaluation
  [ -z "$dry" ] || { new="\$new"; return; }
  eval "on_target build \"\$config_dir/flake\" \"\$source\" \"\${dir:+?dir=\$dir}\" \"\$attribute.\\\"\$host\\\"\" $nix_opts"
  set_new
}
set_new() { # to what was built there
  expect built
  case ${why#/nix/store/} in "$why" | *[!0-9A-Za-z+._?=-]*) fail failed "that is no store path: $why" ;; esac
  new=$why
}
realise_here() {
  show "new=\$($nix_words build --no-link --print-out-paths${nix_opts:+ $nix_opts} $drv^out)"
  [ -z "$dry" ] || { new="\$new"; return; }
  nix_build "$drv^out" || fail failed "${why:-nix build failed (its words are above)}"
  new=$outcome
}
realise_there() { # where ssh goes now; derivations come from anybody, so nobody need be trusted
  [ -z "$dry" ] || [ -n "$local" ] || show_copy "--derivation $drv"
  show_there new= "$nix_words build --no-link --print-out-paths${nix_opts:+ $nix_opts} $drv^out"
  [ -z "$dry" ] || { new="\$new"; return; }
  out=$(nix-store --query --binding out "$drv")
  eval "on_target build \"\$drv\" \"\$out\" $nix_opts"
  if [ "$outcome" = missing ]; then
    copy_to_target "--derivation $drv"
    eval "on_target build \"\$drv\" \"\$out\" $nix_opts"
  fi
  case $status$build_on in 255?*) fail failed "the build host: ${why:-ssh said nothing}" ;; esac   # which says nothing of the target
  set_new
}
nix_build() { # WORDS: here; its answer and its last words are in $outcome and $why
  set -- "build --no-link --print-out-paths $nix_opts $1"
  if [ -z "$LOLLYPOPS_NOM" ]; then ask_nix "$1"
  elif command -v nom >/dev/null; then ask_nix "$1 --log-format internal-json -v" 'nom --json >&2'
  else say "LOLLYPOPS_NOM: there is no nom on PATH; nix shows its own words" >&4; ask_nix "$1"; fi
}
bring() { # $new to the target. As root through sudo, the store there takes what nobody signed; no trusted user is needed.
  case $build_on$local in
    '' | 1 | local1) ;;   # it was built there
    local) if [ -n "$sudo" ] && [ -n "$password_command" ]; then import_to_target
      elif [ -n "$dry" ]; then show_copy "$new" "${sudo:+$sudo nix-store}"
      else copy_to_target "$new" "${sudo:+$sudo nix-store}"; fi ;;
    *) import_to_target ;;
  esac
}

# ---- a build host is reached as the user does, by ssh's configuration, with nothing of the target's but its ssh.command
on_builder() { # FUNCTION WORD…: there instead of on the target
  case $build_on in *@*) destination build-on "${build_on%%@*}" ;; esac
  destination build-on "${build_on#*@}"
  kept=''; for one in to store ssh ssh_opts sudo local password password_command host_key socket; do eval "quote \"\$$one\""; kept="$kept $one=$quoted"; done
  store=ssh://$build_on to=$build_on sudo='' local='' password='' password_command='' host_key='' socket=''
  case $to in *\]) to=${to%\]}; to=${to%%\[*}${to#*\[} ;; esac
  quote_all "$@"; words=$quoted
  eval "set -- ${ssh:-ssh}"
  quote "$1"; ssh=$quoted; shift
  quote_all "$@" -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3; ssh_opts=$quoted   # all that nix gets
  eval "$words"; set -- $?
  eval "$kept"
  return "$1"
}
run_there() { eval "$ssh $ssh_opts -T -- \"\$to\" \"\$1\""; }
where_built() { if [ "$build_on" = local ]; then eval "$1"; else on_builder run_there "$1"; fi; }
# What the target's store lacks of $new, from where it was built. `nix copy` has one NIX_SSHOPTS for both ends, and no password for sudo.
import_to_target() {
  if [ "$build_on" = local ]; then show "nix-store --export \$(nix-store --query --requisites $new) |"
  else on_builder show_there '' "nix-store --export \$(nix-store --query --requisites $new)"; fi
  show_there '' "nix-store --import   # of what that prints"
  [ -z "$dry" ] || return 0
  closure=$(where_built "nix-store --query --requisites $new" </dev/null) || fail failed "nix-store --query --requisites $new"
  # shellcheck disable=SC2086 # store paths
  on_target import '' $closure
  expect missing
  [ -n "$why" ] || return 0
  # Of this system, whatever else it asks for.
  missing=$(printf '%s\n' "$closure" '' "$why" | tr ' ' '\n' | awk '!asked { if (/./) ours[$0]; else asked = 1; next } $0 in ours')
  # shellcheck disable=SC2317,SC2016 # on_target calls it
  payload() { printf '%s\n' "$missing" | where_built "sh -c 'nix-store --export \$(cat)'"; }
  on_target import import
  expect imported
  # shellcheck disable=SC2317
  payload() { :; }
}

# ---- evaluation here, of one host or of several before a deployment of them
set_drv() { # to the system's derivation, which `prebuild` may have noted
  toplevel "$flake"
  show "drv=\$($nix_words path-info --derivation${nix_opts:+ $nix_opts} $quoted)"
  if [ -n "$dry" ]; then drv="\$drv"; return; fi
  ! noted broken || fail failed "$note"
  if noted drv && [ -e "$note" ]; then drv=$note; else evaluate || fail failed "$why"; fi
}
evaluate() { # sets $drv, or $why it cannot
  toplevel "$flake"
  ask_nix "path-info --derivation $nix_opts $quoted" || { why=${why:-nix path-info of $flake failed}; return 1; }
  case $outcome in /nix/store/*.drv) drv=$outcome ;; *) why="nix path-info told no derivation: $outcome $why"; return 1 ;; esac
}
note() { printf '%s\n' "$2" "$flake $attribute $nix_opts" >"$notes/$1.$host"; }   # another Taskfile may run beside this one
noted() { # sets $note to what is known of this host
  in_run && [ -e "$notes/$1.$host" ] || return 1
  { IFS= read -r note; IFS= read -r of; } <"$notes/$1.$host"
  [ "$of" = "$flake $attribute $nix_opts" ]
}
verb_prebuild() { # HOST[=target|=DEST]…, or of these just those that stand before a `--`: HOST[:STEP,…]… -- HOST[=target|=DEST]…
  case $step$dry in '' | rebuild | build | diff) ;; *) exit 0 ;; esac
  make_run; unless_asked_to_stop
  watch; trap unwatch EXIT
  set -f; chosen=all
  case " $* " in *' -- '*)
    chosen=''
    while [ "$1" != -- ]; do case ${1#*:}, in "$1," | rebuild,* | *,rebuild,*) chosen="$chosen ${1%%:*} " ;; esac; shift; done; shift ;;
  esac
  for one; do
    shift; case $chosen in all | *" ${one%%=*} "*) rm -f -- "$notes/drv.${one%%=*}" "$notes/broken.${one%%=*}"; set -- "$@" "$one" ;; esac
  done
  # 1.5 GiB a host
  many=$(awk '$1 == "MemAvailable:" { n = int($2 / 1572864); print (n < 1 ? 1 : n > 8 ? 8 : n) }' /proc/meminfo 2>/dev/null)
  while [ $# -gt 0 ]; do
    chunk=''; i=${many:-4}
    while [ $# -gt 0 ] && [ "$i" -gt 0 ]; do chunk="$chunk $1" i=$((i - 1)); shift; done
    # shellcheck disable=SC2086 # names
    { evaluate_chunk $chunk; build_chunk $chunk; }
  done
  exit 0
}
unless_asked_to_stop() { [ -z "$signal" ] && [ ! -e "$run/stop" ] || exit 130; }
evaluate_chunk() {
  names='' words=''
  for one; do host=${one%%=*} names="$names ${one%%=*}"; toplevel "$flake"; words="$words $quoted"; done
  say "evaluating$names" >&4
  # In the order of the hosts, as neither path-info nor a build that is not dry has them; without the list of what would be built.
  if [ $# -gt 1 ] && ask_nix "build --dry-run --json $nix_opts$words" without_list; then
    drvs=$(printf '%s\n' "$outcome $why" | field drvPath | grep '^/nix/store/.*\.drv$')
    if [ "$(printf '%s\n' "$drvs" | grep -c .)" = $# ]; then
      for one; do host=${one%%=*}; note drv "${drvs%%"$nl"*}"; drvs=${drvs#*"$nl"}; done
      return
    fi
  fi
  for one; do
    unless_asked_to_stop
    host=${one%%=*}
    if evaluate; then note drv "$drv"; else unless_asked_to_stop; note broken "$why"; fi
  done
}
without_list() { while IFS= read -r line; do case $line in '  /nix/store/'* | *' will be built:' | *' will be fetched '*) ;; *) printf '%s\n' "$line" ;; esac; done; }
build_chunk() { # what is to be built here
  words='' hosts=''
  for one; do case $one in *=*) ;; *) host=$one; ! noted drv || words="$words $note^out" hosts="$hosts $one" ;; esac; done
  unless_asked_to_stop
  [ -n "$words" ] || return 0
  ! nix_build "--keep-going$words" || return 0
  unless_asked_to_stop
  said=$why failed=''
  for host in $hosts; do noted drv; nix-store --check-validity "$(nix-store --query --binding out "$note")" 2>/dev/null || failed="$failed $host"; done
  case ${failed# } in *' '*) said='' ;; esac   # whose words are they?
  for host in $failed; do
    noted drv; why=$said
    [ -z "$said" ] && nix_build "$note^out" || { unless_asked_to_stop; note broken "${why:-nix build failed (its words are above)}"; }
  done
}
