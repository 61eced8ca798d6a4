# Every option of the NixOS module, with a value that is not its default, as the manifest shows it.
{
  deployment = {
    local-evaluation = true;
    deploy-method = "archive";
    config-dir = "/etc/lollypops";
    group = "web";
    groups = [
      "eu"
      "canary"
    ];
    sudo = {
      enable = true;
      command = "doas";
      opts = [ "-n" ];
    };
    ssh = {
      command = "/usr/bin/ssh";
      opts = [ "-oPort=2222" ];
      host = "192.0.2.1";
      user = "ops";
    };
  };
  secrets = {
    default-cmd = "gopass show -o";
    cmd-name-prefix = "fleet/";
    default-dir = "/run/secrets";
    files.db = {
      name = "database";
      vault-name = "db/prod";
      cmd = "gopass show -o db/prod | head -1";
      path = "/var/lib/db/password";
      mode = "0440";
      owner = "postgres";
      group-name = "backup";
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
