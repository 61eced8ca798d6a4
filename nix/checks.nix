# What `nix flake check` runs of the test suite: the rest needs hosts and a network.
pkgs: {
  package = (import ./packages.nix pkgs).default;

  module =
    let
      failures = pkgs.lib.runTests (import ../test/module { inherit (pkgs) lib; });
    in
    pkgs.runCommand "lollypops-module-tests" { failures = builtins.toJSON failures; } ''
      [ "$failures" = '[]' ] || { printf '%s\n' "$failures" >&2; exit 1; }
      touch $out
    '';
}
