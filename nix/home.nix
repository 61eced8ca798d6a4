# The home-manager module: secrets of a user, deployed along with the NixOS host that has this user.
{
  _class = "homeManager";
  _file = ./home.nix;
  key = "lollypops-gen#homeModules.default";

  imports = [
    (import ./secrets.nix (config: {
      dir = "${config.home.homeDirectory}/lollypops-secrets";
      owner = config.home.username;
    }))
  ];
}
