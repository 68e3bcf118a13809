#!/bin/sh
# guest.sh [DIR]
#
# Unpacks the kernel of Debian's linux-image-cloud-amd64, with its modules, below DIR (/var/tmp/etherloom-guest) and
# prints DIR. Nothing is installed; what is there is used again. Tests boot it as a guest (lab.AddGuest).
set -eu

dir=${1:-/var/tmp/etherloom-guest}
if ! ls "$dir"/boot/vmlinuz-*-cloud-amd64 >/dev/null 2>&1; then
  if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
    echo "Guests need the kernel of Debian's linux-image-cloud-amd64, and this system has no apt-get to fetch it" >&2
    exit 1
  fi
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9]\)/\1/p' | head -n 1)
  if [ -z "$package" ]; then
    echo "apt-cache knows no linux-image-cloud-amd64: run apt-get update, on Debian" >&2
    exit 1
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  (cd "$work" && apt-get -qq download "$package" >&2 && dpkg-deb -x "$package"_*.deb root)
  mkdir -p "$dir"
  cp -a "$work/root/lib" "$dir/" # the kernel last: with it, all is there
  cp -a "$work/root/boot" "$dir/"
fi
echo "$dir"
