# Mistakes that no single option's type can see, as sentences.
{
  lib,
  cfg,
  homeUsers,
}:
let
  builtin = [
    "check-vars"
    "deploy-flake"
    "deploy-secrets"
    "rebuild"
  ];

  known = builtin ++ lib.attrNames cfg.extraTasks;
  unknownTasks = map (
    task:
    "lollypops.tasks names \"${task}\", which is neither a built-in task"
    + " (${lib.concatStringsSep ", " builtin}) nor one of lollypops.extraTasks."
  ) (lib.subtractLists known (lib.unique cfg.tasks));
  twice = map (task: "lollypops.tasks names \"${task}\" twice.") (
    lib.filter (task: lib.count (other: other == task) cfg.tasks > 1) (lib.unique cfg.tasks)
  );

  places =
    option: files: lib.mapAttrsToList (name: file: { ${file.path} = "${option}.secrets.files.${name}"; }) files;
  allPlaces =
    places "lollypops" cfg.secrets.files
    ++ lib.concatLists (
      lib.mapAttrsToList (
        name: user: places "home-manager.users.${name}.lollypops" user.lollypops.secrets.files
      ) homeUsers
    );
  duplicates = lib.filterAttrs (_: names: lib.length names > 1) (lib.zipAttrs allPlaces);
  duplicatePaths = lib.mapAttrsToList (
    path: names: "${lib.concatStringsSep " and " names} have the same path, ${path}."
  ) duplicates;

  noHost = lib.optional (cfg.deployment.ssh.host == "")
    "lollypops.deployment.ssh.host is empty; set it, or networking.hostName.";
in
noHost ++ unknownTasks ++ twice ++ duplicatePaths
