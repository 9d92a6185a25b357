# Sets lowrank_version to what include/lowrank/version.hpp says.
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/../version.hpp lines REGEX "#define LOWRANK_VERSION_(MAJOR|MINOR|PATCH)")
string(REGEX REPLACE "[^0-9]+([0-9]+)" "\\1." lowrank_version "${lines}")
string(REGEX REPLACE "\\.$" "" lowrank_version "${lowrank_version}")
