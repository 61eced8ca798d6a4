# shellcheck shell=sh
# On the target: NEW SPECIALISATION tells what would change, or `missing CURRENT` where NEW is not there.
main() {
  answer here
  old=$(readlink -e /run/current-system) || give_up "this target never ran NixOS (no /run/current-system)"
  [ -e "$1" ] || { answer missing "$old"; return; }
  differences "$old" "$@" || give_up "no difference could be told"
  answer compared
}
differences() { # OLD NEW SPECIALISATION
  old=$1 new=$2${3:+/specialisation/$3}
  [ -e "$new" ] || { echo "$2 has no specialisation $3"; return 1; }
  new=$(readlink -f "$new")
  [ "$old" != "$new" ] || { echo "no difference: $new runs"; return 0; }
  echo "$old -> $new"
  found=$(nix --extra-experimental-features 'nix-command flakes' store diff-closures "$old" "$new" 2>/dev/null) ||
    found=$({ nix-store -qR "$old" | sed 's/^/- /'; nix-store -qR "$new" | sed 's/^/+ /'; } | sort -k 2 | uniq -u -f 1)
  printf '%s\n' "${found:-no difference in versions or sizes}"
}
