# Mistakes that no single option's type can see, as sentences.
{
  lib,
  cfg,
  homeUsers,
  specialisations,
}:
let
  builtin = [
    "check-vars"
    "deploy-flake"
    "deploy-secrets"
    "rebuild"
  ];

  # Steps that are run by themselves.
  others = [
    "check-secrets"
    "without-secrets"
    "build"
    "diff"
    "status"
    "rollback"
    "reboot"
    "gc"
    "ssh"
    "exec"
  ];

  known = builtin ++ lib.attrNames cfg.extraTasks;
  unknown = lib.subtractLists known (lib.unique cfg.tasks);
  unknownTasks = map (
    task:
    "lollypops.tasks names \"${task}\", which is neither a built-in task"
    + " (${lib.concatStringsSep ", " builtin}) nor one of lollypops.extraTasks."
  ) (lib.subtractLists others unknown);
  byThemselves = map (
    task: "lollypops.tasks names \"${task}\", which is no part of a deployment; run it by itself."
  ) (lib.intersectLists others unknown);
  twice = map (task: "lollypops.tasks names \"${task}\" twice.") (
    lib.filter (task: lib.count (other: other == task) cfg.tasks > 1) (lib.unique cfg.tasks)
  );

  filesOf =
    option: files:
    lib.mapAttrsToList (name: file: {
      inherit file;
      option = "${option}.secrets.files.${name}";
    }) files;
  allFiles =
    filesOf "lollypops" cfg.secrets.files
    ++ lib.concatLists (
      lib.mapAttrsToList (
        name: user: filesOf "home-manager.users.${name}.lollypops" user.lollypops.secrets.files
      ) homeUsers
    );
  places = map ({ file, option }: { ${file.path} = option; }) allFiles;
  duplicates = lib.filterAttrs (_: names: lib.length names > 1) (lib.zipAttrs places);
  duplicatePaths = lib.mapAttrsToList (
    path: names: "${lib.concatStringsSep " and " names} have the same path, ${path}."
  ) duplicates;

  tooLate = map (
    { option, ... }: "${option}.when must be \"before\" with in-initrd, since the boot entry is to hold it."
  ) (lib.filter ({ file, ... }: (file.in-initrd or false) && file.when == "after") allFiles);

  inherit (cfg.deployment) sudo;
  password = lib.optionals (sudo.password-command != null) (
    lib.optional (!sudo.enable) "lollypops.deployment.sudo.password-command needs sudo.enable."
    ++ lib.optional (baseNameOf sudo.command != "sudo") (
      "lollypops.deployment.sudo.command must be sudo for password-command,"
      + " with its options in sudo.opts, not \"${sudo.command}\"."
    )
  );

  inherit (cfg.deployment) build-on local-evaluation specialisation;
  elsewhere = lib.optional (build-on != "target" && !local-evaluation)
    "lollypops.deployment.build-on = \"${build-on}\" needs local-evaluation.";
  # A specialisation itself has none.
  noSpecialisation =
    lib.optional
      (specialisation != null && specialisations != [ ] && !(lib.elem specialisation specialisations))
      (
        "lollypops.deployment.specialisation names \"${specialisation}\", which the system does not have"
        + " (it has ${lib.concatStringsSep ", " specialisations})."
      );

  noHost = lib.optional (cfg.deployment.ssh.host == "")
    "lollypops.deployment.ssh.host is empty; set it, or networking.hostName.";
in
noHost
++ password
++ elsewhere
++ noSpecialisation
++ unknownTasks
++ byThemselves
++ twice
++ duplicatePaths
++ tooLate
