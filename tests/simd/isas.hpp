// The instruction sets that tests run their kernels under: all that this CPU has.
#pragma once

#include <vector>

#include "lowrank/simd/dispatch.hpp"

inline std::vector<lowrank::simd::Isa> all_isas() {
    std::vector<lowrank::simd::Isa> isas;
    for (int i = 0; i <= static_cast<int>(lowrank::simd::best_isa()); ++i) {
        isas.push_back(lowrank::simd::Isa(i));
    }
    return isas;
}
