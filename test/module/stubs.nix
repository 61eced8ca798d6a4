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
    writeText = name: text: { inherit name text; };
    coreutils = "/nix/store/00000000000000000000000000000000-coreutils";
    getent = "/nix/store/00000000000000000000000000000000-getent";
    gitMinimal = "/nix/store/00000000000000000000000000000000-git";
    callPackage = _: _: "/nix/store/00000000000000000000000000000000-lollypops-gen";
  };

  base = {
    options.networking.hostName = lib.mkOption { type = lib.types.str; };
    options.home-manager = lib.mkOption { type = lib.types.raw; };
    config.networking.hostName = lib.mkDefault "web1";
    config.home-manager = lib.mkDefault { };
  };

  # What of NixOS the owners of secrets go by, and what keeps packages in a system.
  system =
    modules:
    let
      enable = lib.mkEnableOption "it";
      any = lib.mkOption {
        type = lib.types.attrsOf lib.types.raw;
        default = { };
      };
    in
    lib.evalModules {
      class = "nixos";
      specialArgs.pkgs = pkgs;
      modules = [
        (import ../../nix/nixos.nix)
        base
        {
          options.system.activationScripts = any;
          options.system.extraDependencies = lib.mkOption {
            type = lib.types.listOf lib.types.raw;
            default = [ ];
          };
          options.systemd.services = any;
          options.systemd.sysusers = { inherit enable; };
          options.services.userborn = { inherit enable; };
        }
      ]
      ++ modules;
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
