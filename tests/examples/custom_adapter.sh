#!/usr/bin/env bash
# Runs the example of an adapter: the factors that it has to find, and the merged matrix.
. "$(dirname "$0")/trial.sh"
expect 0 "learned factors 3.00 0.50 -1.00"
grep -q '^merged into the matrix: the same outputs$' out || fail "merged"
finish
