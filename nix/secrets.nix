# `lollypops.secrets`, the same for NixOS and home-manager; `place config` says where secrets go and whose they are.
place:
{ config, lib, ... }:
let
  inherit (lib) literalExpression mkOption types;
  inherit (import ./types.nix { inherit lib; }) absolutePath mode unit;
  cfg = config.lollypops.secrets;
  defaults = place config;

  file =
    { name, config, ... }:
    {
      options = {
        name = mkOption {
          type = types.str;
          default = name;
          defaultText = literalExpression "<name>";
          description = "Name of the secret.";
        };

        vault-name = mkOption {
          type = types.str;
          default = cfg.cmd-name-prefix + config.name;
          defaultText = literalExpression "cmd-name-prefix + name";
          description = "Name of the secret in the password store, the argument of `default-cmd`.";
        };

        cmd = mkOption {
          type = types.str;
          default = "${cfg.default-cmd} ${lib.escapeShellArg config.vault-name}";
          defaultText = literalExpression ''"''${default-cmd} ''${lib.escapeShellArg vault-name}"'';
          example = "cat secrets/database";
          description = "Shell command that prints the secret; it runs on the control machine.";
        };

        path = mkOption {
          type = absolutePath;
          default = "${cfg.default-dir}/${config.name}";
          defaultText = literalExpression ''"''${default-dir}/''${name}"'';
          description = "Place of the file on the target.";
        };

        mode = mkOption {
          type = mode;
          default = "0400";
          description = "Mode of the file.";
        };

        owner = mkOption {
          type = types.str;
          default = defaults.owner;
          defaultText = literalExpression ''"root", or the home-manager user'';
          description = "Owner of the file.";
        };

        group-name = mkOption {
          type = types.nullOr types.str;
          default = null;
          description = "Group of the file; null means the owner's own group.";
        };

        restart-units = mkOption {
          type = types.listOf unit;
          default = [ ];
          example = [ "postgresql.service" ];
          description = "Units of the system to restart when the secret changed, once in a deployment.";
        };

        reload-units = mkOption {
          type = types.listOf unit;
          default = [ ];
          example = [ "nginx.service" ];
          description = "Units of the system to reload when the secret changed, once in a deployment.";
        };

        when = mkOption {
          type = types.enum [
            "before"
            "after"
          ];
          default = "before";
          description = "Whether the secret is written before the new system is activated, or once it is.";
        };

        allow-empty = mkOption {
          type = types.bool;
          default = false;
          description = "Accept a command that prints nothing.";
        };

        in-initrd = mkOption {
          type = types.bool;
          default = false;
          description = ''
            Whether the initial ramdisk holds the secret (`boot.initrd.secrets`), so that the boot entry is written anew
            when the secret changed.
          '';
        };
      };
    };
in
{
  options.lollypops.secrets = {
    default-cmd = mkOption {
      type = types.str;
      default = "pass";
      description = ''
        Command that prints a secret, given its `vault-name`. A name without a slash is looked up in the PATH of the
        control machine.
      '';
    };

    cmd-name-prefix = mkOption {
      type = types.str;
      default = "";
      example = "machines/web1/";
      description = "What is put before each secret's name to make its `vault-name`.";
    };

    default-dir = mkOption {
      type = absolutePath;
      default = defaults.dir;
      defaultText = literalExpression ''"/var/src/lollypops-secrets", or "~/lollypops-secrets" for home-manager'';
      description = "Directory on the target for secrets without a `path`.";
    };

    files = mkOption {
      type = types.attrsOf (types.submodule file);
      default = { };
      example = literalExpression ''{ database.owner = "postgres"; }'';
      description = "The secrets to put on the target.";
    };
  };
}
