# shellcheck shell=sh
# On the target: CONFIG-DIR SOURCE PATH… makes CONFIG-DIR/flake a link to SOURCE that garbage collection respects,
# once all PATHs are in the store. Answers linked, unchanged or missing.
# shellcheck disable=SC2154
main() {
  answer here
  dir=$1 source=$2; shift 2
  nix-store --check-validity "$source" "$@" 2>/dev/null || { answer missing; return; }
  if [ "$(readlink -- "$dir/flake")" = "$source" ] && rooted; then answer unchanged; return; fi
  if [ "$(id -u)" = 0 ]; then make_directory "$dir" "$dir/flake"; else mkdir -p -- "$dir"; fi
  nix-store --realise "$source" --add-root "$dir/flake" --indirect >/dev/null || give_up "cannot make $dir/flake"
  answer linked
}
rooted() { # nix keeps a link of its own to the root
  find /nix/var/nix/gcroots/auto -type l -printf '%l\n' 2>/dev/null | grep -Fqx -- "$dir/flake"
}
