# shellcheck shell=sh
# On the target: ONLY, then NAME PATH MODE OWNER GROUP AS LENGTH of each secret; their values follow on stdin as base64,
# `.` between two, the end mark after the last. All of them are put in place, or none. ONLY=compare changes nothing.
# GNU utilities, as NixOS has them.
# shellcheck disable=SC2015,SC2016,SC2034,SC2086,SC3013,SC2154
umask 077
PATH=$PATH:/run/current-system/sw/bin:/usr/sbin:/sbin
LC_ALL=C; export LC_ALL

answer() { printf '%s %s\n' "$mark" "$*"; }
give_up() { answer failed "$*; nothing was changed"; exit 1; }
get() { eval "name=\$name$1 path=\$path$1 mode=\$mode$1 owner=\$owner$1 group=\$group$1 as=\$as$1 length=\$length$1"; }

# Root writes only where nobody else can put another directory in the way.
safe() {
  (cd -- "$1" && [ "$(pwd -P)" = "$1" ]) || give_up "$name: a symbolic link is among the parents of $path; write the real path"
  parent=$1; set -- /
  while [ -n "$parent" ]; do set -- "$@" "$parent"; parent=${parent%/*}; done
  stat -c '%u %a' -- "$@" | while read -r uid bits; do
    [ "$uid" = 0 ] || exit 1
    case $bits in 1???) ;; *[2367]? | *[2367]) exit 1 ;; esac
  done || give_up "$name: a parent of $path can be changed by others than root"
}
enter() { # sets $tmp to the private directory, beside its place, for secrets of directory $1
  k=1
  while [ $k -le $dirs ]; do eval "known=\$dir$k tmp=\$tmp$k"; [ "$known" != "$1" ] || return 0; k=$((k + 1)); done
  if [ "$who" = root ]; then
    place=$1; while [ ! -e "${place:-/}" ] && [ ! -L "$place" ]; do place=${place%/*}; done
    safe "$place"
  fi
  dirs=$k; eval "dir$k=\$1 tmp$k=\$part/compare.$k"
  if [ "$only" = compare ]; then tmp=$part/compare.$k; mkdir -- "$tmp"; return; fi
  [ -d "$1" ] || (umask 066; mkdir -p -- "$1") || give_up "$name: cannot make its directory $1"
  rm -rf -- "$1"/.lollypops.??????????
  tmp=$(mktemp -d -- "$1/.lollypops.XXXXXXXXXX") || give_up "$name: cannot write in $1"
  eval "tmp$k=\$tmp"; ln -s -- "$tmp" "$part/t.$k"
}
exists() { [ -z "$2" ] || getent "$1" -- "$2" >/dev/null; }
own() { # gives the files $@ owner and mode; an owner that does not exist yet leaves them to root alone
  [ $# -gt 0 ] || return 0
  { chown -- "$key_owner" "$@" && chmod -- "$key_mode" "$@"; } 2>/dev/null || give_up "$name: cannot give it to $key_owner"
}
collect() { # every value in a file with its owner and mode: all that can fail does so here
  key=''; set --
  mounts=$nl$(printf '%b' "$(cut -d' ' -f5 /proc/self/mountinfo)")$nl
  i=0; while [ $i -lt $n ]; do
    i=$((i + 1)); get $i; [ "$as" = "$who" ] || continue
    if [ -d "$path" ] && [ ! -L "$path" ]; then give_up "$name: $path is a directory"; fi
    case $mounts in *"$nl$path$nl"*) give_up "$name: $path is a mount point; set the path to its source" ;; esac
    enter "${path%/*}"; file=$tmp/${path##*/}
    [ ! -e "$file" ] || give_up "$name: another secret has the path $path"
    base64 -d <"$part/$i" >"$file" || give_up "$name: no room, or bad data"
    if [ "$key" != "$owner:$group $mode" ]; then
      own "$@"; set --; key="$owner:$group $mode" key_owner=$owner:$group key_mode=$mode orphan=''
      exists passwd "$owner" && exists group "$group" || { key_owner=0:0 key_mode=0400 orphan=1; }
    fi
    [ -z "$orphan" ] || echo "$name: $owner${group:+:$group} does not exist yet; only root can read it until the next deployment"
    set -- "$@" "$file"
  done
  own "$@"
}
compare() { # drops what is already in place; counts and names the rest
  set --
  i=0; while [ $i -lt $n ]; do
    i=$((i + 1)); get $i; [ "$as" = "$who" ] || continue
    enter "${path%/*}"; file=$tmp/${path##*/}
    if [ -f "$path" ] && [ ! -L "$path" ] && cmp -s -- "$file" "$path" &&
      [ "$(stat -c %u:%g:%a -- "$file")" = "$(stat -c %u:%g:%a -- "$path")" ]; then
      set -- "$@" "$file"; echo same >>"$part/same"
    else echo "$name" >>"$part/changed"; fi
  done
  [ $# = 0 ] || rm -f -- "$@"
}
prepare() {
  dirs=0; collect; compare
  [ $dirs = 0 ] || [ "$only" = compare ] || find "$part"/t.*/ -mindepth 1 -exec sync -- {} + || give_up "no room"
}
commit() { # nothing but renames is left
  set --
  for link in "$part"/t.*; do
    [ -L "$link" ] || continue
    find "$link/" -mindepth 1 -exec mv -f -t "$link/.." -- {} + || exit 1
    set -- "$@" "$link/.."
  done
  [ $# = 0 ] || sync -- "$@" || exit 1
}
clean() { for link in "$part"/t.*; do [ ! -L "$link" ] || rm -rf -- "$(readlink "$link")"; done; }
as_writers() { # runs step $1 as each account that writes, with that account's rights
  for who in $writers; do
    part=$stage/$who
    if [ "$who" = root ]; then (trap - EXIT; $1)
    else
      { printf '%s\n' "$text" "stage='$stage' who='$who' part='$part'" "nl='$nl'" 'take "$@"' "$1"; } |
        setpriv --reuid="$who" --regid="$(id -g -- "$who")" --init-groups env -i PATH="$PATH" HOME=/ sh
    fi || return 1
  done
}
take() { # the words, into numbered variables
  only=$1 n=0; shift
  while [ $# -gt 0 ]; do
    n=$((n + 1)); eval "name$n=\$1 path$n=\$2 mode$n=\$3 owner$n=\$4 group$n=\$5 as$n=\$6 length$n=\$7"; shift 7
  done
}
receive() { # the values into files, still encoded, of a directory in memory; all of them, to the last byte
  timeout 600 awk -v stage="$stage" -v end="E$mark" 'BEGIN { i = 1; file = stage "/1" } $0 == end { whole = 1; exit }
    $0 == "." { close(file); file = stage "/" ++i; next } { print > file }
    END { exit !whole }' || give_up "the stream was cut"
  i=0; while [ $i -lt $n ]; do
    i=$((i + 1)); get $i
    [ "$(wc -c <"$stage/$i")" = "$length" ] || give_up "$name: not all of it arrived"
    mv -- "$stage/$i" "$stage/$as/"
  done
  for who in $writers; do [ "$who" = root ] || chown -R -- "$who:" "$stage/$who"; done
}
lock() { # one deployment at a time; the lock goes with this shell, however it ends, and the directory with its last user
  while mkdir -p /run/lollypops && chmod 711 /run/lollypops && exec 9</run/lollypops; do
    flock -w 60 9 || give_up "another deployment of secrets is under way"
    [ ! /run/lollypops -ef /proc/self/fd/9 ] || return 0
  done
  give_up "cannot make /run/lollypops"
}
set_stage() {
  stage=$(mktemp -d /run/lollypops/secrets.XXXXXXXXXX) || give_up "no room in /run"
  chmod 711 "$stage"; writers=root; mkdir "$stage/root"
  trap 'as_writers clean; rm -rf -- "$stage"; rmdir /run/lollypops 2>/dev/null' EXIT
  i=0; while [ $i -lt $n ]; do
    i=$((i + 1)); get $i
    case " $writers " in *" $as "*) continue ;; esac
    id -u -- "$as" >/dev/null 2>&1 || give_up "$name: there is no user $as yet; deploy it without secrets first"
    writers="$writers $as"; mkdir "$stage/$as"
  done
}
main() {
  exec 2>&1
  cd /   # other accounts work from here too
  trap '' PIPE; trap 'exit 1' HUP INT TERM   # a message to a dead ssh must not kill the clean-up
  answer here
  [ "$(id -u)" = 0 ] || give_up "writing secrets needs root: set deployment.sudo.enable, or deploy as root"
  take "$@"
  lock; set_stage; receive
  as_writers prepare || exit 1
  changed=$(cat "$stage"/*/changed 2>/dev/null | wc -l) same=$(cat "$stage"/*/same 2>/dev/null | wc -l)
  if [ "$only" = compare ]; then
    cat "$stage"/*/changed 2>/dev/null | sed 's/^/would change: /'
    answer 'done' "$((changed)) would change, $((same)) unchanged"; return
  fi
  trap '' HUP INT TERM
  as_writers commit || { answer unknown "a rename failed: some of the secrets may be new, all of them are whole"; exit 1; }
  cat "$stage"/*/changed 2>/dev/null | sed 's/^/changed: /'
  answer 'done' "$((changed)) changed, $((same)) unchanged"
}
