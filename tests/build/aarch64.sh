#!/bin/bash
# Compiles tests of the kernels for aarch64 and runs them under qemu: aarch64.sh COMPILER WORK BUILD (all but WORK unused).
# Without the cross compiler and qemu it is skipped: g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user.
set -euo pipefail
work=$2
tests=$(cd "$(dirname "$0")/.." && pwd)
for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
    if ! command -v $tool >/dev/null; then
        echo "skipped: $tool is missing (packages g++-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user)"
        exit 77
    fi
done

# Header-only libraries are the same for every processor; the rest of /usr/include is not.
rm -rf "$work"
mkdir -p "$work/include"
ln -s /usr/include/doctest /usr/include/nlohmann "$work/include"

compile() {
    aarch64-linux-gnu-g++ -std=c++20 -O2 -Wall -Wextra -Wno-psabi -Werror -I"$tests/../include" -I"$tests" \
        -isystem "$work/include" -DLOWRANK_TEST_FIXTURES="\"$tests/fixtures\"" "$@"
}
compile -c "$tests/test_main.cpp" -o "$work/test_main.o"
compile -c "$tests/reference.cpp" -o "$work/reference.o"
for test in simd/test_vec simd/test_memory ops/test_matmul; do
    name=$(basename $test)
    compile "$tests/$test.cpp" "$work/test_main.o" "$work/reference.o" -o "$work/$name" -pthread
    echo "== $test"
    qemu-aarch64 -L /usr/aarch64-linux-gnu "$work/$name"
done
