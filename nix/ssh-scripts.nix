# The programs behind `ssh.login` and `ssh.run`.
{
  lib,
  pkgs,
  ssh,
  sudo,
}:
let
  variable = "(\\$[A-Za-z_][A-Za-z0-9_]*|\\$\\{[A-Za-z_][A-Za-z0-9_]*})";

  # One shell word, in which only $NAME and ${NAME} are expanded.
  word =
    text:
    if text == "" then
      "''"
    else
      lib.concatMapStrings (
        part:
        if builtins.isList part then
          "\"${builtins.head part}\""
        else if part == "" then
          ""
        else
          lib.escapeShellArg part
      ) (builtins.split variable text);

  destination = lib.optionalString (ssh.user != null) "${ssh.user}@" + ssh.host;
  # After `opts`, as ssh takes the first of each.
  connection =
    lib.optional (ssh.port != null) "-p ${toString ssh.port}"
    ++ lib.optional (ssh.identity-file != null) "-i ${word ssh.identity-file} -o IdentitiesOnly=yes"
    ++ lib.optional (ssh.jump-host != null) "-o ${lib.escapeShellArg "ProxyJump=${ssh.jump-host}"}";
  login =
    [ ssh.command ] ++ map word ssh.opts ++ connection ++ [ (lib.escapeShellArg destination) ];
  run = login ++ lib.optionals sudo.enable ([ sudo.command ] ++ map word sudo.opts);
  script =
    name: words:
    pkgs.writeShellScriptBin name ''
      exec ${lib.concatStringsSep " " words} "$@"
    '';
in
{
  login = script "lollypops-login" login;
  run = script "lollypops-run" run;
}
