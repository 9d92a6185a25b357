#!/bin/bash
# A configuration that misses a dependency stops and names its Debian package: dependencies.sh COMPILER FOLDER
set -euo pipefail
compiler=$1 folder=$2
source=$(realpath "$(dirname "$0")/../..")

# names_package PACKAGE OPTION: configures with an option that hides the package.
names_package() {
    rm -rf "$folder"
    if message=$(cmake -S "$source" -B "$folder" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DLOWRANK_TESTS=ON -DLOWRANK_EXAMPLES=ON \
        "$2" 2>&1); then
        echo "configured without $1"
        exit 1
    fi
    if ! tr -s '[:space:]' ' ' <<<"$message" | grep -q "On Debian: apt-get install $1 "; then
        printf 'expected a message that names %s, found:\n%s\n' "$1" "$message"
        exit 1
    fi
    echo "without $1: named"
}

names_package nlohmann-json3-dev -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
names_package libpcre2-dev -DCMAKE_IGNORE_PATH=/usr/include
names_package libeigen3-dev -DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON
names_package libcli11-dev -DCMAKE_DISABLE_FIND_PACKAGE_CLI11=ON
names_package libfmt-dev -DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON
names_package doctest-dev -DCMAKE_DISABLE_FIND_PACKAGE_doctest=ON
rm -rf "$folder"
