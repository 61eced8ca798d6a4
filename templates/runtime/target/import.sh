# shellcheck shell=sh
# On the target: '' PATH… answers which of the PATHs its store lacks; `import` takes the export of some that follows on stdin.
main() {
  answer here
  if [ "$1" = import ]; then nix-store --import >/dev/null && answer imported; return; fi
  shift
  answer missing "$(nix-store --check-validity --print-invalid "$@" | tr '\n' ' ')"
}
