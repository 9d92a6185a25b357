#!/usr/bin/env bash
# Runs the example of two ops and compares what it prints.
. "$(dirname "$0")/trial.sh"
expect 0 ""
diff out - <<'END' || fail "another output"
softplus(0) = 0.693147, softplus(1) = 1.313262
outer: 0.5 3 4 | -1 -6 -8
gradients: ok
END
finish
