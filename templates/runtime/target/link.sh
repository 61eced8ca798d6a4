# shellcheck shell=sh
# On the target: CONFIG-DIR SOURCE PATH… makes CONFIG-DIR/flake a link to SOURCE that garbage collection respects,
# once all PATHs are in the store. Answers linked, unchanged or missing.
# shellcheck disable=SC2154
main() {
  exec 2>&1
  printf '%s here\n' "$mark"
  PATH=$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin
  dir=$1 source=$2; shift 2
  nix-store --check-validity "$source" "$@" 2>/dev/null || { printf '%s missing\n' "$mark"; return; }
  if [ "$(readlink "$dir/flake")" = "$source" ] && rooted; then printf '%s unchanged\n' "$mark"; return; fi
  if mkdir -p -- "$dir" && nix-store --realise "$source" --add-root "$dir/flake" --indirect >/dev/null; then
    printf '%s linked\n' "$mark"
  else printf '%s failed cannot make %s\n' "$mark" "$dir/flake"; fi
}
rooted() { # nix keeps a link of its own to the root
  for root in /nix/var/nix/gcroots/auto/*; do [ "$(readlink "$root")" != "$dir/flake" ] || return 0; done
  return 1
}
