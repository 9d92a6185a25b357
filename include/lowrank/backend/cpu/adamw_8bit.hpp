// A step of AdamW on the host whose moments are in 8 bits: decoded, moved and encoded again block by block.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>

#include "lowrank/backend/cpu/optimizer.hpp"
#include "lowrank/quant/dynamic_blocks.hpp"
#include "lowrank/quant/nf4.hpp"

namespace lowrank {

namespace detail {

struct Adamw8bitKernel {
    template <int Width>
    [[gnu::always_inline]] static inline void
    run(std::int64_t n, float* parameter, std::uint8_t* m_codes, float* m_absmax, std::uint8_t* v_codes,
        float* v_absmax, const float* gradient, const float* scalars, const AdamwConstants<float>& constants) {
        using V = simd::Vec<float, Width>;
        float m[dynamic_block], v[dynamic_block];
        for (std::int64_t begin = 0; begin < n; begin += dynamic_block, ++m_absmax, ++v_absmax) {
            const std::int64_t count = std::min(dynamic_block, n - begin);
            dynamic_values(dynamic_map.data(), m_codes + begin, count, *m_absmax, m);
            dynamic_values(unsigned_dynamic_map.data(), v_codes + begin, count, *v_absmax, v);
            V largest_m(0.0f), largest_v(0.0f);
            for (std::int64_t i = 0; i < count; i += Width) {
                const std::int64_t lanes = std::min<std::int64_t>(Width, count - i);
                V new_p = simd::load<V>(parameter + begin + i, lanes);
                V new_m = simd::load<V>(m + i, lanes), new_v = simd::load<V>(v + i, lanes);
                adamw_lanes(new_p, new_m, new_v, simd::load<V>(gradient + begin + i, lanes), scalars, constants);
                largest_m = max(largest_m, abs(new_m));
                largest_v = max(largest_v, new_v);
                simd::store(new_m, m + i); // the arrays are whole vectors
                simd::store(new_v, v + i);
                simd::store(new_p, parameter + begin + i, lanes);
            }
            *m_absmax = nf4_scale(reduce_max(largest_m));
            *v_absmax = nf4_scale(reduce_max(largest_v));
            dynamic_encode<true, Width>(m, count, *m_absmax, m_codes + begin);
            dynamic_encode<false, Width>(v, count, *v_absmax, v_codes + begin);
        }
    }
};

} // namespace detail

/// One step of AdamW on n elements, as adamw_step, with moments in 8 bits as bitsandbytes' AdamW8bit has them on CUDA:
/// m in codes of dynamic_map, v of unsigned_dynamic_map, with a scale for every dynamic_block of them. Weight decay
/// comes before the step, as in torch. Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022.
template <std::same_as<float> T>
void adamw_8bit_step(Cpu, std::int64_t n, T* parameter, std::uint8_t* m_codes, T* m_absmax, std::uint8_t* v_codes,
                     T* v_absmax, const T* gradient, const T* scalars, double beta1, double beta2, double epsilon) {
    static_assert(elementwise_grain % dynamic_block == 0);
    const detail::AdamwConstants<T> constants(beta1, beta2, epsilon);
    parallel_chunks(n, elementwise_grain, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t block = begin / dynamic_block;
        simd::run_for_isa<detail::Adamw8bitKernel>(end - begin, parameter + begin, m_codes + begin, m_absmax + block,
                                                   v_codes + begin, v_absmax + block, gradient + begin, scalars,
                                                   constants);
    });
}

} // namespace lowrank
