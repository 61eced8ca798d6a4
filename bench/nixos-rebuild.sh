#!/bin/sh
# nixos-rebuild ACTION --flake SOURCE#NAME, as far as upstream needs it on a host that stands for a NixOS machine.
set -e
name=${3##*#}
new=$(nix --extra-experimental-features 'nix-command flakes' build --no-link --print-out-paths \
  "${3%#*}#nixosConfigurations.\"$name\".config.system.build.toplevel")
nix-env -p /nix/var/nix/profiles/system --set "$new"
"$new/bin/switch-to-configuration" "$1"
