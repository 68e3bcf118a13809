#!/bin/sh
# fuzz.sh DURATION: runs every fuzz target of the project, one after the other, each for the duration.
set -eu

duration=${1:-60s}
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
  targets=$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$dir"/*_test.go | sort)
  for target in $targets; do
    echo "== $dir $target"
    go test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$duration"
  done
done
