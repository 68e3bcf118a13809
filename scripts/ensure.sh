#!/bin/sh
# ensure.sh PROGRAM:PACKAGE...
#
# Makes sure that programs are on this machine. What is missing is installed from Debian's packages when this runs as root
# on a system that has apt-get; otherwise it is named, and the exit code is 1. No service that a package brings is started:
# tests start their own.
set -eu

missing=
for pair in "$@"; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "These packages are needed and not installed:$missing" >&2
  echo "Install them (on Debian: sudo apt-get install$missing), or run this as root." >&2
  exit 1
fi
echo "Installing what is missing:$missing"
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d # which packages ask before they start a service, see invoke-rc.d(8)
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
# shellcheck disable=SC2086 # a list of packages
if ! apt-get -qq install -y --no-install-recommends $missing >/dev/null 2>&1; then
  apt-get -qq update
  # shellcheck disable=SC2086 # a list of packages
  apt-get -qq install -y --no-install-recommends $missing >/dev/null
fi
