# Secrets that wait for an owner whom the configuration only now creates, get it as soon as accounts have been made.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  isForeign = file: file.owner != "root" || file.group-name != null && file.group-name != "root";
  needed = lib.any isForeign (lib.attrValues config.lollypops.secrets.files);
  script = builtins.readFile ./owners.sh;

  # Accounts are made by the activation script, or by a unit that only runs after it.
  byUnit =
    (options ? systemd.sysusers && config.systemd.sysusers.enable)
    || (options ? services.userborn && config.services.userborn.enable);
in
{
  # NixOS has these options, a bare `lib.evalModules` may not.
  config =
    lib.optionalAttrs (options ? system.activationScripts) {
      system.activationScripts = lib.mkIf (needed && !byUnit) {
        lollypops = {
          deps = [
            "users"
            "groups"
          ];
          # PATH there has coreutils and getent.
          text = script;
        };
      };
    }
    // lib.optionalAttrs (options ? systemd.services) {
      systemd.services = lib.mkIf (needed && byUnit) {
        lollypops-owners = {
          description = "Owners of secrets that waited for them";
          wantedBy = [
            "sysinit.target"
            "sysinit-reactivation.target"
          ];
          before = [
            "sysinit.target"
            "sysinit-reactivation.target"
            "shutdown.target"
          ];
          after = [
            "local-fs.target"
            "systemd-sysusers.service"
            "userborn.service"
          ];
          conflicts = [ "shutdown.target" ];
          unitConfig.DefaultDependencies = false;
          unitConfig.ConditionPathExists = "/var/lib/lollypops/pending";
          # Not active once it is done, so that it runs at each switch.
          serviceConfig.Type = "oneshot";
          path = [
            pkgs.coreutils
            pkgs.getent
          ];
          inherit script;
        };
      };
    };
}
