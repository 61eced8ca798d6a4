# shellcheck shell=sh
# On the target: ONLY LATER WAITS PRUNE RUN, then NAME PATH MODE OWNER GROUP AS WHEN RESTART RELOAD INITRD EMPTY of
# each secret; on stdin follows, as base64, the value of each, the mark after it, and `end`. All are put in place, or none.
# ONLY=compare changes nothing. LATER: secrets that come after the activation stay in memory for the rebuild of this RUN; WAITS:
# units are left to it; PRUNE: files of ours that are not named any more as well. GNU utilities, as NixOS has them.
# A process takes as long as reading a hundred secrets, so none is started for each of them.
# shellcheck disable=SC2015,SC2016,SC2034,SC2086,SC2154,SC3013
umask 077

take() { # the words, into numbered variables; with the number of its directory
  n=0 dirs=0
  while [ $# -gt 0 ]; do
    n=$((n + 1)); eval "name$n=\$1 path$n=\$2 mode$n=\$3 owner$n=\$4 group$n=\$5 as$n=\$6 when$n=\$7 restart$n=\$8 reload$n=\$9"
    shift 9; eval "initrd$n=\$1 empty$n=\$2"; shift 2
    get $n; number dir "${path%/*}"; eval "k$n=$j"
    case $missing in *" $as "*) eval "when$n=after" ;; esac
    [ -n "$later" ] || eval "when$n=before"
  done
}
get() { eval "name=\$name$1 path=\$path$1 mode=\$mode$1 owner=\$owner$1 group=\$group$1 as=\$as$1 when=\$when$1 k=\${k$1-}"; }
number() { # sets $j to the place of $2 in the list $1, which it joins if it is new
  j=0; eval "count=\$${1}s"
  while [ $j -lt "$count" ]; do j=$((j + 1)); eval "known=\$$1$j"; [ "$known" != "$2" ] || return 0; done
  j=$((j + 1)); eval "${1}s=\$j $1$j=\$2"
}
all() { i=0; while [ $i -lt $n ]; do i=$((i + 1)); get $i; $1; done; }
each() { # DO: calls it for each secret of this time that $who writes; $file is its value
  i=0; while [ $i -lt $n ]; do
    i=$((i + 1)); get $i
    [ "$as" = "$who" ] && [ "$when" = "$now" ] || continue
    file=$part/$k/${path##*/} dir=${path%/*}; eval "file$i=\$file"
    $1
  done
}
refer() { # NAME NUMBER…: sets $words to what eval reads as the values of variables NAME1, NAME2…
  refer=$1 words=''; shift
  for x; do words="$words \"\$$refer$x\""; done
}

place() { # is this a place for a secret? Its directory is made
  if [ -d "$path" ] && [ ! -L "$path" ]; then give_up "$name: $path is a directory"; fi
  eval "[ -z \"\${seen$k-}\" ]" && [ "$only" != compare ] || return 0
  eval "seen$k=1"; dir=${dir:-/}
  if [ "$who" = root ]; then make_directory "$dir" "$name"
  else [ -d "$dir" ] || (umask 066; mkdir -p -- "$dir") || give_up "$name: cannot make the directory $dir"; fi
  for old in "${dir%/}"/.lollypops.??????????; do [ ! -e "$old" ] || rm -rf -- "$old"; done   # a kill left it
}
sort_by_owner() { number key "$owner:$group $mode"; eval "with_key$j=\"\${with_key$j-} $i\""; }
own() { # the secrets of key $1 get owner and mode; an owner that does not exist yet leaves them to root alone
  eval "key=\$key$1 some=\$with_key$1"; owner=${key% *} mode=${key##* }
  refer file $some
  if [ "$owner" != root: ] && ! eval "chown -- \"\$owner\" $words" 2>/dev/null; then
    if exists passwd "${owner%%:*}" && exists group "${owner#*:}"; then give_up "cannot give secrets to $owner"; fi
    [ "$who" = root ] || give_up "secrets of $who cannot be given to $owner"
    printf 'orphans %s\n' $some >&7; mode=0400
  fi
  [ "$mode" = 0400 ] || eval "chmod -- \"\$mode\" $words" || give_up "cannot set mode $mode"
}
pair() {
  if [ -f "$path" ] && [ ! -L "$path" ] && [ -r "$path" ]; then
    pairs="$pairs \"\$file$i\" \"\$path$i\"" paired="$paired $i"
  fi
}
compare() { # sets $same to the numbers of those that are in place already, with owner and mode
  pairs='' paired='' same=''; each pair
  [ -z "$paired" ] || same=" $({ eval "stat -c '%u:%g:%a:%s %n' -- $pairs" && eval "sha256sum -- $pairs"; } | awk -v numbers="$paired" '
    { sub(/^\\/, ""); line[NR] = $1; place[NR] = substr($0, length($1) + 2) }
    END {
      while ((getline <"/proc/self/mountinfo") == 1) { gsub(/\\040/, " ", $5); gsub(/\\134/, "\\", $5); mounted[$5] }
      n = split(numbers, number, " ")
      for (i = 1; i <= n; i++) {
        at = 2 * i; sum = at + 2 * n
        if (place[at] in mounted) print "mount", number[i]
        if (NR == 4 * n && line[at] == line[at - 1] && line[sum] == line[sum - 1]) printf "%s ", number[i]
      }
    }')"
  case $same in *mount*) get ${same##*mount }; give_up "$name: $path is a mount point; set the path to its source" ;; esac
}
tell() { # which differ
  case $same in *" $i "*) return ;; esac
  echo "changed $i" >&7; number place "$dir"
  eval "in_place$j=\"\${in_place$j-} $i\""
}
prepare() { # all that can fail: every changed value beside its place, with its owner and mode, on the disk
  each place
  keys=0; each sort_by_owner
  p=0; while [ $p -lt $keys ]; do p=$((p + 1)); own $p; done
  compare; places=0; each tell
  [ "$only" != compare ] || return 0
  p=0; while [ $p -lt $places ]; do
    p=$((p + 1)); eval "dir=\$place$p; refer file \$in_place$p"
    tmp=$(mktemp -d -- "$dir/.lollypops.XXXXXXXXXX") || give_up "cannot write in ${dir:-/}"
    printf '%s\n' "$tmp" >>"$part/.beside"
    eval "cp -p -t \"\$tmp\" -- $words" && within "$tmp" sync -- || give_up "no room in ${dir:-/}"
  done
}
within() { # DIR COMMAND…: calls it with all files of DIR as well
  within=$1; shift
  for file in "$within"/* "$within"/.[!.]* "$within"/..?*; do [ ! -f "$file" ] || set -- "$@" "$file"; done
  "$@"
}
beside() { # COMMAND…: calls it with the directories beside the places as well
  [ ! -e "$part/.beside" ] || while IFS= read -r tmp; do set -- "$@" "$tmp"; done <"$part/.beside"
  "$@"
}
move() {
  [ $# -gt 0 ] || return 0
  for tmp; do within "$tmp" mv -f -t "${tmp%/*}/" -- || return 1; shift; set -- "$@" "${tmp%/*}/"; done
  sync -- "$@"
}
commit() { beside move; }   # nothing but renames is left
clean() { beside rm -rf -- "$@"; }
clean_up() { # the values, and the directories beside their places
  set -- $writers; writers=''
  for who; do [ "$who" = root ] || [ ! -e "$stage/$who/.beside" ] || writers="$writers $who"; done
  as_writers clean
  part=$stage/root; clean "$stage"
}

# Runs step $1 as each account that writes at this time. What one says goes to a file of root's, who opens nothing below what was
# given away: with a descriptor of ours it could answer for us, or keep us from ending. Fails with the words of one that fails in $why.
as_writers() {
  for who in $writers; do
    part=$stage/$who
    if [ "$who" = root ]; then $1
    else
      printf '%s\n' "$text" "mark='' stage='$stage' who='$who' part='$part'" \
        "now='$now' only='$only' later='$later' missing='$missing'" 'shift 5; take "$@"' "$1" >"$stage/.do.$who" &&
        as_user "$who" sh <"$stage/.do.$who" >&7 2>&1
    fi 7>>"$stage/.said.$who" || { why=$(said | sed -n 's/^ failed //p' | tail -n 1); return 1; }
  done
}
add_writer() { case "$when $writers " in "$now "*" $as "*) ;; "$now "*) writers="$writers $as" ;; esac; }
said() { head -c $((n * 32 + 4096)) "$stage/.said.$who"; }   # an account can write to it without end
listen() { # sets $changed and $orphans to what the writers say, each of its own secrets; root alone leaves some to an owner to come
  changed='' orphans=''
  for who in $writers; do
    while read -r what i; do
      case $what in changed) ;; orphans) [ "$who" = root ] || continue ;; *) continue ;; esac
      case $i in '' | *[!0-9]*) continue ;; esac
      get $i; eval "known=\"\$$what \""
      case $as$known in *" $i "*) ;; "$who "*) eval "$what=\"\$$what $i\"" ;; esac
    done <<SAID
$(said)
SAID
  done
}

lock() { # one deployment at a time; it ends with this shell, however that ends
  exec 9</run/lollypops
  flock -w 60 9 || give_up "another deployment of secrets is under way"
}
age() { read -r stat 2>/dev/null <"/proc/$1/stat" && { set -- ${stat##*) }; shift 19; age=$1; }; }
set_stage() { # a directory in memory, named by this process; that of one that is gone was left by a kill
  for old in /run/lollypops/secrets.* /run/lollypops/after.*; do
    pid=${old##*.}; age=''; age ${pid%-*}
    [ "${pid#*-}" = "$age" ] || [ ! -d "$old" ] || rm -rf -- "$old"
  done
  age $$; stage=/run/lollypops/secrets.$$-$age
  trap 'clean_up; rmdir /run/lollypops 2>/dev/null' EXIT
}
receive() { # the values, to the last byte, as files
  [ $n -gt 0 ] || mkdir -p "$stage"
  all set_file
  { printf '%s\n' "$mark"; all print_file; } >"$stage/.list"
  timeout 600 base64 -d | (umask 377; awk -v list="$stage/.list" -v whole="$stage/.whole" '
    BEGIN { getline mark <list; while ((getline file <list) == 1) files[++n] = file; RS = mark }
    NR <= n { printf "%s", $0 >files[NR]; close(files[NR]); next }
    $0 == "end" { print >whole }')
  [ -e "$stage/.whole" ] || give_up "not all of it arrived, or there is no room in /run; no secret was changed"
  all refuse_empty
}
set_file() { # to where a value is received
  file=$stage/$as/$k; [ "$when" = before ] || file=$stage/.after/$as/$k
  [ -d "$file" ] || mkdir -p "$file" || give_up "no room in /run"
  file=$file/${path##*/}
}
print_file() { set_file; printf '%s\n' "$file"; }
refuse_empty() { set_file; eval "empty=\$empty$i"; [ -n "$empty" ] || [ -s "$file" ] || give_up "$name: its command printed nothing; no secret was changed"; }

