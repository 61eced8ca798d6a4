# shellcheck shell=sh
# On the target, in the unit: the activation, and the guard that takes back a bad one. The new system runs on trial until it is
# confirmed over a new connection; only then do profile and boot default move. All else ends on the old system.
# What happened is judged by where /run/current-system, the profile and the boot entries lead: exit codes tell half of it.
# In $d: `pending`, a directory that whoever decides renames; `was`, how things stood; `log`, `activated`, `result`.
# shellcheck disable=SC1091,SC2015,SC2034,SC2086,SC2154,SC2254
seconds() { read -r up _ </proc/uptime; printf %s "${up%%.*}"; }   # a clock that nobody sets
running() { is /run/current-system; }
generation() { link=$(readlink $profile) || link=; link=${link#system-}; printf %s "${link%-link}"; }
ignored() (set -f; for pattern in $ignore; do case $1 in $pattern) exit 0 ;; esac; done; exit 1)
newly_failed() { failing | grep -vxF -- "${ailing:-/}" | while read -r one; do ignored "$one" || printf ' %s' "$one"; done; }
last_words() { grep -v '^ *$' "$d/log" | tail -n 1; }

stc() { # SYSTEM ACTION; sets $got. At the limit its whole process group ends; 11 means that another one holds the lock
  until=$(($(seconds) + 120))
  while :; do
    NIXOS_INSTALL_BOOTLOADER=0 timeout -k 10 "$limit" "$1/bin/switch-to-configuration" "$2" && got=0 || got=$?
    [ $got = 11 ] && [ "$(seconds)" -lt $until ] || return $got
    say "another activation holds the lock; trying again"; sleep 2
  done
}
activate() {
  old=$(running) before=$(generation) had=$(cd ${profile%/*} && echo system-*-link)
  PATH=$old/sw/bin:$PATH   # whatever the new system lacks
  ignore=$(printf %s "$ignore" | sed 's/\\/&&/g')   # unit names have backslashes, which a pattern takes for quotes
  printf "old='%s' before='%s' had='%s'\n" "$old" "$before" "$had" >"$d/was" || bad "no room in /run"
  case $action in
    switch) try; keep; finish deployed "switched to $new$kept" ;;
    test) try; finish deployed "$new runs until the next boot$kept" ;;
    boot) keep; finish deployed "$new is the default of the next boot" ;;
    dry-activate) stc "$trial" dry-activate && finish unchanged "a dry run"; finish failed "dry-activate ended with $got: $(last_words)" ;;
  esac
}
try() {
  ailing=$(failing) kept=''
  stc "$trial" test
  judge
  settle || bad "$broken"
  check_health
  [ -z "$confirm" ] || confirmed
  ill=$(newly_failed)   # of those that took longer to fail
  [ -z "$ill" ] || [ -n "$keep_failed" ] || bad "units failed:$ill"
}
judge() { # 17 and 22 are older programs' ways to say 1; some exit with 0 where they should with 1
  ill=$(newly_failed)
  case $got/$(running) in
    "0/$trial" | "4/$trial")
      [ -z "$ill" ] || { mended && ill=$(newly_failed); }
      [ -z "$ill" ] || [ -z "$keep_failed" ] || { kept=", with failed units:$ill" ill=''; }
      [ -z "$ill" ] || bad "units failed:$ill" ;;
    124/* | 137/*) bad "the activation did not end within $limit s" ;;
    "2/$trial") bad "an activation snippet failed: $(grep '^Activation script snippet' "$d/log" | tail -n 1)" ;;
    "0/$old" | "1/$old" | "11/$old" | "17/$old" | "22/$old" | "100/$old")
      ls /run/nixos/*-list >/dev/null 2>&1 || finish failed "switch-to-configuration test ended with $got, and nothing changed: $(last_words)" ;;
  esac
  case $got/$(running) in "0/$trial" | "4/$trial") ;; *) bad "switch-to-configuration test ended with $got: $(last_words)" ;; esac
}
mended() { # units that failed for want of a secret whose owner came with this system; its module sees to that before they start
  settle_owners || return 1
  say "secrets have got their owners; starting again:$ill"
  systemctl restart -- $ill
}
settle() { # what waited for the new system; or tells in $broken
  settle_owners
  [ -z "$secrets_after" ] || [ -e "$after/run" ] || { broken="the secrets that come after the activation are gone, perhaps by another deployment"; return 1; }
  [ ! -e "$after/run" ] || sh "$after/run" || { broken="the secrets that come after the activation are not in place"; return 1; }
  settle_units
}
check_health() { # all at once
  i=0; while [ $i -lt $checks ]; do i=$((i + 1)); check $i >"$d/check$i" 2>&1 & done
  wait
  sick=''; i=0
  while [ $i -lt $checks ]; do
    i=$((i + 1)); eval "name=\$check$i"
    case $(tail -n 1 "$d/check$i") in healthy) ;; *) sick="$sick${sick:+, }$name"; sed "s/^/health check $name: /" "$d/check$i" ;; esac
  done
  [ -z "$sick" ] || bad "health check failed: $sick"
}
check() { # NUMBER; its last line tells how it went
  eval "timeout=\${timeout$1} tries=\${retries$1} cmd=\${cmd$1}"
  until timeout -k 5 "$timeout" /bin/sh -c "$cmd" </dev/null; do
    status=$?; [ $status != 124 ] || status="$status, after $timeout s"
    [ "$tries" -gt 0 ] || { printf '\nexit %s\n' "$status"; return; }
    tries=$((tries - 1)); sleep 1
  done
  printf '\nhealthy\n'
}
confirmed() {
  : >"$d/activated"; until=$(($(seconds) + confirm))
  while [ -d "$d/pending" ] && [ "$(seconds)" -lt $until ]; do sleep 0.1; done
  ! mv "$d/pending" "$d/expired" 2>/dev/null || bad "nobody confirmed within $confirm s over a new connection"
  [ ! -d "$d/refused" ] || bad "$(cat "$d/refused/why")"
}
bad() { # WHY: the trial ends, or what came of a system that is not on trial is told
  if [ -z "$confirm" ] || [ "$old" = "$trial" ]; then finish failed "$* ($(state))"; fi
  back "$*"
}
state() {
  case $(running) in "$trial") printf %s "$trial runs, but is not the boot default" ;; "$old") printf %s "the old system runs" ;; *) running ;; esac
}
back() {
  say "going back to $old: $*"
  stc "$old" test
  case $got/$(running) in
    11/* | 124/* | 137/*) ;;   # it may be the old one because nothing was done
    */"$old") ill=$(newly_failed); finish rolled-back "$*; $old runs${ill:+, with failed units:$ill}" ;;
  esac
  finish unknown "$*; going back to $old ended with $got. Look at the host: $(running) runs"
}

keep() { # profile, then boot default
  : >"$d/keeping"
  if [ -n "$number" ]; then nix-env -p $profile --switch-generation "$number"; else nix-env -p $profile --set "$new"; fi
  [ "$(is $profile)" = "$new" ] || unkeep "the profile could not be set: $(last_words)"
  stc "$new" boot && bootable "$new" || unkeep "the boot loader failed with $got; look at /boot: $(last_words)"
  # Nothing is taken back from here on.
  (remember pending "$(lines pending | grep -vx initrd)")
  [ "$action" = boot ] || (settle_removals)
}
bootable() { # SYSTEM; some programs exit with 0 though they did nothing; where the entries name systems, this one must be among them
  entries='/boot/loader/entries /boot/grub/grub.cfg'
  ! grep -rqs 'init=/nix/store/' $entries || grep -rqsF "init=$1/init" $entries
}
default_is() { # SYSTEM; which only systemd-boot's files tell
  entry=$(sed -n 's/^default  *//p' /boot/loader/loader.conf 2>/dev/null) && [ -n "$entry" ] && grep -qsF "init=$1/init" "/boot/loader/entries/$entry"
}
unkeep() { # WHY. The new generation goes first, or the old system would write its entry and copy its kernel again
  say "generation ${before:-none} again: $*"; made=$(generation) undone=1
  if [ "$made" != "$before" ]; then
    if [ -n "$before" ]; then nix-env -p $profile --switch-generation "$before"; else rm -f $profile; fi
    case " $had " in *" system-$made-link "*) ;; *) rm -f "$profile-$made-link" ;; esac
  fi
  if [ "$(generation)" != "$before" ]; then undone=''; elif [ -n "$before" ]; then stc "$(is $profile)" boot && bootable "$(is $profile)" || default_is "$(is $profile)" || undone=''
  else default_is "$old" || undone=''; fi   # an installer writes entries of generations only
  if [ -z "$undone" ]; then
    [ -z "$confirm" ] || stc "$old" test
    finish unknown "$*; the old boot entries could not be written again. Look at /boot before you reboot; $(running) runs"
  fi
  [ -n "$confirm" ] || finish failed "$*; the old system is to boot next ($(state))"   # as after `boot`, which is no trial
  bad "$*"
}

ended() { # by systemd, when the unit has; a result is there unless somebody killed it
  [ -d "$d" ] && [ ! -e "$d/result" ] || exit 0
  # The machine goes down: what boots is the old system.
  [ "$(systemctl is-system-running)" != stopping ] || exit 0
  why="the activation was killed"; [ "$EXIT_CODE" != exited ] || why=$(last_words)
  [ -s "$d/was" ] || finish failed "$why before it began"
  . "$d/was"
  [ "$action" != dry-activate ] || finish failed "$why"
  [ ! -e "$d/keeping" ] || unkeep "$why"
  bad "$why"
}
finish() { # OUTCOME WORDS; whoever follows takes them away, or else time does
  rm -rf -- "/nix/var/nix/gcroots/lollypops-$id" "/nix/var/nix/gcroots/lollypops-old-$id" "$after"
  systemd-run --quiet --collect --unit="lollypops-$id" --on-active=900 sh -c "rm -rf $d; rmdir ${d%/*} 2>/dev/null || :"
  say "$*" >"$d/result.new"; mv "$d/result.new" "$d/result"; exit 0
}
