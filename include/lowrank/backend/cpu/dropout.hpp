// Dropout on the host: factors 0 or 1/(1-p) that come from the counter-based generator whenever they are needed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "lowrank/core/device.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/random.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/multiply_halves.hpp"
#include "lowrank/simd/vec.hpp"

namespace lowrank {

/// Which words of the generator keep an element, and what a kept one is multiplied by.
struct DropoutRule {
    std::uint64_t seed;
    std::uint32_t site;
    double p;

    /// Whether an element with this random word is kept: its uniform number is at least p.
    bool keeps(std::uint32_t word) const { return word >> 8 >= threshold(); }
    /// The least upper 24 bits of a word that are kept; p · 2^24 is exact.
    std::uint32_t threshold() const { return static_cast<std::uint32_t>(std::ceil(p * 0x1p24)); }
    double factor() const { return 1.0 / (1.0 - p); }
};

/// The random word that decides about element `e` of a tensor in row-major order. Groups of 64 elements share 16 blocks
/// of the generator so that any vector of up to 16 lanes takes one word of as many blocks.
constexpr std::uint32_t dropout_word(std::uint64_t seed, std::uint32_t site, std::uint64_t e) {
    return random_block(seed, site, e / 64 * 16 + e % 16)[e / 16 % 4];
}

namespace detail {

/// The generator on as many counters as a register has 64-bit lanes.
template <int Lanes>
class PhiloxLanes {
  public:
    using V = simd::Vec<double, Lanes>; // as bits
    using Words = typename V::naturals;

    LOWRANK_INLINE PhiloxLanes(std::uint64_t seed, std::uint32_t stream) : stream_(Words{} + stream) {
        auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
        for (auto& [first, second] : keys_) {
            first = Words{} + k0;
            second = Words{} + k1;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
    }

    /// The four words of each counter, in the lower halves of the lanes; the upper ones hold anything. The rounds are a
    /// long chain: two vectors of counters take turns.
    LOWRANK_INLINE void operator()(const Words (&counter)[2], Words (&word)[2][4]) const {
        const V first = V::from_bits(Words{} + std::uint64_t(0xD2511F53u)),
                second = V::from_bits(Words{} + std::uint64_t(0xCD9E8D57u));
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            word[i][0] = counter[i];
            word[i][1] = counter[i] >> 32;
            word[i][2] = stream_;
            word[i][3] = Words{};
        }
#pragma GCC unroll 10
        for (const auto& key : keys_) {
#pragma GCC unroll 2
            for (auto& w : word) {
                const auto a = (Words)simd::multiply_halves(V::from_bits(w[0]), first).v;
                const auto b = (Words)simd::multiply_halves(V::from_bits(w[2]), second).v;
                w[0] = (b >> 32) ^ w[1] ^ key[0];
                w[1] = b;
                w[2] = (a >> 32) ^ w[3] ^ key[1];
                w[3] = a;
            }
        }
    }

  private:
    Words stream_, keys_[10][2]; // the keys of the rounds
};

/// Fills out[(4·step + w) · word_stride + lane] with the factor for word w of block counters[lane] + first +
/// step · increment. `lanes` is a multiple of 16.
struct DropoutFactors {
    template <int Width, class S>
    [[gnu::always_inline]] static inline void run(const DropoutRule& rule, const std::uint64_t* counters, int lanes,
                                                  std::uint64_t first, std::uint64_t increment, int steps, S* out,
                                                  std::int64_t word_stride) {
        constexpr int count = Width / 2;
        using Lanes = PhiloxLanes<count>;
        typedef typename simd::Vec<S, count>::natural Bits;
        typedef typename simd::Vec<S, count>::naturals Out;
        const Lanes random(rule.seed, rule.site);
        const Bits threshold = rule.threshold(), factor = std::bit_cast<Bits>(static_cast<S>(rule.factor()));
        for (int step = 0; step < steps; ++step) {
            for (int lane = 0; lane < lanes; lane += 2 * count) {
                typename Lanes::Words counter[2], word[2][4];
                __builtin_memcpy(counter, counters + lane, sizeof counter);
                for (auto& c : counter) {
                    c += first + std::uint64_t(step) * increment;
                }
                random(counter, word);
#pragma GCC unroll 8
                for (int w = 0; w < 8; ++w) {
                    const auto halves = Lanes::V::from_bits(word[w / 4][w % 4]);
                    const auto words = (Out)lower<S>(halves, std::make_integer_sequence<int, count>()).v;
                    const Out bits = (Out)(words >> 8 >= threshold) & factor;
                    __builtin_memcpy(out + (4 * step + w % 4) * word_stride + lane + w / 4 * count, &bits, sizeof bits);
                }
            }
        }
    }

  private:
    /// The lower halves of the lanes as lanes of as many bits as S has.
    template <class S, int N, int... Lane>
    LOWRANK_INLINE static simd::Vec<S, N> lower(simd::Vec<double, N> halves, std::integer_sequence<int, Lane...>) {
        if constexpr (sizeof(S) == sizeof(double)) {
            return simd::Vec<S, N>::from_bits((typename simd::Vec<S, N>::naturals)halves.v &
                                              std::uint64_t(0xffffffffu));
        } else {
            typedef typename simd::Vec<S, 2 * N>::type Halves;
            return typename simd::Vec<S, N>::Raw{
                __builtin_shufflevector((Halves)halves.v, (Halves)halves.v, (2 * Lane)...)};
        }
    }
};

/// y = x · factor for the elements begin … end-1; begin is a multiple of 64.
struct DropoutRun {
    template <int Width, class T>
    [[gnu::always_inline]] static inline void run(const DropoutRule& rule, const T* x, T* y, std::int64_t begin,
                                                  std::int64_t end) {
        using S = compute_t<T>;
        using V = simd::Vec<S, Width * 4 / sizeof(S)>;
        constexpr int groups = 8;
        alignas(64) S factors[groups * 64];
        alignas(64) std::uint64_t counters[16];
        for (std::uint64_t i = 0; i < 16; ++i) {
            counters[i] = i;
        }
        for (std::int64_t base = begin; base < end; base += groups * 64) {
            const std::int64_t count = std::min<std::int64_t>(groups * 64, end - base);
            DropoutFactors::run<Width>(rule, counters, 16, std::uint64_t(base / 64) * 16, 16,
                                       static_cast<int>((count + 63) / 64), factors, 16);
            std::int64_t i = 0;
            for (; i + V::size <= count; i += V::size) {
                simd::store(simd::load<V>(x + base + i) * simd::load<V>(factors + i), y + base + i);
            }
            for (; i < count; ++i) {
                y[base + i] = static_cast<T>(static_cast<S>(x[base + i]) * factors[i]);
            }
        }
    }
};

} // namespace detail

/// y = x · factor, elementwise over n elements; `seed` points to the seed. x and y may be the same.
template <class T>
void dropout_elements(Cpu, std::int64_t n, const T* x, const std::int64_t* seed, std::uint32_t site, double p, T* y) {
    const DropoutRule rule{static_cast<std::uint64_t>(*seed), site, p};
    parallel_chunks(n, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
        simd::run_for_isa<detail::DropoutRun>(rule, x, y, begin, end);
    });
}

} // namespace lowrank
