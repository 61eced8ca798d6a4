# shellcheck shell=sh
# On the target, as root: ID ACTION NEW RUN AFTER LINK SOURCE QUERY ATTRIBUTE OPTION… builds the system unless NEW is given, and
# activates it in a transient unit, so that it outlives the connection; its output is followed. `follow ID LINES` resumes.
# AFTER: this RUN's deployment of secrets left some that come after the activation.
# nixos-rebuild's own unit name: the two exclude each other.
# shellcheck disable=SC2015,SC2086,SC2154
unit=nixos-rebuild-switch-to-configuration
profile=/nix/var/nix/profiles/system
is() { readlink -f "$1"; }

build() { # sets $new
  link=$1 source=$2 query=$3 attribute=$4; shift 4
  # Ours if it is there, whatever the link says meanwhile; else what was deployed last.
  if nix-store --check-validity "$source" 2>/dev/null; then deployed=$source
  else
    [ ! -d "${link%/*}" ] || safe "${link%/*}" "$link"
    deployed=$(readlink -f "$link") && [ -e "$deployed" ] || give_up "there is no flake at $link; run deploy-flake first"
    case $deployed in /nix/store/*) ;; *) give_up "$link leads out of the store, to $deployed" ;; esac
    echo "note: the flake there is $deployed, ours is $source; deploy-flake brings it"
  fi
  new=$(nix --extra-experimental-features 'nix-command flakes' build --no-link --print-out-paths "$@" \
    "path:$deployed$query#$attribute.config.system.build.toplevel") || { answer failed; exit 1; }
}
unchanged() { # a `test` is asked for to see it happen; one that began, but never ended, is not done, nor is an old boot entry
  ! waiting initrd || return 1
  for root in /nix/var/nix/gcroots/lollypops-*; do [ "$(is "$root")" != "$new" ] || return 1; done
  case $action in
    switch) [ "$(is /run/current-system)" = "$new" ] && [ "$(is $profile)" = "$new" ] ;;
    boot) [ "$(is $profile)" = "$new" ] ;;
    *) return 1 ;;
  esac
}
start() { # the unit, which runs this very program as `activate`
  umask 077
  mkdir -p "/run/lollypops/$id" || give_up "no room in /run"
  d=/run/lollypops/$id
  ln -sfn "$new" "/nix/var/nix/gcroots/lollypops-$id"
  { printf '%s\n' "$text"; printf "id=%s action=%s new='%s' run='%s' d='%s'\nactivate\n" "$id" "$action" "$new" "$run" "$d"; } >"$d/run"
  : >"$d/log"
  tries=0
  until systemd-run --quiet --no-ask-password --collect --service-type=exec --unit=$unit -E LOCALE_ARCHIVE -E HOME=/root -E PATH="$PATH" \
    -p StandardOutput="append:$d/log" -p StandardError="append:$d/log" /bin/sh "$d/run" 2>"$d/err"; do
    # A unit that ended can stay loaded and keep its name; stopping it frees that, if not at once.
    tries=$((tries + 1)) state_now=$(systemctl is-active $unit)
    case $state_now$((tries / 25)) in
      inactive0 | failed0) systemctl stop $unit 2>/dev/null; sleep 0.2 ;;
      *) cat "$d/err"; tidy; give_up "the activation could not be started; does another one run? (systemctl status $unit: $state_now)" ;;
    esac
  done
  sweep
}
tidy() { rm -rf -- "$d" "/nix/var/nix/gcroots/lollypops-$id"; rmdir /run/lollypops 2>/dev/null || :; }

activate() { # in the unit. First `test`, and only what works becomes the default of the next boot.
  old=$(is /run/current-system) before=$(is $profile) after=/run/lollypops/after.$run
  case $action in
    switch) tried && commit && settle_removals && finish deployed "switched to $new" ;;
    boot) commit && finish deployed "$new is the default of the next boot" ;;
    test) tried && finish deployed "$new runs until the next boot" ;;
    dry-activate) stc dry-activate && finish unchanged "a dry run" ;;
  esac
}
settle() { # what waited for the new system; or tells in $broken
  settle_owners
  [ ! -e "$after/run" ] || sh "$after/run" || { broken="the secrets that come after the activation are not in place"; return 1; }
  settle_units
}
tried() { stc test && { settle || finish failed "$new runs now, but is not the boot default: $broken"; }; }
failing() { systemctl list-units --state=failed,auto-restart --plain --no-legend | awk '$1 !~ /\.scope$/ { print $1 }'; }
mended() { # units that failed for want of a secret whose owner came with this system; its module sees to that before they start
  settle_owners || return 1
  ill=$(failing | grep -vxF -- "${ailing:-/}")
  [ -n "$ill" ] || return 0
  echo "secrets have got their owners; starting again:" $ill
  systemctl restart -- $ill
}
stc() { # ACTION; exit 0 alone proves nothing
  ailing=$(failing)
  NIXOS_INSTALL_BOOTLOADER=0 "$new/bin/switch-to-configuration" "$1"; got=$?
  now=$(is /run/current-system) why=$(tail -n 1 "$d/log")
  case $1/$got in
    test/0) [ "$now" != "$new" ] || return 0 ;;
    test/4) [ "$now" != "$new" ] || ! mended || return 0 ;;
    */0) return 0 ;;
  esac
  if [ "$now" = "$new" ]; then now='it runs now, but is not the boot default'; elif [ "$now" = "$old" ]; then now='the old system runs'; fi
  finish failed "switch-to-configuration $1 ended with $got ($now): $why"
}
commit() {
  nix-env -p $profile --set "$new" || finish failed "the profile could not be set"
  NIXOS_INSTALL_BOOTLOADER=0 "$new/bin/switch-to-configuration" boot && { remember pending "$(lines pending | grep -vx initrd)"; return; }
  got=$? why=$(tail -n 1 "$d/log")
  [ -z "$before" ] || nix-env -p $profile --set "$before" || finish unknown "the boot loader failed with $got, and the profile could not be set back: $why"
  [ "$action" != switch ] || now=', and the new system runs until then'
  finish failed "the boot loader failed with $got; the old system is to boot next${now-}; look at /boot: $why"
}
finish() { # nobody may be there to tidy up
  rm -rf -- "/nix/var/nix/gcroots/lollypops-$id" "$after"
  say "$*" >"$d/result.new"; mv "$d/result.new" "$d/result"; exit 0
}
sweep() { # what earlier activations left whose control machine went away, or the power
  find /run/lollypops -mindepth 1 -maxdepth 1 ! -name 'secrets.*' ! -name 'after.*' -mmin +60 -exec rm -rf -- {} +
  for root in /nix/var/nix/gcroots/lollypops-*; do [ -d "/run/lollypops/${root##*-}" ] || rm -f -- "$root"; done
}

