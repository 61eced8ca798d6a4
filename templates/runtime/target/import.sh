# shellcheck shell=sh
# On the target: '' PATH… answers which of the PATHs its store lacks and nobody offers; `import` takes the export of some that
# follows on stdin.
main() {
  answer here
  if [ "$1" = import ]; then nix-store --import >/dev/null && answer imported; return; fi
  shift
  missing=$(nix-store --check-validity --print-invalid "$@")
  # shellcheck disable=SC2086 # store paths
  [ -z "$missing" ] || { nix-store --realise --keep-going $missing 2>&1 >/dev/null | grep '^copying '
    missing=$(nix-store --check-validity --print-invalid $missing); }
  answer missing "$(printf %s "$missing" | tr '\n' ' ')"
}
