#!/usr/bin/env bash
# Runs the example of a module: its parameters, and what it has learned.
. "$(dirname "$0")/trial.sh"
expect 0 "state.weight  [16, 16]  trained"
[ "$(grep -c 'trained$' out)" = 6 ] || fail "six parameters"
grep -Eq '^loss [0-9.]+e-0[3-9]; 0.7 before 0.2: (0.9|1.0)[0-9], 0.2 before 0.8: 0.0[0-9]$' out || fail "what was learned"
finish
