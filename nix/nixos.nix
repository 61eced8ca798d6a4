# The NixOS module.
{
  _class = "nixos";
  _file = ./nixos.nix;
  # One key, however the module is imported, so that importing it twice is importing it once.
  key = "lollypops-gen#nixosModules.default";

  imports = [
    (import ./secrets.nix (_: {
      dir = "/var/src/lollypops-secrets";
      owner = "root";
    }))
    ./deployment.nix
    ./guard.nix
    ./prune.nix
    ./owners.nix
    ./tasks.nix
    ./manifest.nix
  ];
}
