# How a new system is tried before it is kept: the guard, health checks, and which specialisation is meant.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.lollypops.deployment;

  check.options = {
    command = mkOption {
      type = types.str;
      example = "curl -fsS http://localhost/health";
      description = "Shell command that succeeds if all is well; as root with `on = \"target\"`.";
    };

    on = mkOption {
      type = types.enum [
        "target"
        "control"
      ];
      default = "target";
      description = "Where it runs; on the control machine `REMOTE_HOST` is the target's address.";
    };

    timeout = mkOption {
      type = types.ints.positive;
      default = 10;
      description = "Seconds that one try may take.";
    };

    retries = mkOption {
      type = types.ints.unsigned;
      default = 3;
      description = "How many more times it is tried after a failure.";
    };
  };

  # The generator only sees the commands' text: what that names in the store has to come with the system.
  commands = lib.concatMapStrings (check: lib.optionalString (check.on == "target") "${check.command}\n") (
    lib.attrValues cfg.health-checks
  );
in
{
  options.lollypops.deployment = {
    specialisation = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Name of the specialisation to activate; null means the system itself.";
    };

    guard = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Keep a new system only if a new ssh connection to it confirms that; go back to the old one by itself otherwise.
        '';
      };

      confirm-timeout = mkOption {
        type = types.ints.positive;
        default = 60;
        description = "Seconds that an activated system waits to be confirmed.";
      };

      activation-timeout = mkOption {
        type = types.ints.positive;
        default = 600;
        description = "Seconds that the activation may take.";
      };

      on-failed-units = mkOption {
        type = types.enum [
          "rollback"
          "keep"
        ];
        default = "rollback";
        description = "What to do when the activation made units fail that had not failed before.";
      };

      ignore-units = mkOption {
        type = types.listOf types.str;
        default = [ "*-wait-online.service" ];
        description = "Units that may fail; `*`, `?` and `[…]` stand for what they do in a shell.";
      };
    };

    health-checks = mkOption {
      type = types.attrsOf (types.submodule check);
      default = { };
      description = "What has to be well before a new system is kept.";
    };
  };

  # NixOS has this option, a bare `lib.evalModules` may not.
  config = lib.optionalAttrs (options ? system.extraDependencies) {
    system.extraDependencies = lib.mkIf (builtins.hasContext commands) [
      (pkgs.writeText "lollypops-health-checks" commands)
    ];
  };
}
