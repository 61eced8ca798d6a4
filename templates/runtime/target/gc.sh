# shellcheck shell=sh
# On the target, as root: DAYS removes older generations of the system, then their boot entries, then what nothing refers to.
# What is running, was booted or is to boot next stays.
# shellcheck disable=SC2015,SC2086,SC2154
profile=/nix/var/nix/profiles/system

used() { # LINK of a generation, itself or a specialisation of it
  [ "${1##*/}" != "$(readlink $profile)" ] || return 0
  for system in "$1" "$1"/specialisation/*; do
    case $(readlink -e "$system") in "$running" | "$booted") return 0 ;; esac
  done
  return 1
}
set_old() { # the numbers of those older than $1 days
  old='' running=$(readlink -e /run/current-system) booted=$(readlink -e /run/booted-system)
  for link in $(find ${profile%/*} -maxdepth 1 -name 'system-*-link' ! -newermt "@$(($(date +%s) - $1 * 86400))" | sort -V); do
    used "$link" || { link=${link##*/system-}; old="$old ${link%-link}"; }
  done
}
main() {
  answer here
  right_machine "${1#host=}" "${2#any=}"; shift 2
  [ "$(id -u)" = 0 ] || give_up "collecting garbage needs root: set deployment.sudo.enable, or deploy as root"
  idle
  top=$(readlink -e $profile) && [ -e /run/current-system ] || give_up "this target never ran NixOS (no system profile)"
  trap '' HUP INT TERM PIPE   # what has begun is brought to its end
  set_old "$1"
  removed='no generation removed'
  if [ -n "$old" ]; then
    log=$(nix-env -p $profile --delete-generations $old 2>&1) || give_up "nix-env --delete-generations$old: $log"
    removed="generations$old removed"
  fi
  # Before their systems go, whatever an earlier run has done: an entry must not lead to nothing.
  idle; top=$(readlink -e $profile)
  log=$(NIXOS_INSTALL_BOOTLOADER=0 "$top/bin/switch-to-configuration" boot 2>&1) ||
    give_up "$removed, but the boot loader could not be written, so nothing was collected: $(say "$log" | tail -n 1)"
  trap - HUP INT TERM
  log=$(nix-collect-garbage 2>&1) || give_up "$removed, but nix-collect-garbage failed: $(say "$log" | tail -n 1)"
  answer 'done' "$removed, $(say "$log" | grep ' freed$' | tail -n 1)"
}
