// The library's version: its one place, which CMake reads too.
#pragma once

#define LOWRANK_VERSION_MAJOR 0
#define LOWRANK_VERSION_MINOR 1
#define LOWRANK_VERSION_PATCH 0

namespace lowrank {

/// The version as numbers; see https://semver.org. While the major one is 0, a minor one may break programs.
inline constexpr int version_major = LOWRANK_VERSION_MAJOR;
inline constexpr int version_minor = LOWRANK_VERSION_MINOR;
inline constexpr int version_patch = LOWRANK_VERSION_PATCH;

} // namespace lowrank