add_path() { [ "$when" != "$now" ] && [ -z "$all" ] || paths=$paths$path$nl; }
others() { # the lines of $1 that are of no secret of this time, or with $2 of none at all
  all=${2-} paths=$nl; all add_path
  while IFS= read -r line; do
    case $line in '') continue ;; */*) case $paths in *"$nl/${line#*/}$nl"*) continue ;; esac ;; esac
    printf '%s\n' "$line"
  done <<LINES
$1
LINES
}
to_do() { # what is to be done once these secrets are in place
  [ -z "$removals" ] || printf '%s\n' "run $run" "$removals"
  [ ! -e $state/pending ] || others "$(lines pending)" | if [ "$now" = after ]; then cat; else grep -v -e '^run ' -e '^prune '; fi
  for i in $orphans; do get $i; printf '%s\n' "own $owner ${group:--} $mode $path"; done
  for i in $changed; do
    eval "initrd=\$initrd$i"; [ -z "$initrd" ] || echo initrd
    for kind in restart reload; do
      eval "units=\$$kind$i,"
      while [ -n "${units%,}" ]; do printf '%s\n' "unit $kind ${units%%,*} -"; units=${units#*,}; done
    done
  done
}
set_removals() { # what is ours and no longer named
  removals=$(others "$(lines secrets)" all | while IFS= read -r line; do
    id=${line#* }
    [ "$(identity "/${line#*/}")" != "${id%% *}" ] || printf '%s\n' "prune $line"
  done)
}
running() { # the same, where a unit that is started after this moment will be known by it
  lines pending | while IFS= read -r line; do
    case $line in
      unit\ *\ -) set -- $line; find_unit "$3"; printf '%s\n' "unit $2 $3 ${invocation:-none}" ;;
      *) printf '%s\n' "$line" ;;
    esac
  done
}
in_place() { # what is ours from now on
  others "$record"
  for who in $writers; do
    some=''; each some; refer path $some
    eval "stat -c '$who %i:%Y %n' -- $words"
  done
}
some() { some="$some $i"; }
recorded() { case "$record$nl" in *" $path$nl"*) ;; *) record_is_old=1 ;; esac; }
put() { # the secrets of this time into their places
  writers=''; all add_writer
  for who in $writers; do
    [ "$who" = root ] || { chmod 711 /run/lollypops "$stage" && chown -R -- "$who:" "$stage/$who"; } || give_up "there is no user $who"
  done
  as_writers prepare || give_up "${why:-$who could not write its secrets}"
  listen
  [ -z "$prune" ] || set_removals
  [ "$only" != compare ] || return 0
  to_do=$(to_do) record=$(lines secrets) record_is_old=$changed; all recorded
  [ -z "$record_is_old" ] || { mkdir -p $state && printf '%s\n' "$record" >$state/secrets.new; } || give_up "cannot write $state/secrets"
  [ -z "$to_do" ] && [ ! -e $state/pending ] || remember pending "$(printf '%s\n' "$to_do" | sort -u)"
  trap '' HUP INT TERM
  as_writers commit || { answer unknown "a rename failed: some of the secrets may be new, all of them are whole"; exit 1; }
  [ ! -e $state/pending ] || remember pending "$(running)"
  [ -z "$record_is_old" ] || remember secrets "$(in_place)" "$record"
}
report() { # what became of the secrets of this time
  for i in $changed; do get $i; say "$1: $name"; done
  by="a rebuild"; [ -z "$waits" ] || by="the rebuild that follows"
  for i in $orphans; do
    get $i; say "$name: $owner${group:+:$group} does not exist yet; only root can read it until $by changes that"
  done
}

