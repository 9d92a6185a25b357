#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/vec.hpp"
#include "simd/isas.hpp"

using namespace lowrank::simd;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

bool same(float a, float b) {
    return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

// Every operation on every pair of special values, in every lane, against the scalar operation.
struct OperationsKernel {
    template <int Width>
    static LOWRANK_INLINE int run(const float* values, int count) {
        using V = Vec<float, Width>;
        int wrong = 0;
        for (int i = 0; i < count; ++i) {
            for (int j = 0; j < count; ++j) {
                float left[Width], right[Width];
                for (int k = 0; k < Width; ++k) {
                    left[k] = values[(i + k) % count];
                    right[k] = values[(j + 2 * k) % count];
                }
                const V a = load<V>(left), b = load<V>(right);
                for (int k = 0; k < Width; ++k) {
                    const float x = left[k], y = right[k];
                    wrong += !same((a + b)[k], x + y) + !same((a - b)[k], x - y) + !same((a * b)[k], x * y) +
                             !same((a / b)[k], x / y) + !same((-a)[k], -x) + !same(abs(a)[k], std::fabs(x)) +
                             !same(copysign(a, b)[k], std::copysign(x, y)) + !same(sqrt(a)[k], std::sqrt(x)) +
                             !same(min(a, b)[k], y < x ? y : x) + !same(max(a, b)[k], y > x ? y : x) +
                             ((a < b)[k] != (x < y)) + ((a > b)[k] != (x > y)) + ((a <= b)[k] != (x <= y)) +
                             ((a >= b)[k] != (x >= y)) + ((a == b)[k] != (x == y)) + ((a != b)[k] != (x != y)) +
                             !same(select((a < b) | !(b <= a), a, b)[k], x < y || !(y <= x) ? x : y) +
                             !same(V(x)[k], x) + !same(select((a < b) & (a != b), a, b)[k], x < y ? x : y);
                }
            }
        }
        return wrong;
    }
};

struct ReductionsKernel {
    template <int Width>
    static LOWRANK_INLINE void run(const float* values, float* sum, float* largest, double* double_sum) {
        *sum = reduce_add(load<Vec<float, Width>>(values));
        *largest = reduce_max(load<Vec<float, Width>>(values));
        *double_sum = reduce_add(load<Vec<double, Width / 2>>(values));
    }
};

struct SqrtKernel {
    template <int Width>
    static LOWRANK_INLINE int run() {
        int wrong = 0;
        for (int i = 0; i < 1000; ++i) {
            const float x = static_cast<float>(i) * 1.7f;
            const double y = i * 1.7;
            wrong += sqrt(Vec<float, Width>(x))[Width - 1] != std::sqrt(x);
            wrong += sqrt(Vec<double, Width / 2>(y))[Width / 2 - 1] != std::sqrt(y);
            wrong += sqrt(Vec<float, 1>(x))[0] != std::sqrt(x);
        }
        return wrong;
    }
};

} // namespace

TEST_CASE("operations on vectors are those on scalars, lane by lane") {
    const float values[] = {0.0f,  -0.0f, 1.0f, -1.5f,        3.25f, 1e-40f, -1e30f,
                            3e38f, inf,   -inf, not_a_number, 0.1f,  7.0f};
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        CHECK(run_on_isa<OperationsKernel>(isa, values, int(std::size(values))) == 0);
        CHECK(run_on_isa<SqrtKernel>(isa) == 0);
    }
}

TEST_CASE("reductions: a fixed tree, halving the lanes") {
    float values[16];
    for (int i = 0; i < 16; ++i) {
        values[i] = std::ldexp(1.0f + 0.1f * static_cast<float>(i), (i * 7) % 13 - 6) * (i % 3 == 0 ? -1.0f : 1.0f);
    }
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        float sum = 0, largest = 0;
        double double_sum = 0;
        run_on_isa<ReductionsKernel>(isa, values, &sum, &largest, &double_sum);
        float tree[16], expected_largest = -inf;
        double double_tree[8];
        const int width = width_of(isa);
        for (int i = 0; i < width; ++i) {
            tree[i] = values[i];
            expected_largest = std::fmax(expected_largest, values[i]);
        }
        std::copy_n(values, width / 2, double_tree);
        for (int half = width / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) {
                tree[i] += tree[i + half];
            }
        }
        for (int half = width / 4; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) {
                double_tree[i] += double_tree[i + half];
            }
        }
        CHECK(sum == tree[0]);
        CHECK(largest == expected_largest);
        CHECK(double_sum == double_tree[0]);
    }
}

TEST_CASE("a vector takes the memory of its lanes") {
    CHECK(sizeof(Vec<float, 1>) == 4);
    CHECK(sizeof(Vec<double, 1>) == 8);
    CHECK(sizeof(Vec<float, 16>) == 64);
    CHECK(join(Vec<float, 2>(1.0f), Vec<float, 2>(2.0f))[2] == 2.0f);
}
