// Sums of strided tensors over some of their dimensions on the host, in double and in an order fixed by the shape.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"

namespace lowrank {

namespace detail {

/// A list of dimensions with their strides in the source, neighbours merged where the layout allows.
struct Axes {
    Shape extents;
    Strides strides;

    void push(std::int64_t extent, std::int64_t stride) {
        const int last = extents.rank() - 1;
        if (extent == 1) {
            return;
        }
        if (last >= 0 && strides[last] == extent * stride) {
            extents[last] *= extent;
            strides[last] = stride;
        } else {
            extents.push_back(extent);
            strides.push_back(stride);
        }
    }

    /// The offset in the source of the element number `index` in row-major order.
    std::int64_t offset(std::int64_t index) const {
        std::int64_t sum = 0;
        for (int i = extents.rank() - 1; i >= 0; --i) {
            sum += index % extents[i] * strides[i];
            index /= extents[i];
        }
        return sum;
    }

    /// The extent and stride of the last dimension.
    std::int64_t run() const { return extents.rank() == 0 ? 1 : extents[extents.rank() - 1]; }
    std::int64_t step() const { return extents.rank() == 0 ? 1 : strides[strides.rank() - 1]; }
};

/// Adds to out[k], for k < count, the sum of the n elements x[k · kept_step + r · step].
struct SumRun {
    static constexpr int lanes = 16; // partial sums, whatever the width of a vector, so that the bits are the same

    template <int Width, class T>
    LOWRANK_INLINE static void run(const T* x, std::int64_t n, std::int64_t step, std::int64_t count,
                                   std::int64_t kept_step, double* out) {
        if (step == 1) {
            for (std::int64_t k = 0; k < count; ++k) {
                out[k] += contiguous_sum<Width / 2>(x + k * kept_step, n);
            }
        } else if (kept_step == 1) {
            constexpr int rows = 4; // at a time, so that the sums are loaded and stored less often
            std::int64_t r = 0;
            for (; r + rows <= n; r += rows) {
                add_rows<Width / 2, rows>(x + r * step, step, count, out);
            }
            for (; r < n; ++r) {
                add_rows<Width / 2, 1>(x + r * step, step, count, out);
            }
        } else {
            for (std::int64_t r = 0; r < n; ++r) {
                for (std::int64_t k = 0; k < count; ++k) {
                    out[k] += convert<double>(x[r * step + k * kept_step]);
                }
            }
        }
    }

    template <int N, class T>
    LOWRANK_INLINE static simd::Vec<double, N> load(const T* x) {
        if constexpr (Floating<T>) {
            return simd::load<simd::Vec<double, N>>(x);
        } else {
            simd::Vec<double, N> v;
            for (int i = 0; i < N; ++i) {
                v.v[i] = static_cast<double>(x[i]);
            }
            return v;
        }
    }

    template <int N, class T>
    LOWRANK_INLINE static double contiguous_sum(const T* x, std::int64_t n) {
        using V = simd::Vec<double, N>;
        V sums[lanes / N];
#pragma GCC unroll 8
        for (V& sum : sums) {
            sum = V(0.0);
        }
        std::int64_t i = 0;
        for (; i + lanes <= n; i += lanes) {
#pragma GCC unroll 8
            for (int k = 0; k < lanes / N; ++k) {
                sums[k] += load<N>(x + i + k * N);
            }
        }
        double partial[lanes];
#pragma GCC unroll 8
        for (int k = 0; k < lanes / N; ++k) {
            simd::store(sums[k], partial + k * N);
        }
        for (int k = 0; i < n; ++i, ++k) {
            partial[k] += convert<double>(x[i]);
        }
        for (int half = lanes / 2; half > 0; half /= 2) {
            for (int k = 0; k < half; ++k) {
                partial[k] += partial[k + half];
            }
        }
        return partial[0];
    }

