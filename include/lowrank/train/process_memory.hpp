// How much memory this process uses and used, and how much the machine has left, as Linux tells.
#pragma once

#include <fstream>
#include <string>

namespace lowrank {

namespace detail {

/// The line "<key>: <number> kB" of a file of /proc, in megabytes; 0 where there is none.
inline double proc_megabytes(const char* file, const std::string& key) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with(key + ":")) {
            return std::stod(line.substr(key.size() + 1)) * 1024 / 1e6;
        }
    }
    return 0;
}

} // namespace detail

/// The highest memory use of this process so far, in megabytes (VmHWM); mapped pages count. 0 where the system does not
/// tell.
inline double peak_memory_mb() {
    return detail::proc_megabytes("/proc/self/status", "VmHWM");
}

/// From here on peak_memory_mb counts anew, from what is used now. Nothing happens where the system does not allow it.
inline void reset_peak_memory() {
    std::ofstream("/proc/self/clear_refs") << "5\n";
}

/// Its memory use now (VmRSS); likewise.
inline double resident_memory_mb() {
    return detail::proc_megabytes("/proc/self/status", "VmRSS");
}

/// What new allocations can have without swapping (MemAvailable); likewise.
inline double available_memory_mb() {
    return detail::proc_megabytes("/proc/meminfo", "MemAvailable");
}

} // namespace lowrank
