# shellcheck shell=sh
# On the target: `host=… any=… start` reboots it in a moment (right_machine), and answers which boot this is, the system to come, and the units that failed.
# `which` answers boot and systems, `settle UNIT,…` waits for the units and names those that failed beyond these, and
# `missing PATH…` answers whether one of the files is.
boot() { # another one with each boot, in containers too
  boot_id=$(cat /proc/sys/kernel/random/boot_id) facts=$(cat /proc/1/stat)
  facts=${facts##*) }
  say "$boot_id-$(say "$facts" | cut -d' ' -f20)"
}
start() {
  [ "$(id -u)" = 0 ] || give_up "rebooting needs root: set deployment.sudo.enable, or deploy as root"
  idle
  wanted=$(readlink -e /nix/var/nix/profiles/system) || give_up "this target has no system profile to boot"
  answer rebooting "$(boot)" "$wanted" "$(failing | tr '\n' ,)"
  # Later, so that this login ends well.
  systemd-run --quiet --no-ask-password --collect --on-active=2 --timer-property=AccuracySec=100ms "$(command -v systemctl)" reboot ||
    give_up "it could not be told to reboot"
}
settle() {
  state=$(timeout 300 systemctl is-system-running --wait)
  ill=$(failing | while read -r unit; do case ,$1 in *",$unit,"*) ;; *) printf ' %s' "$unit" ;; esac; done)
  [ -z "$ill" ] || give_up "rebooted, and units failed that had not before:$ill"
  case $state in running | degraded) answer settled ;;
    *) give_up "rebooted, and systemd is still $state after 300 s:$(systemctl list-jobs --plain --no-legend | awk '{ printf " " $2 }')" ;; esac
}
main() {
  answer here
  case $1 in
    host=*) right_machine "${1#host=}" "${2#any=}"; start ;;
    which) answer up "$(boot)" "$(readlink -f /run/current-system)" "$(readlink -f /run/booted-system)" ;;
    missing) shift; for path; do [ -e "$path" ] || { answer missing; return; }; done; answer there ;;
    settle) settle "$2" ;;
  esac
}
