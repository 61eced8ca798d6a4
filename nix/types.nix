# Types that the options of both modules share.
{ lib }:
let
  inherit (lib) types;

  # Packages and path literals become the string that names them, so that the manifest stays plain data.
  text = types.coercedTo (types.either types.path types.package) toString types.str;
in
{
  # A place on the target. Anything under the store is a mistake: `path = ./secret` would publish the file.
  absolutePath =
    types.addCheck (types.strMatching "/.*") (path: !lib.hasPrefix "${builtins.storeDir}/" path)
    // {
      description = "absolute path outside the Nix store, as a string";
    };

  mode = types.strMatching "0?[0-7]{3,4}" // {
    description = "file mode in octal, such as \"0400\"";
  };

  unit =
    let
      suffixes = "service|socket|target|timer|path|mount|slice|swap|automount|device|scope";
    in
    types.strMatching "[A-Za-z0-9:_.\\\\@-]+\\.(${suffixes})"
    // {
      description = "full name of a systemd unit, such as \"nginx.service\"";
    };

  # What a key of a go-task task can hold; lists of several definitions are joined.
  taskValue =
    let
      value =
        types.nullOr (
          types.oneOf [
            types.bool
            types.int
            types.float
            text
            (types.attrsOf value)
            (types.listOf value)
          ]
        )
        // {
          description = "value of a go-task key";
        };
    in
    value;
}