follow() { # prints the log from line $1 + 1 on, whole lines only, telling where it is, until there is a result
  seen=$1 ended=''
  while [ -z "$ended" ]; do
    [ ! -e "$d/result" ] || ended=1
    # No answer at all is a systemd that executes itself anew.
    [ -n "$ended" ] || case $(systemctl is-active $unit 2>/dev/null) in
      inactive | failed | unknown) [ -e "$d/result" ] || { lost_unit; return; } ;;
    esac
    lines=$(wc -l <"$d/log")
    if [ "$lines" -gt "$seen" ]; then sed -n "$((seen + 1)),${lines}p" "$d/log"; seen=$lines; answer at "$seen"
    elif [ -z "$ended" ]; then sleep 0.2; fi
  done
  answer "$(cat "$d/result")"
  tidy
}
lost_unit() { rm -rf -- "$d"; answer unknown "the activation ended without a word; running: $(is /run/current-system)"; }

main() {
  answer here
  [ "$(id -u)" = 0 ] || give_up "activating needs root: set deployment.sudo.enable, or deploy as root"
  if [ "$1" = follow ]; then
    id=$2 d=/run/lollypops/$2
    [ -d "$d" ] || { answer unknown "the target knows nothing of this activation; running: $(is /run/current-system)"; return; }
    answer started; follow "$3"; return
  fi
  id=$1 action=$2 new=$3 run=$4 did='' after=/run/lollypops/after.$4
  trap 'rm -rf -- "$after"; rmdir /run/lollypops 2>/dev/null' EXIT   # until the unit sees to it
  [ -z "$5" ] || [ -e "$after/run" ] || give_up "the secrets that come after the activation are gone, perhaps by another deployment; deploy again"
  shift 5
  [ -e /run/current-system ] || give_up "this target never ran NixOS (no /run/current-system); nixos-anywhere installs it"
  [ -n "$new" ] || build "$@"
  [ -x "$new/bin/switch-to-configuration" ] || give_up "$new is no NixOS system"
  if [ "$action" = build ]; then answer unchanged "built $new"; return; fi
  if unchanged; then
    [ "$action" = boot ] || { settle || give_up "$new is unchanged, but $broken"; settle_removals; }
    if [ -z "$did" ] && [ ! -e "$after/changed" ]; then answer unchanged "$new"; else answer deployed "$new runs already; what waited for it is done"; fi
    return
  fi
  start
  trap - EXIT
  answer started
  follow 0
}
