# What working on this project needs.
pkgs:
pkgs.mkShell {
  packages = [
    pkgs.nodejs
    pkgs.go-task
    pkgs.openssh
    pkgs.shellcheck
  ];
  NIXPKGS_LIB = toString pkgs.path + "/lib";
}
