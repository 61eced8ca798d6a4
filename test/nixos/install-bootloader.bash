#!/bin/bash
# Does on /boot what systemd-boot's installer does: an entry and a kernel for each generation of the system profile, and
# the given system as the default. A full /boot fails it, as in life; so does the file /run/standin/bootloader-fails.
# /var/log/install-bootloader.log has a line for each call. $1: the toplevel to boot by default.
set -e
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "$(date +%s) NIXOS_INSTALL_BOOTLOADER=${NIXOS_INSTALL_BOOTLOADER-unset} $1" >>/var/log/install-bootloader.log
[[ ! -e /run/standin/bootloader-fails ]] || { echo 'install-bootloader: told to fail' >&2; exit 1; }
mkdir -p /boot/EFI/nixos /boot/loader/entries
default=none
for link in /nix/var/nix/profiles/system-*-link; do
  [[ -e $link/kernel ]] || continue
  number=${link##*/system-} number=${number%-link}
  top=$(readlink -f "$link")
  kernel=/EFI/nixos/${top##*/}-kernel
  [[ -e /boot$kernel ]] || { cp "$top/kernel" "/boot$kernel.tmp" && mv "/boot$kernel.tmp" "/boot$kernel"; }
  printf 'title NixOS\nversion Generation %s\nlinux %s\noptions init=%s/init\n' "$number" "$kernel" "$top" \
    >"/boot/loader/entries/nixos-generation-$number.conf"
  [[ $top != "$(readlink -f "$1")" ]] || default=nixos-generation-$number.conf
done
printf 'timeout 5\ndefault %s\n' "$default" >/boot/loader/loader.conf.tmp
mv /boot/loader/loader.conf.tmp /boot/loader/loader.conf
