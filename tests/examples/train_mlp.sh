#!/usr/bin/env bash
# Runs the training of a network: its accuracy on points that were held out, and a map in which both arms are seen.
. "$(dirname "$0")/trial.sh"
expect 0 "epoch 60"
grep -Eq '^epoch 60  loss 0\.0[0-9]+  accuracy (1\.000|0\.9[89][0-9]), held out (1\.000|0\.9[789][0-9])$' out || fail "the accuracy"
[ "$(grep -cE '^[.#]{51}$' out)" = 21 ] || fail "a map of 21 lines"
grep -E '^[.#]*$' out | sed -n 11p | grep -Eq '\.#+\.+#+\.|#\.+#+\.+#' || fail "the line in the middle crosses arm after arm"
finish
