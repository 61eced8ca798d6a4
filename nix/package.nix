# The command line tool.
{
  lib,
  buildNpmPackage,
  importNpmLock,
  makeWrapper,
  coreutils,
  gawk,
  gitMinimal,
  gnugrep,
  gnused,
  go-task,
  openssh,
  procps,
  pnpm,
  # Where the packages of package-lock.json come from: where nixpkgs gets its own. The lock's hashes decide what is accepted.
  npmRegistry ? builtins.head (builtins.split "/pnpm/-/" (pnpm.src.url or (builtins.head pnpm.src.urls))),
}:
let
  # To build takes the compiler; the rest of the development packages stays out.
  needed = name: lib.elem name [ "typescript" "@types/node" "undici-types" ] || lib.hasPrefix "@typescript/" name;
  trimmed = set: set // { devDependencies = lib.filterAttrs (name: _: needed name) set.devDependencies; };
  package = trimmed (lib.importJSON ../package.json);
  lock = lib.importJSON ../package-lock.json;
  kept = location: module: !(module.dev or module.devOptional or false) || needed (nameOf location);

  # "node_modules/a/node_modules/@scope/name" is the package "@scope/name".
  nameOf = location: lib.last (lib.splitString "node_modules/" location);
  # The lock leaves out the addresses that follow from name and version; importNpmLock wants them all.
  addressed =
    location: module:
    if location == "" || module ? resolved || module.inBundle or false then
      module
    else
      let
        name = module.name or (nameOf location);
      in
      module // { resolved = "${npmRegistry}/${name}/-/${baseNameOf name}-${module.version}.tgz"; };
in
buildNpmPackage {
  pname = package.name;
  inherit (package) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../package.json
      ../package-lock.json
      ../tsconfig.json
      ../tsconfig.build.json
      ../src
      ../templates
      (lib.fileset.maybeMissing ../LICENSE)
    ];
  };

  npmDeps = importNpmLock {
    npmRoot = ../.;
    inherit package;
    packageLock = lock // {
      packages = lib.mapAttrs addressed (
        lib.filterAttrs kept lock.packages // { "" = trimmed lock.packages.""; }
      );
    };
  };
  inherit (importNpmLock) npmConfigHook;
  # `npm pack` lists the files to install; its `prepare` would build once more and write into that list.
  npmPackFlags = [ "--ignore-scripts" ];

  nativeBuildInputs = [ makeWrapper ];
  # A suffix, so that the user's own come first. Never nix: that has to fit the machine's daemon and settings.
  postFixup = ''
    wrapProgram $out/bin/${package.name} --suffix PATH : ${
      lib.makeBinPath [
        gitMinimal
        go-task
        openssh
        # for the Taskfile's shell, in images that have little else
        coreutils
        gawk
        gnugrep
        gnused
        procps
      ]
    }
  '';

  meta = {
    inherit (package) description;
    license = lib.licenses.mit;
    mainProgram = package.name;
  };
}
