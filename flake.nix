{
  description = "Deploy fleets of NixOS machines: a Taskfile from a flake, run by go-task";

  # For our own packages only: modules and lib use what the user's flake brings.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { nixpkgs, ... }:
    let
      systems = builtins.filter (system: nixpkgs.legacyPackages ? ${system}) [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      perSystem = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      nixosModule = import ./nix/nixos.nix;
      homeModule = import ./nix/home.nix;
    in
    {
      nixosModules.default = nixosModule;
      nixosModules.lollypops = nixosModule;
      homeModules.default = homeModule;
      homeManagerModules.default = homeModule;
      hmModule = homeModule;
      lib = import ./nix/lib.nix;

      packages = perSystem (import ./nix/packages.nix);
      overlays.default = final: _: { lollypops-gen = final.callPackage ./nix/package.nix { }; };
      devShells = perSystem (pkgs: { default = import ./nix/shell.nix pkgs; });
      checks = perSystem (import ./nix/checks.nix);
      formatter = perSystem (pkgs: pkgs.nixfmt-tree);
    };
}
