#!/bin/bash
# Compiles each header of the library alone, with each of the given compilers: headers.sh g++ clang++
set -euo pipefail
cd "$(dirname "$0")/../../include"
for compiler; do
    find lowrank -name '*.hpp' | sort | xargs -P "$(nproc)" -I{} \
        "$compiler" -std=c++20 -I. -x c++ -fsyntax-only -Wall -Wextra -Werror -include {} /dev/null
    echo "$compiler: $(find lowrank -name '*.hpp' | wc -l) headers compile alone"
done
