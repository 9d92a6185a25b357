#!/usr/bin/env bash
# Runs the tour of autograd and compares what it prints.
. "$(dirname "$0")/trial.sh"
expect 0 ""
diff <(sed 's/element .*(/element … (/' out) - <<'END' || fail "another output"
loss 4, gradient of w: 16 20 24, of x: none
d(w·x + w·w)/dw = 6 9 12
recorded with NoGrad: no
with a detached factor: 3 instead of 6
gradient descent found 1.414214
checkpoint: the same gradient, f ran 2 times instead of 1
cube: ok
a slip: input 0, element … (error 0.5)
END
finish
