#!/bin/sh
# Unpacks Debian packages into a folder: the root of an image without a shell and without a package manager.
#
#     scripts/rootfs.sh FOLDER PACKAGE...
#
# What they depend on is not followed, so that it is the list that says what is in the image. Their control data is left
# in var/lib/dpkg/status.d, where scanners for vulnerabilities look for it.
set -eu

root=$1
shift
mkdir -p "$root/var/lib/dpkg/status.d"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User=root download "$@"
for package in *.deb; do
    dpkg-deb --extract "$package" "$root"
    dpkg-deb --field "$package" > "$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)"
done
find "$root/usr/share/doc" ! -type d ! -name copyright -delete
rm -rf "$root/usr/share/man" "$root/usr/share/info" "$root/usr/share/locale" "$root/usr/share/lintian" "$root/usr/share/bug"
# Tables of character sets for iconv, which Python does not use.
rm -rf "$root"/usr/lib/*-linux-gnu/gconv
find "$root" -type d -empty -path '*/usr/share/*' -delete
