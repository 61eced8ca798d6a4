#!/bin/bash
# Activation of a stand-in, by NixOS's rules: a failing command marks its snippet as failed and the rest goes on;
# /run/current-system moves in any case; the exit status says whether any snippet failed. $1: the toplevel.
top=$(readlink -f "$1")
PATH=/usr/sbin:/usr/bin:/sbin:/bin
any=0 last=0
trap 'last=$? any=1' ERR
end_of() { if [[ $last != 0 ]]; then echo "Activation script snippet '$1' failed ($last)"; fi; last=0; }

#@snippet@
end_of fixture

# The units: what an earlier system linked goes, this system's come; Debian's own entries stay.
into=/etc/systemd/system
find $into -type l -lname '/nix/store/*' -delete
for link in "$top$into"/*.* "$top$into"/*.wants/*; do
  [[ -L $link ]] || continue
  mkdir -p "$(dirname "${link#"$top"}")"
  ln -sfn "$link" "${link#"$top"}"
done
end_of etc

mkdir -p /nix/var/nix/gcroots
ln -sfn "$top" /run/current-system
ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
exit $any