    template <int N, int Rows, class T>
    LOWRANK_INLINE static void add_rows(const T* x, std::int64_t step, std::int64_t count, double* out) {
        std::int64_t k = 0;
        for (; k + N <= count; k += N) {
            auto sum = simd::load<simd::Vec<double, N>>(out + k);
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) {
                sum += load<N>(x + r * step + k);
            }
            simd::store(sum, out + k);
        }
        for (; k < count; ++k) {
            for (int r = 0; r < Rows; ++r) {
                out[k] += convert<double>(x[r * step + k]);
            }
        }
    }
};

/// sums[i] += x[i] for i < n.
template <class T>
void add_to_sums(const T* x, std::int64_t n, double* sums) {
    constexpr std::int64_t terms = 1, step_of_terms = 0, step_of_sums = 1;
    simd::run_for_isa<SumRun>(x, terms, step_of_terms, n, step_of_sums, sums);
}

/// Adds to out[0 … count) the sums of x over the elements begin … end-1 of `reduced`, for the elements of `kept` from
/// `first` on, which lie in one run.
template <class T>
void sum_block(const T* x, const Axes& kept, std::int64_t first, std::int64_t count, const Axes& reduced,
               std::int64_t begin, std::int64_t end, double* out) {
    const std::int64_t run = reduced.run();
    const T* base = x + kept.offset(first);
    while (begin < end) {
        const std::int64_t n = std::min(end - begin, run - begin % run);
        simd::run_for_isa<SumRun>(base + reduced.offset(begin), n, reduced.step(), count, kept.step(), out);
        begin += n;
    }
}

} // namespace detail

/// Sums x of this shape and these strides over the dimensions in which `target` (of the same rank) is 1 and `shape` is
/// not, and writes scale · sum to row-major memory of the shape `target`.
template <class T, class U>
void sum_to_shape(Cpu, const Shape& shape, const T* x, const Strides& strides, const Shape& target, U* out,
                  double scale) {
    constexpr std::int64_t most_terms = 65536;
    detail::Axes kept, reduced;
    for (int i = 0; i < shape.rank(); ++i) {
        (target[i] == shape[i] ? kept : reduced).push(shape[i], strides[i]);
    }
    const std::int64_t most_kept = reduced.step() == 1 ? 16 : 512; // elements of the result that one task holds
    const std::int64_t outputs = numel(target), terms = numel(reduced.extents);
    if (outputs == 0) {
        return;
    }
    // Blocks of the result never leave its innermost run; long sums are cut where few results would keep threads idle.
    const std::int64_t run = kept.run(), blocks_in_run = (run + most_kept - 1) / most_kept;
    const std::int64_t blocks = outputs / run * blocks_in_run;
    const std::int64_t per_piece = std::max<std::int64_t>(1, most_terms / std::min(run, most_kept));
    const std::int64_t pieces = blocks >= 64 ? 1 : std::max<std::int64_t>(1, (terms + per_piece - 1) / per_piece);
    const std::int64_t piece = (terms + pieces - 1) / pieces;
    std::vector<double> partial(static_cast<std::size_t>(pieces * outputs), 0.0);
    double* sums = partial.data();
    const std::int64_t grain =
        std::max<std::int64_t>(1, elementwise_grain / std::max<std::int64_t>(1, piece * std::min(run, most_kept)));
    parallel_chunks(pieces * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t task = begin; task < end; ++task) {
            const std::int64_t p = task / blocks, block = task % blocks;
            const std::int64_t within = block % blocks_in_run * most_kept;
            const std::int64_t first = block / blocks_in_run * run + within;
            detail::sum_block(x, kept, first, std::min(most_kept, run - within), reduced, p * piece,
                              std::min(terms, (p + 1) * piece), sums + p * outputs + first);
        }
    });
    parallel_chunks(outputs, elementwise_grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            double sum = sums[i];
            for (std::int64_t p = 1; p < pieces; ++p) {
                sum += sums[p * outputs + i];
            }
            out[i] = convert<U>(static_cast<compute_t<U>>(scale * sum));
        }
    });
}

} // namespace lowrank
