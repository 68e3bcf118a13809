#!/bin/sh
# toolchain.sh: says what is missing to build: Go 1.26 or later.
set -eu

if ! command -v go >/dev/null 2>&1; then
  echo "Go is not installed: Etherloom is built with Go 1.26 or later (https://go.dev/dl/)" >&2
  exit 1
fi
version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null || echo go0)
number=${version#go}
major=${number%%.*}
rest=${number#*.}
minor=${rest%%[!0-9]*}
if [ "$major" -lt 1 ] || { [ "$major" -eq 1 ] && [ "${minor:-0}" -lt 26 ]; }; then
  echo "Go $number is too old: Etherloom is built with Go 1.26 or later (https://go.dev/dl/)" >&2
  exit 1
fi
