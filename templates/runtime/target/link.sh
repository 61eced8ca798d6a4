# shellcheck shell=sh
# On the target: host=… any=… CONFIG-DIR SOURCE PATH… makes CONFIG-DIR/flake a link to SOURCE that garbage collection respects,
# once all PATHs are in the store. Answers linked, unchanged or missing, or other (right_machine).
# shellcheck disable=SC2154
main() {
  answer here
  right_machine "${1#host=}" "${2#any=}"
  dir=$3 source=$4; shift 4
  is_root=''; [ "$(readlink -- "$dir/flake")" != "$source" ] || ! rooted || is_root=1
  # What a root keeps is there.
  [ "$is_root$*" = "1$source" ] || nix-store --check-validity "$source" "$@" 2>/dev/null || { answer missing; return; }
  if [ -n "$is_root" ]; then answer unchanged; return; fi
  if [ "$(id -u)" = 0 ]; then make_directory "$dir" "$dir/flake"; else mkdir -p -- "$dir"; fi
  nix-store --realise "$source" --add-root "$dir/flake" --indirect >/dev/null || give_up "cannot make $dir/flake"
  answer linked
}
rooted() { # nix keeps a link of its own to the root
  find /nix/var/nix/gcroots/auto -type l -printf '%l\n' 2>/dev/null | grep -Fqx -- "$dir/flake"
}
