# The flake's packages for one `pkgs`.
pkgs:
let
  inherit (import ./lib.nix) mkLollypops;
  lollypops-gen = pkgs.callPackage ./package.nix { };
in
{
  inherit lollypops-gen;

  # As with the original lollypops, `default.override { configFlake = self; }` deploys that flake.
  default = pkgs.lib.makeOverridable (
    {
      configFlake ? null,
    }:
    if configFlake == null then
      lollypops-gen
    else
      mkLollypops {
        self = configFlake;
        inherit pkgs lollypops-gen;
      }
  ) { };
}
