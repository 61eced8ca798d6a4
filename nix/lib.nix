# What `lib` of the flake offers. Nothing here needs an input: the caller brings `pkgs`.
{
  # A program `lollypops` that deploys the hosts of the flake `self`; its arguments are go-task's.
  mkLollypops =
    {
      self,
      pkgs,
      lollypops-gen ? pkgs.callPackage ./package.nix { },
    }:
    let
      # The commit that `self` was read from, if its tree is or was a git one.
      dirty = self.dirtyRev or "";
      revision = self.rev or (builtins.substring 0 (builtins.stringLength dirty - 6) dirty);
      script = builtins.replaceStrings [ "@self@" "@revision@" "@git@" "@lollypops-gen@" ] [
        "${self}"
        revision
        "${pkgs.gitMinimal}"
        "${lollypops-gen}"
      ] (builtins.readFile ./lollypops.sh);
    in
    pkgs.writeShellScriptBin "lollypops" script;
}
