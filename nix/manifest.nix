# `lollypops.manifest`: all that the generator needs to know of a host, as plain data.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.lollypops;

  secretsOf = secrets: {
    inherit (secrets) default-cmd cmd-name-prefix default-dir;
    # A user may have the original module still, which knows fewer.
    files = lib.mapAttrs (_: lib.filterAttrs (name: _: lib.elem name fileOptions)) secrets.files;
  };
  fileOptions = [
    "name"
    "vault-name"
    "cmd"
    "path"
    "mode"
    "owner"
    "group-name"
    "restart-units"
    "reload-units"
    "when"
    "allow-empty"
    "in-initrd"
  ];

  # Users whose home-manager configuration imports our module and has secrets.
  homeUsers = lib.filterAttrs (_: user: (user.lollypops.secrets.files or { }) != { }) (
    config.home-manager.users or { }
  );

  homeManager = lib.optionalAttrs (homeUsers != { }) {
    home-manager.users = lib.mapAttrs (_: user: { secrets = secretsOf user.lollypops.secrets; }) homeUsers;
  };

  problems = import ./problems.nix {
    inherit lib cfg homeUsers;
    specialisations = lib.attrNames (config.specialisation or { });
  };
in
{
  options.lollypops.manifest = lib.mkOption {
    type = lib.types.raw;
    internal = true;
    visible = false;
    readOnly = true;
    default = {
      schema = 1;
      deployment = {
        inherit (cfg.deployment)
          local
          local-evaluation
          deploy-method
          config-dir
          group
          groups
          order
          build-on
          specialisation
          health-checks
          ;
        sudo = {
          inherit (cfg.deployment.sudo)
            enable
            command
            opts
            password-command
            ;
        };
        ssh = {
          inherit (cfg.deployment.ssh)
            command
            opts
            host
            user
            port
            identity-file
            jump-host
            host-key
            confirm-host
            multiplex
            ;
        };
        guard = {
          inherit (cfg.deployment.guard)
            enable
            confirm-timeout
            activation-timeout
            on-failed-units
            ignore-units
            ;
        };
      };
      secrets = secretsOf cfg.secrets // {
        inherit (cfg.secrets) prune;
      };
      inherit (cfg) tasks;
      extraTasks = lib.mapAttrs (_: lib.filterAttrs (_: value: value != null)) cfg.extraTasks;
      inherit problems;
    }
    // homeManager;
    description = "What lollypops-gen reads. Its shape is no interface: use the options.";
  };

  # NixOS has this option, a bare `lib.evalModules` may not.
  config = lib.optionalAttrs (options ? assertions) {
    assertions = map (message: {
      assertion = false;
      inherit message;
    }) problems;
  };
}
