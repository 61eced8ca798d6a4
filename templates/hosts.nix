# What the generator needs to know of the hosts of a flake. `nix eval --json FLAKE#nixosConfigurations --apply` gets
# this function with its first argument: the control machine's system, and the names of the hosts to read (null: all).
{
  system,
  hosts ? null,
}:
configurations:
let
  inherit (builtins)
    attrNames
    concatMap
    filter
    getContext
    isAttrs
    isFunction
    isList
    isPath
    listToAttrs
    mapAttrs
    match
    removeAttrs
    sort
    toJSON
    unsafeDiscardStringContext
    ;

  filterAttrs = keep: set: removeAttrs set (filter (name: !(keep set.${name})) (attrNames set));
  # `set`, with `change` made to what it has as `name`.
  update =
    name: change: set:
    if set ? ${name} then set // { ${name} = change set.${name}; } else set;

  names =
    if hosts == null then attrNames configurations else filter (name: configurations ? ${name}) hosts;
  isOurs = name: configurations.${name} ? config && configurations.${name}.config ? lollypops;

  # Plain data: a package or path becomes the string that names it (JSON would copy a path to the store).
  plain =
    value:
    if isPath value || isPackage value then
      toString value
    else if isAttrs value then
      mapAttrs (_: plain) value
    else if isList value then
      map plain value
    else
      value;
  isPackage = value: value ? outPath;

  # Options are never packages or functions; what another module adds of that kind is left out.
  options =
    value:
    if isAttrs value then
      mapAttrs (_: options) (filterAttrs (v: !(isPackage v || isFunction v)) value)
    else
      plain value;

  # The original module names a `pass` that runs only on the host's own kind of machine.
  hostSystem = host: host.pkgs.stdenv.hostPlatform.system or (host.pkgs.system or system);
  isStorePass =
    command:
    match "/nix/store/[^/ ]*-pass-[^/ ]*/bin/pass" (unsafeDiscardStringContext command) != null;
  passFromPath =
    secrets:
    let
      isDerived = file: file ? vault-name && (file.cmd or "") == "${secrets.default-cmd} ${file.vault-name}";
      derive = file: if isDerived file then file // { cmd = "pass ${file.vault-name}"; } else file;
    in
    update "files" (mapAttrs (_: derive)) secrets // { default-cmd = "pass"; };

  # The original module, or options without any module. Its read-only extras are packages, and stay unevaluated.
  secretsOf =
    host: given:
    let
      secrets = options (removeAttrs given [ "default-user" ]);
    in
    if isStorePass (secrets.default-cmd or "") && hostSystem host != system then
      passFromPath secrets
    else
      secrets;
  withoutExtras =
    ssh:
    removeAttrs ssh [
      "login"
      "run"
    ];
  homeUsers =
    host:
    filterAttrs (user: (user.lollypops.secrets.files or { }) != { }) (
      host.config.home-manager.users or { }
    );
  homeManager =
    host:
    if homeUsers host == { } then
      { }
    else
      {
        home-manager.users = mapAttrs (_: user: {
          secrets = secretsOf host user.lollypops.secrets;
        }) (homeUsers host);
      };
  foreign =
    host:
    let
      given = update "deployment" (update "ssh" withoutExtras) host.config.lollypops;
      others = removeAttrs given [
        "extraTasks"
        "secrets"
      ];
    in
    options others
    // (if given ? extraTasks then { extraTasks = plain given.extraTasks; } else { })
    // (if given ? secrets then { secrets = secretsOf host given.secrets; } else { })
    // homeManager host;

  # What the strings refer to: `nix eval` wrote these derivations, but built none of them.
  derivationsOf =
    data:
    let
      context = getContext (toJSON data);
      outputs = entry: entry.outputs or [ ] ++ (if entry.allOutputs or false then [ "*" ] else [ ]);
      namesOf = drv: map (output: "${drv}^${output}") (outputs context.${drv});
    in
    sort (a: b: a < b) (concatMap namesOf (attrNames context));

  read =
    name:
    let
      host = configurations.${name};
      data = host.config.lollypops.manifest or (foreign host);
    in
    {
      inherit name;
      value = data // {
        derivations = derivationsOf data;
      };
    };
in
{
  schema = 1;
  hosts = listToAttrs (map read (filter isOurs names));
  skipped = filter (name: !(isOurs name)) names;
}
