#include <bit>
#include <cmath>
#include <doctest/doctest.h>
#include <vector>

#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/memory.hpp"
#include "simd/isas.hpp"

using namespace lowrank;
using namespace lowrank::simd;

namespace {

// Copies through vectors of S: whole ones, then the rest.
template <class S>
struct CopyKernel {
    template <int Width, class From, class To>
    static LOWRANK_INLINE void run(const From* from, To* to, std::int64_t n) {
        using V = Vec<S, int(Width * sizeof(float) / sizeof(S))>;
        std::int64_t i = 0;
        for (; i + V::size <= n; i += V::size) {
            store(load<V>(from + i), to + i);
        }
        if (i < n) {
            store(load<V>(from + i, n - i), to + i, n - i);
        }
    }
};

struct FillKernel {
    template <int Width>
    static LOWRANK_INLINE void run(const float* from, int count, float* to) {
        store(load<Vec<float, Width>>(from, count, -3.0f), to);
    }
};

template <class T>
std::vector<T> all_halves() {
    std::vector<T> values(65536);
    for (std::uint32_t i = 0; i < 65536; ++i) {
        values[i].bits = static_cast<std::uint16_t>(i);
    }
    return values;
}

// Bits that differ, but for the payload of a NaN.
bool differ(float a, float b) {
    return std::isnan(a) ? !std::isnan(b) : std::bit_cast<std::uint32_t>(a) != std::bit_cast<std::uint32_t>(b);
}

template <class T>
int wrong_loads(Isa isa) {
    const auto from = all_halves<T>();
    std::vector<float> to(from.size());
    run_on_isa<CopyKernel<float>>(isa, from.data(), to.data(), std::int64_t(from.size()));
    int wrong = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
        wrong += differ(to[i], static_cast<float>(from[i]));
    }
    return wrong;
}

} // namespace

TEST_CASE("loads convert every bf16 and fp16 as core does") {
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        CHECK(wrong_loads<bf16>(isa) == 0);
        CHECK(wrong_loads<fp16>(isa) == 0);
    }
}

TEST_CASE("stores round to bf16 as core does") {
    std::vector<float> from;
    for (std::uint64_t bits = 0; bits < (1ull << 32); bits += 4001) {
        from.push_back(std::bit_cast<float>(std::uint32_t(bits)));
    }
    for (std::uint32_t high = 0; high < 65536; ++high) { // ties and their neighbours
        for (std::uint32_t low : {0x7fffu, 0x8000u, 0x8001u}) {
            from.push_back(std::bit_cast<float>(high << 16 | low));
        }
    }
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        std::vector<bf16> to(from.size());
        run_on_isa<CopyKernel<float>>(isa, from.data(), to.data(), std::int64_t(from.size()));
        int wrong = 0;
        for (std::size_t i = 0; i < from.size(); ++i) {
            wrong += to[i].bits != bf16(from[i]).bits;
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("double lanes load and store float") {
    std::vector<double> from;
    for (int i = -300; i < 301; ++i) {
        from.push_back(std::exp(i / 3.0) * (i % 2 == 0 ? -1 : 1) / 3);
    }
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        const auto n = std::int64_t(from.size());
        std::vector<float> narrow(from.size());
        std::vector<double> wide(from.size()), same(from.size());
        run_on_isa<CopyKernel<double>>(isa, from.data(), narrow.data(), n);
        run_on_isa<CopyKernel<double>>(isa, narrow.data(), wide.data(), n);
        run_on_isa<CopyKernel<double>>(isa, from.data(), same.data(), n);
        int wrong = 0;
        for (std::size_t i = 0; i < from.size(); ++i) {
            const auto rounded = static_cast<float>(from[i]);
            wrong += differ(narrow[i], rounded) + (wide[i] != rounded) + (same[i] != from[i]);
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("partial loads and stores touch nothing else, at any alignment") {
    float source[40];
    for (int i = 0; i < 40; ++i) {
        source[i] = static_cast<float>(i) + 0.5f;
    }
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        for (int n = 0; n <= 2 * width_of(isa); ++n) {
            for (int offset = 0; offset < 4; ++offset) {
                std::vector<float> exact(source + offset, source + offset + n); // a sanitizer watches its ends
                std::vector<float> to(40, -1.0f);
                run_on_isa<CopyKernel<float>>(isa, exact.data(), to.data() + offset, std::int64_t(n));
                std::vector<bf16> narrow(std::size_t(n), bf16(0.0f));
                run_on_isa<CopyKernel<float>>(isa, exact.data(), narrow.data(), std::int64_t(n));
                int wrong = 0;
                for (int i = 0; i < 40; ++i) {
                    const bool copied = i >= offset && i < offset + n;
                    wrong += to[std::size_t(i)] != (copied ? source[i] : -1.0f);
                    wrong += copied && static_cast<float>(narrow[std::size_t(i - offset)]) != source[i];
                }
                CHECK(wrong == 0);
            }
        }
        float lanes[16];
        run_on_isa<FillKernel>(isa, source, 3, lanes);
        CHECK(lanes[2] == source[2]);
        CHECK(lanes[3] == -3.0f);
        CHECK(lanes[width_of(isa) - 1] == -3.0f);
    }
}
