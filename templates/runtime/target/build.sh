# shellcheck shell=sh
# On the target or a build host: DRV OUT OPTION… builds a derivation, or tells that neither it nor what it makes is there; or
# LINK SOURCE QUERY ATTRIBUTE OPTION… evaluates and builds, as a rebuild does there (rebuild.sh goes before this).
# shellcheck disable=SC2154
main() {
  answer here
  case $1 in
    /nix/store/*.drv)
      drv=$1 new=$2; shift 2
      if ! nix-store --check-validity "$new" 2>/dev/null; then
        nix-store --check-validity "$drv" 2>/dev/null || { answer missing; return; }
        new=$(nix --extra-experimental-features 'nix-command flakes' build --no-link --print-out-paths "$@" "$drv^out") ||
          { answer failed; exit 1; }
      fi ;;
    *) build "$@" ;;
  esac
  answer built "$new"
}
