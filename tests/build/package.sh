#!/bin/bash
# The library serves a consumer's project by find_package, add_subdirectory and FetchContent, without and with files:
# package.sh COMPILER FOLDER BUILD, where BUILD is where the library was built
set -euo pipefail
compiler=$1 folder=$2 build=$3
source=$(realpath "$(dirname "$0")/../..")
rm -rf "$folder"

# try WAY ON|OFF OPTION…: configures, builds and runs the consumer.
try() {
    local way=$1 files=$2 own=$folder/$1-$2
    shift 2
    cmake --no-warn-unused-cli -S "$source/tests/package" -B "$own" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Debug \
        -DHOW="$way" -DWITH_FILES="$files" -DLOWRANK_SOURCE="$source" "$@" >"$folder/log" || { cat "$folder/log"; exit 1; }
    cmake --build "$own" >"$folder/log" || { cat "$folder/log"; exit 1; }
    local found
    found=$("$own/consumer")
    grep -q 'gradient 6' <<<"$found" || { echo "$way: found '$found', expected a gradient of 6"; exit 1; }
    [ "$files" = OFF ] || grep -q 'absent.safetensors' <<<"$found" || { echo "$way: files: found '$found'"; exit 1; }
    echo "$way, files $files: built and run"
}

mkdir -p "$folder"
cmake --install "$build" --prefix "$folder/prefix" >"$folder/log" || { cat "$folder/log"; exit 1; }
try find_package OFF -DCMAKE_PREFIX_PATH="$folder/prefix"
try find_package ON -DCMAKE_PREFIX_PATH="$folder/prefix"
try add_subdirectory OFF
try fetch_content ON

# Without JSON the core is found, and files are refused with the name of the package.
try find_package OFF -DCMAKE_PREFIX_PATH="$folder/prefix" -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
if (try find_package ON -DCMAKE_PREFIX_PATH="$folder/prefix" -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON) \
    >"$folder/refused" 2>&1; then
    echo "files were found without JSON"
    exit 1
fi
tr -s '[:space:]' ' ' <"$folder/refused" | grep -q 'apt-get install nlohmann-json3-dev' || { cat "$folder/refused"; exit 1; }

# A library without files can be configured, to be installed.
cmake -S "$source" -B "$folder/without" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DLOWRANK_FILES=OFF -DLOWRANK_TESTS=OFF \
    -DLOWRANK_EXAMPLES=OFF >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }

# The library in one header.
cmake --build "$build" --target lowrank_single_header >"$folder/log" || { cat "$folder/log"; exit 1; }
single=$build/single
printf '#include "lowrank.hpp"\nint main() { return lowrank::Tensor<float>::zeros({2}).item(); }\n' >"$folder/single.cpp"
"$compiler" -std=c++20 -Wall -Wextra -Werror -fsyntax-only -I"$single" "$folder/single.cpp"
! grep -q '#include "' "$single/lowrank.hpp"
echo "one header: $(wc -l <"$single/lowrank.hpp") lines compile"
rm -rf "$folder"
