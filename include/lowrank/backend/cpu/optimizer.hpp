// The optimizer's kernels on the host: a step of AdamW, and the sum of squares that a gradient's norm is made of.
#pragma once

#include <cstdint>
#include <vector>

#include "lowrank/backend/cpu/strided_loop.hpp"
#include "lowrank/core/device.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/vec.hpp"

namespace lowrank {

/// What one step of AdamW reads from device memory, since it changes from step to step: the order of `scalars`.
enum AdamwScalar : int {
    adamw_clip,       ///< factor of the gradient
    adamw_decay,      ///< learning rate · weight decay
    adamw_step_size,  ///< learning rate / (1 - beta1^t)
    adamw_correction, ///< sqrt(1 - beta2^t)
    adamw_scalar_count
};

namespace detail {

/// Constants of AdamW as its formula uses them. 1 - beta is taken in double, as torch does.
template <class A>
struct AdamwConstants {
    A weight1, rest1, beta2, weight2, epsilon;
    bool from_gradient; // torch.lerp starts from the nearer end

    AdamwConstants(double beta1, double beta2, double epsilon)
        : weight1(static_cast<A>(1 - beta1)),
          rest1(static_cast<A>(beta1)),
          beta2(static_cast<A>(beta2)),
          weight2(static_cast<A>(1 - beta2)),
          epsilon(static_cast<A>(epsilon)),
          from_gradient(beta1 <= 0.5) {}
};

/// Moves the moments of some lanes by their gradient, and with them the parameter.
template <class V, class A>
LOWRANK_INLINE void adamw_lanes(V& parameter, V& m, V& v, V gradient, const A* scalars, const AdamwConstants<A>& c) {
    const V g = gradient * V(scalars[adamw_clip]);
    m = c.from_gradient ? fma(V(-c.rest1), g - m, g) : fma(V(c.weight1), g - m, m);
    v = fma(V(c.weight2) * g, g, v * V(c.beta2));
    const V denominator = simd::sqrt(v) / V(scalars[adamw_correction]) + V(c.epsilon);
    // The two small changes are added first, so that the parameter is rounded once: torch rounds it twice, and the
    // factor 1 - learning rate · weight decay besides, which in fp32 costs it several times this error.
    parameter = parameter - fma(V(scalars[adamw_decay]), parameter, V(scalars[adamw_step_size]) * m / denominator);
}

struct AdamwKernel {
    template <int Width, class A>
    [[gnu::always_inline]] static inline void run(std::int64_t n, A* parameter, A* m, A* v, const A* gradient,
                                                  const A* scalars, const AdamwConstants<A>& constants) {
        constexpr int lanes = static_cast<int>(Width * sizeof(float) / sizeof(A));
        std::int64_t i = 0;
        for (; i + lanes <= n; i += lanes) {
            update<lanes>(parameter + i, m + i, v + i, gradient + i, scalars, constants);
        }
        for (; i < n; ++i) {
            update<1>(parameter + i, m + i, v + i, gradient + i, scalars, constants);
        }
    }

  private:
    template <int N, class A>
    [[gnu::always_inline]] static inline void update(A* parameter, A* m, A* v, const A* gradient, const A* scalars,
                                                     const AdamwConstants<A>& constants) {
        using V = simd::Vec<A, N>;
        V new_p = simd::load<V>(parameter), new_m = simd::load<V>(m), new_v = simd::load<V>(v);
        adamw_lanes(new_p, new_m, new_v, simd::load<V>(gradient), scalars, constants);
        simd::store(new_m, m);
        simd::store(new_v, v);
        simd::store(new_p, parameter);
    }
};

struct SquaredSumKernel {
    /// The lanes are eight on every instruction set, and so the order of the sum.
    template <int, class A>
    [[gnu::always_inline]] static inline double run(std::int64_t n, const A* x) {
        constexpr int lanes = 8;
        using V = simd::Vec<double, lanes>;
        V sums[2] = {V(0.0), V(0.0)};
        std::int64_t i = 0;
        for (; i + 2 * lanes <= n; i += 2 * lanes) {
            for (int k = 0; k < 2; ++k) {
                const V values = simd::load<V>(x + i + k * lanes);
                sums[k] = fma(values, values, sums[k]);
            }
        }
        double sum = reduce_add(sums[0] + sums[1]);
        for (; i < n; ++i) {
            sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
        }
        return sum;
    }
};

} // namespace detail

/// One step of AdamW on n elements, equal to torch.optim.AdamW's: the gradient times `scalars[adamw_clip]` moves the
/// moments m and v, and with them the parameter. `scalars` are in device memory (AdamwScalar).
template <class A>
void adamw_step(Cpu, std::int64_t n, A* parameter, A* m, A* v, const A* gradient, const A* scalars, double beta1,
                double beta2, double epsilon) {
    const detail::AdamwConstants<A> constants(beta1, beta2, epsilon);
    parallel_chunks(n, elementwise_grain, [&](std::int64_t begin, std::int64_t end) {
        simd::run_for_isa<detail::AdamwKernel>(end - begin, parameter + begin, m + begin, v + begin, gradient + begin,
                                               scalars, constants);
    });
}

/// Writes the sum of the squares of n elements, in double, to `*sum`, which is in device memory.
template <class A>
void squared_sum(Cpu, std::int64_t n, const A* x, double* sum) {
    std::vector<double> partial(static_cast<std::size_t>((n + elementwise_grain - 1) / elementwise_grain));
    parallel_chunks(n, elementwise_grain, [&](std::int64_t begin, std::int64_t end) {
        partial[static_cast<std::size_t>(begin / elementwise_grain)] =
            simd::run_for_isa<detail::SquaredSumKernel>(end - begin, x + begin);
    });
    *sum = 0;
    for (double value : partial) {
        *sum += value;
    }
}

} // namespace lowrank
