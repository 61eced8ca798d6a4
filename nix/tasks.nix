# `lollypops.tasks` and `lollypops.extraTasks`.
{ lib, ... }:
let
  inherit (lib) literalExpression mkOption types;
  inherit (import ./types.nix { inherit lib; }) taskValue;
in
{
  options.lollypops = {
    tasks = mkOption {
      type = types.listOf types.str;
      default = [
        "deploy-flake"
        "deploy-secrets"
        "rebuild"
      ];
      description = "The steps of a deployment of this host, in this order.";
    };

    extraTasks = mkOption {
      # Free form: whatever key go-task knows, and only those that were set.
      type = types.attrsOf (types.submodule { freeformType = types.attrsOf taskValue; });
      default = { };
      example = literalExpression ''
        {
          uptime = {
            desc = "How long the host has been up";
            cmds = [ "{{.REMOTE_COMMAND}} {{.REMOTE_USER}}@{{.REMOTE_HOST}} uptime" ];
          };
        }
      '';
      description = "More tasks of this host, as go-task has them. One with a built-in task's name replaces it.";
    };
  };
}
