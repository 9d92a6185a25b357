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
# The budget is 8 seconds, or three and a half times a yardstick that includes much of the standard library: machines and
# their load differ. The load also changes meanwhile, so the yardstick is the mean of one before and one behind.
printf '#include <regex>\n#include <iostream>\nint main(int, char** a) { std::cout << std::regex_match(a[0], std::regex("a+")); }\n' >yardstick.cpp
before=$(seconds "$compiler" -std=c++20 -O2 yardstick.cpp -o yardstick)
spent=$(seconds "$compiler" -std=c++20 -O2 -Wall -Wextra -Werror -I"$source/include" -MD -MF used program.cpp -o program -pthread)
behind=$(seconds "$compiler" -std=c++20 -O2 yardstick.cpp -o yardstick)
if grep -E '/(nlohmann|Eigen|CLI|fmt)/|/pcre2' used; then
    echo "found a header of another library, expected none"
    exit 1
fi

yardstick=$(awk -v b="$before" -v a="$behind" 'BEGIN { print (b + a) / 2 }')
echo "compiled in $spent s; the yardstick in $yardstick s"
awk -v s="$spent" -v y="$yardstick" 'BEGIN { exit s > 8 && s > 3.5 * y }' || {
    echo "expected at most 8 s, or 3.5 times the yardstick"
    exit 1
}

./program | tee output
awk '{ loss = $NF; if (NR == 1) first = loss } END { exit !(NR == 3 && loss < first / 10) }' output || {
    echo "expected three lines with a falling loss"
    exit 1
}
