# shellcheck shell=sh
# Deploys from the git tree of the current directory when it is the flake that this program was made for, so that
# what was edited since counts; from that flake as it was, everywhere else.
self='@self@'
revision='@revision@'
PATH=$PATH:@git@/bin

# A tree is that flake if it has the same flake.nix, and if its history has the commit that the program was made from.
is_that_flake() {
  top=$(git rev-parse --show-toplevel 2>/dev/null) || return 1
  dir=$(pwd -P)
  while [ ! -e "$dir/flake.nix" ]; do
    [ -n "$dir" ] && [ "$dir" != "$top" ] || return 1
    dir=${dir%/*}
  done
  cmp -s "$dir/flake.nix" "$self/flake.nix" || return 1
  [ -z "$revision" ] || git merge-base --is-ancestor "$revision" HEAD 2>/dev/null
}

if [ -n "${LOLLYPOPS_FLAKE-}" ]; then
  flake=$LOLLYPOPS_FLAKE
elif is_that_flake; then
  flake=.
else
  flake=$self
  [ ! -e flake.nix ] || echo "lollypops: deploying from $flake, not from the flake in this directory" >&2
fi
exec '@lollypops-gen@/bin/lollypops-gen' run --flake "$flake" -- "$@"
