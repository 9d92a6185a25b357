# Joins a header of the library and all that it includes of the library into one:
#   awk -v root=include -f amalgamate.awk include/lowrank/lowrank.hpp >lowrank.hpp
function emit(path,    line, name) {
    while ((getline line < path) > 0) {
        if (line ~ /^#pragma once/) {
            continue
        }
        if (line ~ /^#include "lowrank\//) {
            name = line
            gsub(/^#include "|"$/, "", name)
            if (!(name in seen)) {
                seen[name] = 1
                emit(root "/" name)
            }
        } else {
            print line
        }
    }
    close(path)
}
BEGIN {
    print "// The library in one header, made from its files by amalgamate.awk."
    print "#pragma once"
    emit(ARGV[1])
    exit
}
