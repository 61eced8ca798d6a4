#!/usr/bin/env bash
# Checks every shell file of the repository; one without a #! line is part of the runtime or of the NixOS module, which are
# POSIX sh.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v shellcheck >/dev/null || { echo 'shellcheck is missing (the Debian package of that name)' >&2; exit 1; }

with_shebang=() posix=()
while IFS= read -r -d '' file; do
  [[ -f $file ]] || continue
  IFS= read -r first <"$file" || true
  case $first in
    '#!'*[/\ ]sh | '#!'*[/\ ]bash) with_shebang+=("$file") ;;
    *) case $file in *.sh | *.bash) posix+=("$file") ;; esac ;;
  esac
done < <(git ls-files --cached --others --exclude-standard -z)

shellcheck "${with_shebang[@]}"
((${#posix[@]} == 0)) || shellcheck --shell=sh "${posix[@]}"
echo "shellcheck: $((${#with_shebang[@]} + ${#posix[@]})) files"
