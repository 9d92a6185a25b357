#!/bin/bash
# docs/options.md lists exactly the options of each program: options.sh FOLDER-OF-PROGRAMS
set -euo pipefail
page=$(realpath "$(dirname "$0")/../../docs/options.md")
status=0
for program in $(sed -n 's/^## \([a-z_]*\):.*/\1/p' "$page"); do
    listed=$(awk -v p="$program:" '/^## / { here = $2 == p } here' "$page" | sed -n 's/^| `\(--[a-z0-9-]*\)`.*/\1/p' | sort)
    known=$("$1/$program" --help | grep -oE '^  (-h,)?--[a-z0-9-]+' | sed 's/.*--/--/' | grep -v -- '^--help$' | sort)
    diff <(echo "$listed") <(echo "$known") || { echo "$program: '<' is on the page alone, '>' in --help alone"; status=1; }
done
exit $status
