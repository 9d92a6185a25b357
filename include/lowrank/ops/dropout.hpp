// Dropout: elements become zero with probability p, and the others are scaled so that the mean stays.
#pragma once

#include <cstdint>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/dropout.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

namespace detail {

/// Throws OptionError for a p outside [0, 1), ShapeError when dropout has no seed of one element.
template <DeviceTag D>
void check_dropout(const char* op, double p, const Tensor<std::int64_t, D>& seed) {
    if (!(p >= 0.0 && p < 1.0)) {
        throw OptionError(concat(op, ": dropout probability: found ", p, ", expected 0 <= p < 1"));
    }
    if (p > 0.0 && (!seed.defined() || seed.numel() != 1)) {
        throw ShapeError(concat(op, ": dropout needs a seed with one element, found ",
                                seed.defined() ? seed.shape().str() : std::string("none")));
    }
}

} // namespace detail

/// y = x · keep / (1 − p). Whether element e (in row-major order) is kept is a pure function of the seed's value, the
/// `site` and e: see dropout_word. So the mask is the same on any number of threads and any instruction set, and
/// backward computes it again instead of keeping it.
///
/// `seed` lies on the device and is read there, so that a captured step can be replayed with another one: write or
/// make a new seed before each forward, and leave it unchanged until its backward has ended (which throws
/// AutogradError otherwise). Sites tell places in a model apart. p = 0 returns x.
/// Throws OptionError for a p outside [0, 1).
template <class T, DeviceTag D>
Tensor<T, D> dropout(const Tensor<T, D>& input, double p, const Tensor<std::int64_t, D>& seed, std::uint32_t site) {
    detail::check_dropout("dropout", p, seed);
    if (p == 0.0) {
        return input;
    }
    const auto apply = [p, site](const Tensor<T, D>& x, const Tensor<std::int64_t, D>& at) {
        Tensor<T, D> y = Tensor<T, D>::empty(x.shape());
        dropout_elements(D{}, x.numel(), x.data(), at.data(), site, p, y.mutable_data());
        return y;
    };
    const Tensor<T, D> x = contiguous(input);
    const Edge<T, D> ex = edge(x);
    const auto at = save(seed);
    const Tensor<T, D> result = record(
        apply(x, seed), bool(ex), [ex, apply, at](const Tensor<T, D>& dy) { ex.add(apply(contiguous(dy), at.get())); });
    if (const auto sx = save(x); sx.has_recipe()) { // or else x would be kept for it
        made_again_by(result, [sx, apply, at] { return apply(sx.get(), at.get()); });
    }
    return result;
}

} // namespace lowrank
