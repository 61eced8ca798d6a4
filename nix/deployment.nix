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

    build-on = mkOption {
      type = types.str;
      default = if config.lollypops.deployment.local-evaluation then "local" else "target";
      defaultText = literalExpression ''if local-evaluation then "local" else "target"'';
      example = "builder@build.example.org";
      description = ''
        Where the system is built: on the `target`, `local` on the control machine, or on the machine that this ssh
        destination names. Anything but `target` needs `local-evaluation`.
      '';
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
    order = mkOption {
      type = types.int;
      default = 0;
      example = -1;
      description = ''
        Of several hosts, those with a lower number are deployed first. The next ones only begin if all of these were deployed.
      '';
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

      port = mkOption {
        type = types.nullOr (types.ints.between 1 65535);
        default = null;
        example = 2222;
        description = "Port of the target's sshd; null leaves it to ssh.";
      };

      identity-file = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "~/.ssh/fleet";
        description = ''
          File of the control machine with the private key, one word as in `opts`; null leaves it to ssh.
        '';
      };

      jump-host = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "ops@bastion.example.org";
        description = "Host to go through, as `USER@HOST:PORT` or less, several with commas; null leaves it to ssh.";
      };

      host-key = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…";
        description = ''
          The target's public host key; or `strict`, the key must be known already; or `accept-new`, a key that is seen for
          the first time is believed. null leaves it to ssh.
        '';
      };

      confirm-host = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "192.0.2.7";
        description = "Where the new system is to answer, if its address is not that of the old one.";
      };

      multiplex = mkOption {
        type = types.bool;
        default = true;
        description = "Share one connection among the steps of a run.";
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
