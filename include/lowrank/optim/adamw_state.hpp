// What AdamW remembers of a parameter: its moments, as they are or in 8 bits.
#pragma once

#include <cstdint>
#include <string>

#include "lowrank/tensor/tensor.hpp"

namespace lowrank {

/// The moments of one parameter.
template <class A, DeviceTag D>
struct AdamWState {
    std::string name;
    std::int64_t steps = 0;       ///< updates of this parameter so far
    Tensor<A, D> exp_avg = {};    ///< first moment, of the parameter's shape; undefined in 8 bits
    Tensor<A, D> exp_avg_sq = {}; ///< second moment, likewise
    /// In 8 bits: codes of the parameter's shape, and a scale for each dynamic_block of them. Undefined otherwise.
    Tensor<std::uint8_t, D> exp_avg_codes = {}, exp_avg_sq_codes = {};
    Tensor<float, D> exp_avg_absmax = {}, exp_avg_sq_absmax = {};

    bool is_8bit() const { return exp_avg_codes.defined(); }

    /// Calls `visit(name, member)` for every tensor that a state may have.
    template <class Visit>
    static void parts(Visit&& visit) {
        visit("exp_avg", &AdamWState::exp_avg);
        visit("exp_avg_sq", &AdamWState::exp_avg_sq);
        visit("exp_avg_codes", &AdamWState::exp_avg_codes);
        visit("exp_avg_absmax", &AdamWState::exp_avg_absmax);
        visit("exp_avg_sq_codes", &AdamWState::exp_avg_sq_codes);
        visit("exp_avg_sq_absmax", &AdamWState::exp_avg_sq_absmax);
    }
};

} // namespace lowrank
