# shellcheck shell=sh
# On the target: ONLY, then NAME PATH MODE OWNER GROUP AS LENGTH of each secret; their values follow on stdin as base64,
# `.` between two, the end mark after the last. All of them are put in place, or none. ONLY=compare changes nothing.
# GNU utilities, as NixOS has them.
# shellcheck disable=SC2015,SC2016,SC2034,SC2086,SC3013,SC2154
umask 077
get() { eval "name=\$name$1 path=\$path$1 mode=\$mode$1 owner=\$owner$1 group=\$group$1 as=\$as$1 length=\$length$1"; }

enter() { # sets $tmp to the private directory, beside its place, for secrets of directory $1
  k=1
  while [ $k -le $dirs ]; do eval "known=\$dir$k tmp=\$tmp$k"; [ "$known" != "$1" ] || return 0; k=$((k + 1)); done
  dirs=$k; eval "dir$k=\$1 tmp$k=\$part/compare.$k"
  if [ "$only" = compare ]; then tmp=$part/compare.$k; mkdir -- "$tmp"; return; fi
  if [ "$who" = root ]; then make_directory "$1" "$name"
  else [ -d "$1" ] || (umask 066; mkdir -p -- "$1") || give_up "$name: cannot make the directory $1"; fi
  rm -rf -- "${1%/}"/.lollypops.??????????
  tmp=$(mktemp -d -- "${1%/}/.lollypops.XXXXXXXXXX") || give_up "$name: cannot write in $1"
  eval "tmp$k=\$tmp"; ln -s -- "$tmp" "$part/t.$k"
}
exists() { [ -z "$2" ] || getent "$1" -- "$2" >/dev/null; }
own() { # gives the files $@ owner and mode; an owner that does not exist yet leaves them to root alone
  [ $# -gt 0 ] || return 0
  { chown -- "$key_owner" "$@" && chmod -- "$key_mode" "$@"; } 2>/dev/null || give_up "$key_name: cannot give it to $key_owner"
}
collect() { # every value in a file with its owner and mode: all that can fail does so here
  key=''; set --
  mounts=$nl$(printf '%b' "$(cut -d' ' -f5 /proc/self/mountinfo)")$nl
  i=0; while [ $i -lt $n ]; do
    i=$((i + 1)); get $i; [ "$as" = "$who" ] || continue
    if [ -d "$path" ] && [ ! -L "$path" ]; then give_up "$name: $path is a directory"; fi
    case $mounts in *"$nl$path$nl"*) give_up "$name: $path is a mount point; set the path to its source" ;; esac
    parent=${path%/*}; enter "${parent:-/}"; file=$tmp/${path##*/}
    [ ! -e "$file" ] || give_up "$name: another secret has the path $path"
    base64 -d <"$part/.v$i" >"$file" || give_up "$name: no room, or bad data"
    if [ "$key" != "$owner:$group $mode" ]; then
      own "$@"; set --; key="$owner:$group $mode" key_name=$name key_owner=$owner:$group key_mode=$mode orphan=''
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
    parent=${path%/*}; enter "${parent:-/}"; file=$tmp/${path##*/}
    if [ -f "$path" ] && [ ! -L "$path" ] && cmp -s -- "$file" "$path" &&
      [ "$(stat -c %u:%g:%a -- "$file")" = "$(stat -c %u:%g:%a -- "$path")" ]; then
      set -- "$@" "$file"; echo same >&8
    else printf '%s\n' "$name" >&7; fi
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
# Runs step $1 as each account that writes, with that account's rights: what it reports comes through descriptors of root's,
# and root opens nothing below what it gave away. The lock is not handed on, and nobody takes forever.
as_writers() {
  for who in $writers; do
    part=$stage/$who
    if [ "$who" = root ]; then (trap - EXIT; $1)
    else
      { printf '%s\n' "$text" "stage='$stage' who='$who' part='$part'" "nl='$nl'" 'take "$@"' "$1"; } |
        timeout -k 5 300 setpriv --reuid="$who" --regid="$(id -g -- "$who")" --init-groups env -i PATH="$PATH" HOME=/ sh 9>&-
    fi 7>>"$stage/.changed" 8>>"$stage/.same" || return 1
  done
}
take() { # the words, into numbered variables
  only=$1 n=0; shift
  while [ $# -gt 0 ]; do
    n=$((n + 1)); eval "name$n=\$1 path$n=\$2 mode$n=\$3 owner$n=\$4 group$n=\$5 as$n=\$6 length$n=\$7"; shift 7
  done
}
receive() { # the values into files, still encoded, of a directory in memory; all of them, to the last byte
  timeout 600 awk -v stage="$stage" -v end="E$mark" 'BEGIN { i = 1; file = stage "/.v1" } $0 == end { whole = 1; exit }
    $0 == "." { close(file); file = stage "/.v" ++i; next } { print > file }
    END { exit !whole }' || give_up "the stream was cut; no secret was changed"
  i=0; while [ $i -lt $n ]; do
    i=$((i + 1)); get $i
    [ "$(wc -c <"$stage/.v$i")" = "$length" ] || give_up "$name: not all of it arrived; no secret was changed"
    mv -- "$stage/.v$i" "$stage/$as/"
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
  rm -rf /run/lollypops/secrets.??????????   # of one that was killed: we hold the lock
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
  trap '' PIPE; trap 'exit 1' HUP INT TERM   # a message to a dead ssh must not kill the clean-up
  answer here
  [ "$(id -u)" = 0 ] || give_up "writing secrets needs root: set deployment.sudo.enable, or deploy as root"
  take "$@"
  lock; set_stage; receive
  as_writers prepare || exit 1
  changed=$(wc -l <"$stage/.changed") same=$(wc -l <"$stage/.same")
  if [ "$only" = compare ]; then
    sed 's/^/would change: /' "$stage/.changed"
    answer 'done' "$((changed)) would change, $((same)) unchanged"; return
  fi
  trap '' HUP INT TERM
  as_writers commit || { answer unknown "a rename failed: some of the secrets may be new, all of them are whole"; exit 1; }
  sed 's/^/changed: /' "$stage/.changed"
  answer 'done' "$((changed)) changed, $((same)) unchanged"
}
