# shellcheck shell=sh
# On the target, as root: NAME=VALUE…, `--`, LINK SOURCE QUERY ATTRIBUTE OPTION… builds the system unless $new is given, and
# activates it in a transient unit (guard.sh), so that it outlives the connection; its output is followed until it asks to be
# confirmed, or ends. `follow`, `confirm` and `refuse` ID LINES WHY go on from there.
# The words: host, any (right_machine), id, action, new, run (of go-task), after (some secrets come after the activation), by (whom), limit and confirm (seconds; no
# confirm: no guard), keep_failed, ignore, specialisation, previous (generation); check timeout retries cmd for each health check.
# nixos-rebuild's own unit name: the two exclude each other.
# shellcheck disable=SC2015,SC2016,SC2034,SC2086,SC2154,SC2231
unit=nixos-rebuild-switch-to-configuration
profile=/nix/var/nix/profiles/system
is() { readlink -f "$1"; }

build() { # sets $new
  link=$1 source=$2 query=$3 attribute=$4; shift 4
  # Ours if it is there, whatever the link says meanwhile; else what was deployed last.
  if [ "$(readlink -- "$link")" = "$source" ] || nix-store --check-validity "$source" 2>/dev/null; then deployed=$source
  else
    [ ! -d "${link%/*}" ] || safe "${link%/*}" "$link"
    deployed=$(readlink -f "$link") && [ -e "$deployed" ] || give_up "there is no flake at $link; run deploy-flake first"
    case $deployed in /nix/store/*) ;; *) give_up "$link leads out of the store, to $deployed" ;; esac
    echo "note: the flake there is $deployed, ours is $source; deploy-flake brings it"
  fi
  new=$(nix --extra-experimental-features 'nix-command flakes' build --no-link --print-out-paths "$@" \
    "path:$deployed$query#$attribute.config.system.build.toplevel" </dev/null) || { answer failed; exit 1; }
}
find_previous() { # sets $new and $number to the generation before the profile's own
  number=''; this=$(generation)
  for link in $profile-*-link; do
    one=${link%-link}; one=${one##*-}
    [ ! -e "$link" ] || [ "$one" -ge "${this:-0}" ] || [ "$one" -le "${number:-0}" ] || number=$one
  done
  [ -n "$number" ] || give_up "there is no generation before ${this:-the first}"
  new=$(is "$profile-$number-link")
}
unchanged() { # a `test` is asked for to see it happen; one that began, but never ended, is not done, nor is an old boot entry
  ! waiting initrd || return 1
  for root in /nix/var/nix/gcroots/lollypops-*; do [ "$(is "$root")" != "$new" ] || return 1; done
  case $action in
    switch) [ "$(running)" = "$trial" ] && [ "$(is $profile)" = "$new" ] && bootable "$new" ;;
    boot) [ "$(is $profile)" = "$new" ] && bootable "$new" ;;
    *) return 1 ;;
  esac
}
wanted() { # a build may outlive the connection; only somebody who is there is told of the activation
  answer ready "$stood"
  timeout 20 grep -qxm1 go || give_up "nobody was there any more when the system was ready to be activated"
  trap '' HUP INT TERM   # from here on it is the unit's, whoever listens
}
start() { # the unit, which runs this very program; systemd runs it again when it has ended
  umask 077
  mkdir -p "$d" && { [ -z "$confirm" ] || mkdir "$d/pending"; } &&
    { printf '%s\n' "$text"; printf "take \"\$@\"; new='%s' trial='%s' number='%s' d='%s'; give_up() { say \"\$*\"; exit 1; }\n" "$new" "$trial" "$number" "$d"
      say 'case ${EXIT_CODE-} in "") activate ;; *) ended ;; esac'; } >"$d/run" && : >"$d/log" || { tidy; give_up "no room in /run"; }
  ln -sfn "${stood%% *}" "/nix/var/nix/gcroots/lollypops-old-$id"
  answer starting "$stood"
  tries=0
  until launch 2>"$d/err"; do
    case $(systemctl show -p ExecStart $unit) in *"$d/run"*) break ;; esac   # it was started all the same
    tries=$((tries + 1)) state_now=$(systemctl is-active $unit)
    case $state_now$((tries / 25)) in
      # One that ended can stay loaded and keep its name; this frees it, if not at once.
      inactive0 | failed0) systemctl stop $unit 2>/dev/null; systemctl reset-failed $unit 2>/dev/null ;;
      deactivating0) ;;
      inactive1 | failed1) cat "$d/err"; tidy; give_up "the activation could not be started" ;;
      *) tidy; give_up "the host is busy with: $(systemctl show -p Description --value $unit), since $(systemctl show -p ActiveEnterTimestamp --value $unit) (systemctl status $unit)" ;;
    esac
    sleep 0.2
  done
  sweep
}
launch() {
  systemd-run --quiet --no-ask-password --collect --service-type=exec --unit=$unit --description="$by" -E LOCALE_ARCHIVE -E HOME=/root -E PATH="$PATH" "$@" \
    -p StandardOutput="append:$d/log" -p StandardError="append:$d/log" -p TimeoutStopSec=$((limit * 2 + 60)) -p ExecStopPost="/bin/sh $d/run" /bin/sh "$d/run"
}
tidy() { # by another name first: what runs when the unit has ended is not to find half of it
  mv -- "$d" "$d.gone" 2>/dev/null; rm -rf -- "$d.gone" "/nix/var/nix/gcroots/lollypops-$id" "/nix/var/nix/gcroots/lollypops-old-$id"
  rmdir /run/lollypops 2>/dev/null || :
}
sweep() { # what earlier activations left whose control machine went away, or the power
  find /run/lollypops -mindepth 1 -maxdepth 1 ! -name 'secrets.*' ! -name 'after.*' -mmin +60 -exec rm -rf -- {} +
  for root in /nix/var/nix/gcroots/lollypops-*; do [ -d "/run/lollypops/${root##*-}" ] || rm -f -- "$root"; done
}

follow() { # prints the log from line $1 + 1 on, whole lines only, telling where it is, until it asks or has a result
  seen=$1 ended=''
  while [ -z "$ended" ]; do
    if [ -e "$d/result" ]; then ended=result; elif [ -e "$d/activated" ] && [ -d "$d/pending" ]; then ended=activated
    else case $(systemctl is-active $unit 2>/dev/null) in   # no answer at all is a systemd that executes itself anew
      # Killed with all that would go back; so that is started anew.
      inactive | failed | unknown) [ -e "$d/result" ] || { [ ! -e "$d/again" ] && (: >"$d/again") && { systemctl reset-failed $unit 2>/dev/null; launch -E EXIT_CODE=killed; }; } || ended=dead ;;
    esac; fi
    lines=$(wc -l <"$d/log")
    if [ "$lines" -gt "$seen" ]; then sed -n "$((seen + 1)),${lines}p" "$d/log"; seen=$lines; answer at "$seen"
    elif [ -z "$ended" ]; then sleep 0.1; fi
  done
  case $ended in
    activated) answer activated "${stood-}"; return ;;
    dead) answer unknown "the activation ended without a word. Look at the host: $(running) runs"; return ;;
  esac
  answer "$(cat "$d/result")"
  # Words that got lost are asked for again.
  ! timeout 20 grep -qxm1 heard || { systemctl stop "lollypops-$id.timer" 2>/dev/null; tidy; }
}
resume() { # VERB ID LINES WHY
  id=$2 d=/run/lollypops/$2 limit=600 by="lollypops-gen, going back"
  [ -d "$d" ] || { tidy; answer gone "$(running) $(is $profile)"; return; }
  case $1 in
    confirm) mv "$d/pending" "$d/confirmed" 2>/dev/null ;;
    refuse) say "$4" 2>/dev/null >"$d/pending/why" && mv "$d/pending" "$d/refused" 2>/dev/null ;;
  esac
  follow "$3"
}

take() { # the words; what is left is for `build`
  checks=0 number=''
  while [ "$1" != -- ]; do
    case $1 in check=*) checks=$((checks + 1)); eval "check$checks=\${1#*=}" ;;
      timeout=* | retries=* | cmd=*) eval "${1%%=*}$checks=\${1#*=}" ;;
      *) eval "${1%%=*}=\${1#*=}" ;;
    esac
    shift
  done
  after=/run/lollypops/after.$run
}
main() {
  answer here
  [ "$(id -u)" = 0 ] || give_up "activating needs root: set deployment.sudo.enable, or deploy as root"
  case $1 in follow | confirm | refuse) resume "$@"; return ;; esac
  take "$@"; right_machine "$host" "$any"; while [ "$1" != -- ]; do shift; done; shift
  trap 'rm -rf -- "$after"; rmdir /run/lollypops 2>/dev/null' EXIT   # until the unit sees to it
  trap 'exit 1' HUP INT TERM
  [ -z "$secrets_after" ] || [ -e "$after/run" ] || give_up "the secrets that come after the activation are gone, perhaps by another deployment; deploy again"
  [ -e /run/current-system ] || give_up "this target never ran NixOS (no /run/current-system); nixos-anywhere installs it"
  if [ -n "$previous" ]; then find_previous; elif [ -z "$new" ]; then build "$@"; fi
  trial=$new
  case $specialisation/$action in /* | */boot) ;; *) trial=$(is "$new/specialisation/$specialisation") ;; esac
  [ -x "$trial/bin/switch-to-configuration" ] || give_up "$new ${specialisation:+has no specialisation $specialisation, or }is no NixOS system"
  if [ "$action" = build ]; then answer unchanged "built $new"; return; fi
  if unchanged; then
    [ "$action" = boot ] || { settle || give_up "$new is unchanged, but $broken"; settle_removals; }
    if [ -z "$did" ] && [ ! -e "$after/changed" ]; then answer unchanged "$new"; else answer deployed "$new runs already; what waited for it is done"; fi
    return
  fi
  stood="$(running) $trial $new"   # what runs, what is tried, what is to boot: for whoever loses the connection
  wanted
  # Realised, so whole, and safe from the garbage collection from here on.
  d=/run/lollypops/$id
  ln -sfn "$new" "/nix/var/nix/gcroots/lollypops-$id" && nix-store --realise "$new" >/dev/null 2>&1 || { tidy; give_up "$new is not whole in the store there"; }
  start
  trap - EXIT
  follow 0
}
