# `lollypops.deployment`: how a host is reached and what is done there.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) literalExpression mkOption types;
  inherit (import ./types.nix { inherit lib; }) absolutePath;
  # Only whoever asks for these scripts evaluates `pkgs`.
  scripts = import ./ssh-scripts.nix {
    inherit lib pkgs;
    inherit (config.lollypops.deployment) ssh sudo;
  };
in
{
  options.lollypops.deployment = {
    local = mkOption {
      type = types.bool;
      default = false;
      description = "Deploy the machine that the tool runs on: without ssh.";
    };

    local-evaluation = mkOption {
      type = types.bool;
      default = false;
      description = "Evaluate the system on the control machine instead of on the target.";
    };

    deploy-method = mkOption {
      type = types.enum [
        "auto"
        "copy"
        "archive"
      ];
      default = "auto";
      description = ''
        What goes to the target: the flake alone (`copy`; the target fetches its inputs) or with all of its inputs
        (`archive`). `auto` means `archive` if the lock file has inputs that a target may not reach, else `copy`.
      '';
    };

    config-dir = mkOption {
      type = absolutePath;
      default = "/var/src/lollypops";
      description = "Directory on the target that holds the link to the flake.";
    };

    group = mkOption {
      type = types.nullOr types.str;
      default = null;
      # "default" is the original lollypops' way to say that a host has no group.
      apply = group: if group == "default" then null else group;
      example = "web";
      description = "Group of the host: `task web` deploys all of its hosts.";
    };

    groups = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "eu" ];
      description = "More groups of the host.";
    };

    sudo = {
      enable = mkOption {
        type = types.bool;
        default = false;
        description = "Use sudo on the target.";
      };

      command = mkOption {
        type = types.str;
        default = "sudo";
        description = "Command that makes its arguments run as root.";
      };

      opts = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "--user=deploy" ];
        description = "Options of that command, one word each; `$NAME` means the control machine's environment.";
      };

      password-command = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "pass hosts/web1/ops";
        description = "Shell command that prints sudo's password; it runs on the control machine.";
      };
    };

    ssh = {
      command = mkOption {
        type = types.str;
        default = "ssh";
        description = "The ssh program of the control machine.";
      };

      opts = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [
          "-i"
          "/etc/ssh/keys/$USER"
        ];
        description = "Options of ssh, one word each; `$NAME` means the control machine's environment.";
      };

      host = mkOption {
        type = types.str;
        default = config.networking.hostName;
        defaultText = literalExpression "config.networking.hostName";
        description = "Host name or address of the target.";
      };

      user = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "root";
        description = "User to log in as; null leaves it to ssh.";
      };

      login = mkOption {
        type = types.package;
        readOnly = true;
        default = scripts.login;
        defaultText = literalExpression "a script";
        description = "Program `lollypops-login`: runs its arguments on the target, or logs in.";
      };

      run = mkOption {
        type = types.package;
        readOnly = true;
        default = scripts.run;
        defaultText = literalExpression "a script";
        description = "Program `lollypops-run`: the same, with sudo if that is enabled.";
      };
    };
  };
}
