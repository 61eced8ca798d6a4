#!/usr/bin/env bash
# Checks every shell file of the repository; one without a #! line is part of the runtime, which is POSIX sh.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v shellcheck >/dev/null || { echo 'shellcheck is missing (the Debian package of that name)' >&2; exit 1; }

with_shebang=() runtime=()
while IFS= read -r -d '' file; do
  [[ -f $file ]] || continue
  IFS= read -r first <"$file" || true
  case $first in
    '#!'*[/\ ]sh | '#!'*[/\ ]bash) with_shebang+=("$file") ;;
    *) case $file in *.sh | *.bash) runtime+=("$file") ;; esac ;;
  esac
done < <(git ls-files --cached --others --exclude-standard -z)

shellcheck "${with_shebang[@]}"
((${#runtime[@]} == 0)) || shellcheck --shell=sh "${runtime[@]}"
echo "shellcheck: $((${#with_shebang[@]} + ${#runtime[@]})) files"
