# Every option of the NixOS module, with a value that is not its default, as the manifest shows it.
{
  deployment = {
    local = true;
    local-evaluation = true;
    deploy-method = "archive";
    config-dir = "/etc/lollypops";
    group = "web";
    groups = [
      "eu"
      "canary"
    ];
    order = -2;
    build-on = "builder@build.example.org";
    specialisation = "hardened";
    guard = {
      enable = false;
      confirm-timeout = 90;
      activation-timeout = 1200;
      on-failed-units = "keep";
      ignore-units = [ "docker-*.scope" ];
    };
    health-checks.web = {
      command = "curl -fsS https://$REMOTE_HOST/";
      on = "control";
      timeout = 5;
      retries = 0;
    };
    sudo = {
      enable = true;
      command = "/run/wrappers/bin/sudo";
      opts = [ "-E" ];
      password-command = "pass hosts/web1";
    };
    ssh = {
      command = "/usr/bin/ssh";
      opts = [ "-oPort=2222" ];
      host = "192.0.2.1";
      user = "ops";
      port = 2222;
      identity-file = "~/.ssh/fleet";
      jump-host = "ops@bastion.example.org";
      host-key = "strict";
      confirm-host = "192.0.2.7";
      multiplex = false;
    };
  };
  secrets = {
    default-cmd = "gopass show -o";
    cmd-name-prefix = "fleet/";
    default-dir = "/run/secrets";
    prune = true;
    files.db = {
      name = "database";
      vault-name = "db/prod";
      cmd = "gopass show -o db/prod | head -1";
      path = "/var/lib/db/password";
      mode = "0440";
      owner = "postgres";
      group-name = "backup";
      restart-units = [
        "postgresql.service"
        "pgbouncer@main.service"
      ];
      reload-units = [ "dev-disk-by\\x2dlabel-data.mount" ];
      when = "after";
      allow-empty = true;
      in-initrd = false;
    };
    # What the boot entry holds cannot come after it.
    files.luks = {
      name = "luks-key";
      vault-name = "luks/web1";
      cmd = "pass luks/web1";
      path = "/etc/luks.key";
      mode = "0600";
      owner = "disk";
      group-name = "disk";
      restart-units = [ ];
      reload-units = [ ];
      when = "before";
      allow-empty = false;
      in-initrd = true;
    };
  };
  tasks = [
    "rebuild"
    "notify"
  ];
  extraTasks.notify = {
    desc = "Tell the others";
    deps = [ "check-vars" ];
    cmds = [
      "echo done"
      {
        task = "rebuild";
        vars.REBUILD_ACTION = "boot";
      }
    ];
    vars.WHO = "ops";
    interactive = true;
  };
}
