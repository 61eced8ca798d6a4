# shellcheck shell=sh
# Builds on this machine, and their way to the target.
# shellcheck disable=SC2015,SC2034,SC2154

build_here() { # sets $new, and copies it to the target
  toplevel "$flake"
  show "new=\$($nix_words build --no-link --print-out-paths${nix_opts:+ $nix_opts} $quoted)"
  if [ -n "$dry" ]; then new="\$new"
  else
    new=$(eval "nix build --no-link --print-out-paths $nix_opts $quoted" 2>&4) || fail failed "nix build of $flake (its words are above)"
    case $new in /nix/store/*) ;; *) fail failed "nix build told no store path: $new" ;; esac
  fi
  # As root through sudo, the store there takes what nobody signed; no trusted user is needed.
  if [ -n "$local" ]; then :
  elif [ -n "$sudo" ] && [ -n "$password_command" ]; then import_to_target "$new"
  elif [ -n "$dry" ]; then show_copy "$new" "${sudo:+$sudo nix-store}"
  else copy_to_target "$new" "${sudo:+$sudo nix-store}"; fi
}
