# `lollypops.secrets.prune`: of the NixOS module alone, for all secrets of the host.
{ lib, ... }:
{
  options.lollypops.secrets.prune = lib.mkOption {
    type = lib.types.bool;
    default = false;
    description = "Remove secrets that a deployment has put on the host and that are not configured any more.";
  };
}
