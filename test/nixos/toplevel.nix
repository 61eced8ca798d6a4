# A stand-in for a NixOS system, for a Debian test host: its toplevel has the files that a deployment and
# switch-to-configuration go by. What makes a real one fail makes this one fail: a bad unit, snippet, check, a full /boot.
{
  name,
  system,
  version ? "1",
  units ? { }, # { "hello.service" = "text"; }
  # those that multi-user.target wants
  wanted ? builtins.filter (unit: builtins.match ".*\\.service" unit != null) (builtins.attrNames units),
  snippet ? "", # an activation snippet (bash), run before the units are linked
  dry ? "", # the same for dry-activate
  check ? "", # a pre-switch check (bash)
  kernelKiB ? 64, # what each generation takes on /boot, which has 1024
  initInterface ? "systemd 2",
  specialisation ? { }, # { NAME = toplevel; }
}:
derivation {
  name = "nixos-system-${name}-${version}";
  builder = "/bin/sh";
  args = [ ./build-toplevel.sh ];
  unitFiles = map (unit: "${unit}=${builtins.toFile unit units.${unit}}") (builtins.attrNames units);
  specialisation = map (key: "${key}=${specialisation.${key}}") (builtins.attrNames specialisation);
  activate = ./activate.bash;
  installBootloader = ./install-bootloader.bash;
  switchToConfiguration = ./switch-to-configuration;
  inherit system version wanted snippet dry check kernelKiB initInterface;
}
