#!/bin/sh
# The builder of toplevel.nix: runs on a Debian target with what its /usr/bin has. Its variables come from there.
# shellcheck disable=SC2154
set -eu
PATH=/usr/bin:/bin
mkdir -p "$out/bin" "$out/etc/systemd/system/multi-user.target.wants" "$out/sw"
for unit in $unitFiles; do ln -s "${unit#*=}" "$out/etc/systemd/system/${unit%%=*}"; done
for unit in $wanted; do ln -s "../$unit" "$out/etc/systemd/system/multi-user.target.wants/$unit"; done
ln -s /usr/bin "$out/sw/bin"
ln -s /usr "$out/systemd"
printf %s "$initInterface" >"$out/init-interface-version"
printf %s "$version" >"$out/nixos-version"
printf %s "$system" >"$out/system"
head -c "${kernelKiB}k" /dev/zero >"$out/kernel"
cat >"$out/init" <<INIT # what /run holds is gone with the last boot
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
$out/activate $out
ln -sfn $out /run/booted-system
exec /usr/lib/systemd/systemd
INIT
for each in $specialisation; do mkdir -p "$out/specialisation"; ln -s "${each#*=}" "$out/specialisation/${each%%=*}"; done

{ sed '/^#@snippet@$/,$d' "$activate"; printf '%s\n' "$snippet"; sed '1,/^#@snippet@$/d' "$activate"; } >"$out/activate"
printf '#!/bin/bash\n%s\n' "$dry" >"$out/dry-activate"
cat >"$out/pre-switch-checks" <<CHECKS
#!/bin/bash
(
${check:-true}
) || { echo "Pre-switch check 'fixture' failed"; exit 1; }
CHECKS
cp "$installBootloader" "$out/install-bootloader"
cp "$switchToConfiguration" "$out/bin/switch-to-configuration"
chmod 0555 "$out/init" "$out/activate" "$out/dry-activate" "$out/pre-switch-checks" "$out/install-bootloader" "$out/bin/"*
