# shellcheck shell=sh
# On the target: LINK answers CURRENT BOOTED GENERATION NEXT REBOOT FLAKE UNIT…: the systems by name, NEXT the one that boots if
# it is another than the current, whether a reboot is needed, where LINK leads, and the units that failed.
# shellcheck disable=SC2015
main() {
  answer here
  profile=/nix/var/nix/profiles/system
  generation=$(readlink $profile); generation=${generation#system-} generation=${generation%-link}
  next=-; [ "$(readlink -e $profile)" = "$(readlink -e /run/current-system)" ] || next=$(name $profile)
  flake=$(readlink -e -- "$1")
  # shellcheck disable=SC2046 # one line
  answer status "$(name /run/current-system)" "$(name /run/booted-system)" "${generation:--}" "$next" \
    "$(reboot)" "${flake:--}" $(failing)
}
name() { # without directory and hash, or -
  at=$(readlink -e "$1") || { say -; return; }
  at=${at##*/}; say "${at#*-}"
}
reboot() { # as nixos decides it
  for part in kernel initrd kernel-modules; do
    old=$(readlink -e "/run/booted-system/$part") && new=$(readlink -e "/run/current-system/$part") || continue
    [ "$old" = "$new" ] || { say true; return; }
  done
  say false
}
