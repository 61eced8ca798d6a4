# shellcheck shell=sh
# The flake: its source here, what it needs from the store, and its copy on a target.
# shellcheck disable=SC2015,SC2034,SC2154

nix() { command nix --extra-experimental-features 'nix-command flakes' "$@"; }
nix_words="nix --extra-experimental-features 'nix-command flakes'"
# shellcheck disable=SC2020 # three characters, each to a line break
field() { tr ',{}' '\n\n\n' | sed -n 's/^ *"'"$1"'" *: *"\(.*\)" *$/\1/p'; }   # of JSON on stdin, one a line

prefetch() { # sets $source to the flake's own store path, and $dir to its directory in there
  show_prefetch
  # shellcheck disable=SC2086 # quoted words
  json=$(eval "nix flake prefetch --json $nix_opts $flake_q") || return 1
  first storePath; source=$value
  first dir; dir=$value
  case $source in /nix/store/*) ;; *) say "nix flake prefetch told no store path: $json" >&2; return 1 ;; esac
}
first() { # sets $value to the first of this name in $json, or to nothing
  case $json in *"\"$1\""*) value=${json#*"\"$1\""}; value=${value#*\"}; value=${value%%\"*} ;; *) value='' ;; esac
}
show_prefetch() {
  show "src=\$($nix_words flake prefetch --json${nix_opts:+ $nix_opts} $flake_q | sed 's/.*\"storePath\":\"\([^\"]*\)\".*/\\1/')"
}
find_source() { # the same for all hosts of a run; where it has no beginning, for all of a host's deployment
  if [ -n "$dry" ]; then show_prefetch; source="\$src" dir=''; return; fi
  if in_run && [ -e "$notes/source" ]; then { read -r source; read -r dir || :; } <"$notes/source"; return; fi
  kept='' of="$flake $nix_opts"   # another Taskfile may run beside this one
  ! whole || kept=$notes/source.$host
  if [ "$step" != deploy-flake ] && in_run && [ -e "$kept" ]; then
    { read -r source; read -r dir; IFS= read -r one; } <"$kept"; [ "$one" != "$of" ] || return 0
  fi
  prefetch || fail failed "nix flake prefetch of $flake"
  [ "$step" != deploy-flake ] || [ -z "$kept" ] || { make_run; say "$source$nl$dir$nl$of" >"$kept"; }
}
verb_source() { exec 4>&2; find_source; say "$source"; }   # standard output is the answer

# What the commands of a step refer to in the store was evaluated, but perhaps never built.
realise() {
  drvs='' paths=''
  for one in $needs; do
    [ ! -e "${one%%=*}" ] || continue
    drv=${one#*=}
    if [ "$drv" != "$one" ] && [ -e "${drv%^*}" ]; then quote "$drv"; drvs="$drvs $quoted"; else paths="$paths ${one%%=*}"; fi
  done
  [ -z "$drvs" ] || run_nix "build --no-link$drvs"
  [ -z "$paths" ] || { show "nix-store --realise$paths"
    # shellcheck disable=SC2086 # store paths
    [ -n "$dry" ] || nix-store --realise $paths >/dev/null || fail failed "cannot get$paths; generate the Taskfile again on this machine"; }
}
run_nix() { # one nix command, as quoted words, and what stands before it; ends the step if it fails, with its last words
  show "${2-}$nix_words $1"
  [ -z "$dry" ] || return 0
  ask_nix "$1" || fail failed "${why:-nix ${1%% *} failed}"
}
ask_nix() { # the same, without that: the last line of its output is in $outcome and $why, or else its last words in $why; $2 shows its words
  set_marks
  heard=$({ { { eval "nix $1" 2>&1 >&5 </dev/null; printf 'exit %s\n' $? >&5; } | eval "${2:-cat}" >&6; } 5>&1 | sed "s/^/$mark /"; } 6>&1 | hear)
  told "$heard"
  [ "$status" = 0 ]
}

copied() { # sets $paths to what a target needs: the source, and with `archive` its inputs
  paths=$source
  case $method in
    auto) lock=$source/${dir:+$dir/}flake.lock
      # Inputs that may exist only here: paths, files, and git over ssh.
      ! grep -Eq '"type": *"(path|file)"|"url": *"(git\+)?(ssh|file):|"url": *"[^"/:]+@' "$lock" 2>/dev/null || method=archive ;;
  esac
  [ "$method" = archive ] || return 0
  # shellcheck disable=SC2086 # quoted words
  quote "path:$source${dir:+?dir=$dir}"   # of this very source, which may differ from the flake by now
  json=$(eval "nix flake archive --json $nix_opts $quoted") || fail failed "nix flake archive of $flake"
  paths=$(printf '%s\n' "$source" "$(printf '%s' "$json" | field path)" | sort -u)
}
verb_deploy_flake() {
  find_source
  quote "$config_dir/flake"; link=$quoted
  if [ -n "$dry" ]; then
    [ "$method" = copy ] || show "$nix_words flake archive --json $flake_q   # its paths are copied as well"
    [ -n "$local" ] || show_copy "$source"
    show_there '' "nix-store --realise $source --add-root $link --indirect"
    changed 'shown, not run'; done_step
  fi
  copied
  # shellcheck disable=SC2086 # store paths
  set -- "$config_dir" "$source" $paths
  show_there '' "nix-store --realise $source --add-root $link --indirect"
  on_its_machine link "$@"
  if [ "$outcome" = missing ]; then
    copy_to_target "$paths"
    on_its_machine link "$@"
    [ "$outcome" != missing ] || fail failed "the copy did not bring all that is needed"
  fi
  expect linked unchanged
  case $outcome in linked) changed "$config_dir/flake -> $source" ;; *) tell "$step: unchanged" ;; esac
  done_step
}

copy_words() { # nix copy of $1; $2: what serves the store there, if not the login itself
  case ${2-} in *[\&#%?]*) refuse "sudo's words may not hold & # % or ?: nix would read them as parts of the store's address" ;; esac
  quote "$ssh_opts"; sshopts=$quoted
  case $1 in
    --derivation*) quote "ssh-ng${store#ssh}"; words=copy ;;   # thousands that nobody substitutes: ssh:// would take a minute
    *) quote "$store${2:+?remote-program=$2}"; words='copy --substitute-on-destination' ;;
  esac
  words="$words --to $quoted $1"
}
show_copy() { copy_words "$1" "${2-}"; show "NIX_SSHOPTS=$sshopts $nix_words $words"; }
copy_to_target() { # PATHS [REMOTE-PROGRAM]
  [ -z "$local" ] || return 0
  copy_words "$(printf '%s' "$1" | tr '\n' ' ')" "${2-}"
  with_ssh run_nix "$words" "NIX_SSHOPTS=$sshopts "
}
