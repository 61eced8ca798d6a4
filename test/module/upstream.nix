# A host with the original lollypops' own modules, in a checkout of it.
{ lib, upstream }:
let
  modules = {
    common.secrets = upstream + "/modules/common/secrets.nix";
    nixos.deployment = upstream + "/modules/nixos/deployment.nix";
    nixos.tasks = upstream + "/modules/nixos/tasks.nix";
  };
  flake = { inherit modules; };
  package =
    name: system:
    derivation {
      inherit name system;
      builder = "/bin/sh";
    };
  pkgs = rec {
    system = "aarch64-linux";
    path = throw "nixpkgs was imported";
    pass = package "pass-1.7.4" system;
    writeShellScriptBin = throw "a package was evaluated";
  };
  evaluate =
    module: more:
    lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        (import module { inherit flake; })
        more
      ];
    };
  alice = evaluate (upstream + "/modules/home") {
    options.home = lib.mkOption { type = lib.types.raw; };
    config.home = {
      username = "alice";
      homeDirectory = "/home/alice";
    };
    config.lollypops.secrets.files.ntfy = { };
  };
  host = evaluate (upstream + "/modules/nixos") {
    options.networking.hostName = lib.mkOption { type = lib.types.str; };
    options.home-manager = lib.mkOption { type = lib.types.raw; };
    config.networking.hostName = "web1";
    config.home-manager.users.alice = alice.config;
    config.lollypops = {
      deployment.ssh.user = "root";
      secrets.cmd-name-prefix = "fleet/";
      secrets.files.db = { };
      extraTasks.hi = {
        desc = "Say hi";
        cmds = [ "echo hi" ];
      };
    };
  };
in
{
  inherit (host) config;
  inherit pkgs;
}