add_missing() { # a user whose home comes with the activation
  case " root $missing " in *" $as "*) return ;; esac
  id -u -- "$as" >/dev/null 2>&1 || { missing="$missing $as "; [ -n "$later" ] || give_up "$name: there is no user $as yet; deploy the whole host, with switch"; }
}
keep() { # those that come after the activation, and this program
  rm -rf "/run/lollypops/after.$run"
  printf '%s\n' "$text" >"$stage/.after/program" &&
    printf '%s\n' "run='$run' missing='$missing' mark=deploy-secrets:" 'text=$(cat "/run/lollypops/after.$run/program")' 'eval "$text"' 'afterwards "$@"' >"$stage/.after/run" &&
    mv "$stage/.after" "/run/lollypops/after.$run" || give_up "no room in /run"
}
afterwards() { # in the unit of the activation
  only='' later=1 waits=1 prune='' removals='' now=after stage=/run/lollypops/after.$run; shift 5
  trap 'as_writers clean' EXIT
  take "$@"
  lock; put; report changed
  [ -z "$changed" ] || : >"$stage/changed"
}
main() {
  trap '' PIPE; trap 'exit 1' HUP INT TERM   # a message to a dead ssh must not kill the clean-up
  answer here
  [ -O /proc/1 ] || give_up "writing secrets needs root: set deployment.sudo.enable, or deploy as root"
  only=$1 later=$2 waits=$3 prune=$4 run=$5 now=before missing='' removals='' writers=''; shift 5
  take "$@"; all add_missing; [ -z "$missing" ] || take "$@"
  set_stage; receive; lock; put
  set -- $changed; changes=$# more='' total=0; all total
  [ $total = $n ] || more=", $((n - total)) to come after the activation"
  gone=0; [ -z "$removals" ] || gone=$(printf '%s\n' "$removals" | grep -c /)
  if [ "$only" = compare ]; then
    report 'would change'; [ -z "$removals" ] || printf '%s\n' "$removals" | sed 's/^prune [^ ]* [^ ]*/would remove:/'
    [ "$gone" = 0 ] || more="$more, $gone to remove"
    answer 'done' "$changes would change, $((total - changes)) unchanged$more"; return
  fi
  report changed
  [ $total = $n ] || keep
  [ "$gone" = 0 ] || more="$more, $gone removed once the new system is kept"
  [ -n "$waits" ] || [ ! -e $state/pending ] || { settle_owners; settle_units; } || give_up "the secrets are in place; $broken"
  [ -n "$waits" ] || ! waiting initrd || echo "the boot entry is written again by the next rebuild"
  answer 'done' "$changes changed, $((total - changes)) unchanged$more"
}
total() { [ "$when" != before ] || total=$((total + 1)); }
