# What NixOS and home-manager bring in real life, as little of it as our modules touch.
{ lib }:
rec {
  # A `pkgs` whose packages are names: using one shows, building one is impossible.
  pkgs = {
    writeShellScriptBin = name: text: {
      inherit name text;
      type = "derivation";
      outPath = "/nix/store/00000000000000000000000000000000-${name}";
    };
    gitMinimal = "/nix/store/00000000000000000000000000000000-git";
    callPackage = _: _: "/nix/store/00000000000000000000000000000000-lollypops-gen";
  };

  base = {
    options.networking.hostName = lib.mkOption { type = lib.types.str; };
    options.home-manager = lib.mkOption { type = lib.types.raw; };
    config.networking.hostName = lib.mkDefault "web1";
    config.home-manager = lib.mkDefault { };
  };

  evaluate =
    modules:
    lib.evalModules {
      class = "nixos";
      specialArgs.pkgs = throw "pkgs was used";
      modules = [
        (import ../../nix/nixos.nix)
        base
      ]
      ++ modules;
    };
  manifest = modules: (evaluate modules).config.lollypops.manifest;

  home =
    modules:
    (lib.evalModules {
      class = "homeManager";
      modules = [
        (import ../../nix/home.nix)
        {
          options.home = lib.mkOption { type = lib.types.raw; };
          config.home = {
            username = "alice";
            homeDirectory = "/home/alice";
          };
        }
      ]
      ++ modules;
    }).config;
}
