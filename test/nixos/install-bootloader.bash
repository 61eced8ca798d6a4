#!/bin/bash
# Does on /boot what systemd-boot's installer does: an entry and a kernel for each generation of the system profile, and
# the given system as the default. A full /boot fails it, as in life; so does the file /run/standin/bootloader-fails.
# /var/log/install-bootloader.log has a line for each call. $1: the toplevel to boot by default.
set -e
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "$(date +%s) NIXOS_INSTALL_BOOTLOADER=${NIXOS_INSTALL_BOOTLOADER-unset} $1" >>/var/log/install-bootloader.log
[[ ! -e /run/standin/bootloader-fails ]] || { echo 'install-bootloader: told to fail' >&2; exit 1; }
mkdir -p /boot/EFI/nixos /boot/loader/entries
generations=(/nix/var/nix/profiles/system-*-link)
kernel() { local top; top=$(readlink -f "$1"); echo "/EFI/nixos/${top##*/}-kernel"; }
entry() { local number=${1##*/system-}; echo "nixos-generation-${number%-link}.conf"; }

# What belongs to no generation goes first, the rest of a copy that failed among it.
known=()
for link in "${generations[@]}"; do known+=("/boot$(kernel "$link")" "/boot/loader/entries/$(entry "$link")"); done
for file in /boot/EFI/nixos/* /boot/loader/entries/*; do
  [[ " ${known[*]} " == *" $file "* ]] || rm -f "$file"
done

default=none
for link in "${generations[@]}"; do
  [[ -e $link/kernel ]] || continue
  kernel=$(kernel "$link") entry=$(entry "$link")
  [[ -e /boot$kernel ]] || { cp "$link/kernel" "/boot$kernel.tmp"; mv "/boot$kernel.tmp" "/boot$kernel"; }
  printf 'title NixOS\nversion Generation %s\nlinux %s\noptions init=%s/init\n' "${entry//[^0-9]/}" "$kernel" "$(readlink -f "$link")" \
    >"/boot/loader/entries/$entry.tmp"
  mv "/boot/loader/entries/$entry.tmp" "/boot/loader/entries/$entry"
  [[ $(readlink -f "$link") != "$(readlink -f "$1")" ]] || default=$entry
done
printf 'timeout 5\ndefault %s\n' "$default" >/boot/loader/loader.conf.tmp
mv /boot/loader/loader.conf.tmp /boot/loader/loader.conf
