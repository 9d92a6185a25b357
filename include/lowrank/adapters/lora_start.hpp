// How new factors A and B start, as PEFT draws them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lowrank/adapters/lora_config.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/nn/initialize.hpp"
#include "lowrank/ops/matmul.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// Starting values of A [r, in] and B [out, r].
template <class C, DeviceTag D>
struct LoraStart {
    Tensor<C, D> a, b;
};

namespace detail {

/// r random orthonormal rows of length r, by Gram and Schmidt, twice.
inline std::vector<double> random_orthonormal(std::int64_t r, Rng& rng) {
    const auto n = static_cast<std::size_t>(r);
    std::vector<double> rows(n * n);
    for (double& value : rows) {
        value = rng.normal();
    }
    for (std::size_t i = 0; i < n; ++i) {
        double* row = rows.data() + i * n;
        for (int pass = 0; pass < 2; ++pass) {
            for (std::size_t k = 0; k < i; ++k) {
                const double* other = rows.data() + k * n;
                double dot = 0;
                for (std::size_t j = 0; j < n; ++j) {
                    dot += row[j] * other[j];
                }
                for (std::size_t j = 0; j < n; ++j) {
                    row[j] -= dot * other[j];
                }
            }
        }
        double square = 0;
        for (std::size_t j = 0; j < n; ++j) {
            square += row[j] * row[j];
        }
        for (std::size_t j = 0; j < n; ++j) {
            row[j] /= std::sqrt(square);
        }
    }
    return rows;
}

/// Every second row of an orthogonal matrix goes into A, the others into B: they start with BA = 0 and neither is 0.
/// PEFT's orthogonal_init.
template <class C, DeviceTag D>
LoraStart<C, D> orthogonal_factors(std::int64_t out, std::int64_t in, std::int64_t r, Rng& rng) {
    const std::vector<double> q = random_orthonormal(r, rng);
    std::vector<C> odd, even;
    for (std::int64_t i = 0; i < r; ++i) {
        std::vector<C>& rows = i % 2 == 0 ? odd : even;
        for (std::int64_t j = 0; j < r; ++j) {
            rows.push_back(static_cast<C>(q[static_cast<std::size_t>(i * r + j)]));
        }
    }
    const auto normal = [&](std::int64_t n) { return drawn<C, D>({n, r / 2}, [&] { return rng.normal() / 10; }); };
    const auto a = matmul(normal(in), Tensor<C, D>::from(odd, {r / 2, r}));
    return {contiguous(transpose(a, 0, 1)), matmul(normal(out), Tensor<C, D>::from(even, {r / 2, r}))};
}

} // namespace detail

/// Starting factors: A ~ U(±1/√in) (kaiming with a = √5) or N(0, 1/r), B = 0 or U(±1/√r); orthogonal: both random, and
/// BA = 0.
template <class C, DeviceTag D>
LoraStart<C, D> initial_lora(LoraInit init, std::int64_t out, std::int64_t in, std::int64_t r, Rng& rng) {
    if (init >= LoraInit::pissa) {
        throw OptionError(
            "init_lora_weights: pissa and olora start with attach_from_base, loftq with attach_loftq, eva "
            "with attach_eva");
    }
    if (init == LoraInit::orthogonal) {
        return detail::orthogonal_factors<C, D>(out, in, r, rng);
    }
    const double bound = 1 / std::sqrt(static_cast<double>(in)), b_bound = 1 / std::sqrt(static_cast<double>(r));
    LoraStart<C, D> start;
    start.a = init == LoraInit::gaussian
                  ? detail::drawn<C, D>({r, in}, [&] { return rng.normal() / static_cast<double>(r); })
                  : detail::drawn<C, D>({r, in}, [&] { return rng.uniform(-bound, bound); });
    start.b = init == LoraInit::random ? detail::drawn<C, D>({out, r}, [&] { return rng.uniform(-b_bound, b_bound); })
                                       : Tensor<C, D>::zeros({out, r});
    return start;
}

} // namespace lowrank
