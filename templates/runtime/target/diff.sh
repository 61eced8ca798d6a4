# shellcheck shell=sh
# On the target: NEW tells what would change with it.
main() {
  answer here
  old=$(readlink -e /run/current-system) || give_up "this target never ran NixOS (no /run/current-system)"
  new=$(readlink -e "$1") || give_up "there is no $1"
  if [ "$old" = "$new" ]; then echo "no difference: $new runs"
  else
    echo "$old -> $new"
    found=$(nix --extra-experimental-features 'nix-command flakes' store diff-closures "$old" "$new" 2>/dev/null) || # of an old nix: all paths
      found=$({ nix-store -qR "$old" | sed 's/^/- /'; nix-store -qR "$new" | sed 's/^/+ /'; } | sort -k 2 | uniq -u -f 1)
    say "${found:-no difference in versions or sizes}"
  fi
  answer compared
}
