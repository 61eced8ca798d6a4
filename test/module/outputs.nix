# The flake's outputs with a stub in nixpkgs' place: what can be known without building anything.
{ lib, root }:
let
  stub = {
    inherit lib;
    path = "/nixpkgs";
    stdenv.hostPlatform.system = "x86_64-linux";
    writeShellScriptBin = name: text: { inherit name text; };
    mkShell = x: x;
    runCommand = _: _: _: { };
    nixfmt-tree = { };
    buildNpmPackage = args: args // { outPath = "/lollypops-gen"; };
    importNpmLock = {
      __functor = _: args: args;
      npmConfigHook = { };
    };
    makeWrapper = { };
    gitMinimal = "/git";
    go-task = "/go-task";
    openssh = "/openssh";
    coreutils = "/coreutils";
    gawk = "/gawk";
    gnugrep = "/gnugrep";
    gnused = "/gnused";
    procps = "/procps";
    pnpm.src.url = "https://packages.example.org/pnpm/-/pnpm-10.0.0.tgz";
    callPackage = lib.callPackageWith stub;
  };
  outputs = (import (root + "/flake.nix")).outputs {
    self = { };
    nixpkgs = {
      inherit lib;
      legacyPackages.x86_64-linux = stub;
    };
  };
  ours = outputs.packages.x86_64-linux;
in
{
  names =
    lib.mapAttrs (_: lib.attrNames) {
      inherit (outputs)
        nixosModules
        homeModules
        homeManagerModules
        lib
        overlays
        ;
    }
    // lib.mapAttrs (_: perSystem: lib.attrNames perSystem.x86_64-linux) {
      inherit (outputs) packages devShells checks;
    };

  plain = ours.default.pname;
  overridden = (ours.default.override { configFlake = "/some/flake"; }).text;
  files = lib.attrNames (builtins.readDir ours.lollypops-gen.src);
  wrapper = ours.lollypops-gen.postFixup;
  lock = ours.lollypops-gen.npmDeps.packageLock.packages;
}
