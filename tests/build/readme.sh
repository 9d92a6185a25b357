#!/bin/bash
# The README's program compiles with the library's headers alone, within its budget of time, and trains:
# readme.sh COMPILER FOLDER
set -euo pipefail
compiler=$1 folder=$2
source=$(realpath "$(dirname "$0")/../..")
mkdir -p "$folder"
cd "$folder"

# seconds COMMAND…: the processor time that it takes.
seconds() {
    local TIMEFORMAT='%U %S'
    { time "$@" >&3 2>&4; } 2>&1 | awk '{ print $1 + $2 }'
}
exec 3>&1 4>&2

sed -n '/^```cpp$/,/^```$/p' "$source/README.md" | sed '1d; /^```$/q' | sed '$d' >program.cpp
grep -q 'int main' program.cpp
# The budget is 8 seconds, or three and a half times a yardstick that includes much of the standard library: machines
# differ. Others' load slows either of two compilations by a quarter and more, so the best of up to three rounds counts.
printf '#include <regex>\n#include <iostream>\nint main(int, char** a) { std::cout << std::regex_match(a[0], std::regex("a+")); }\n' >yardstick.cpp
for round in 1 2 3; do
    yardstick=$(seconds "$compiler" -std=c++20 -O2 yardstick.cpp -o yardstick)
    spent=$(seconds "$compiler" -std=c++20 -O2 -Wall -Wextra -Werror -I"$source/include" -MD -MF used program.cpp -o program -pthread)
    echo "round $round: compiled in $spent s; the yardstick in $yardstick s"
    is_within=$(awk -v s="$spent" -v y="$yardstick" 'BEGIN { print s <= 8 || s <= 3.5 * y }')
    [ "$is_within" = 0 ] || break
done
if grep -E '/(nlohmann|Eigen|CLI|fmt)/|/pcre2' used; then
    echo "found a header of another library, expected none"
    exit 1
fi
[ "$is_within" = 1 ] || {
    echo "expected at most 8 s, or 3.5 times the yardstick"
    exit 1
}

./program | tee output
awk '{ loss = $NF; if (NR == 1) first = loss } END { exit !(NR == 3 && loss < first / 10) }' output || {
    echo "expected three lines with a falling loss"
    exit 1
}
