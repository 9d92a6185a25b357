#include <algorithm>
#include <bit>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <vector>

#include "lowrank/simd/functions.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/pow.hpp"
#include "simd/isas.hpp"

using namespace lowrank::simd;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Each function: the vector version, the reference in double, and the budget in ULP.
struct Exp {
    static constexpr double budget = 2;
    template <class V>
    static LOWRANK_INLINE V apply(V x) {
        return exp(x);
    }
    static double reference(double x) { return std::exp(x); }
};
struct SoftmaxExp {
    static constexpr double budget = 2;
    template <class V>
    static LOWRANK_INLINE V apply(V x) {
        return softmax_exp(min(x, V(88.0f)));
    }
    static double reference(double x) { return x < -87.0 ? 0.0 : std::exp(x > 88.0 ? 88.0 : x); }
};
struct Log {
    static constexpr double budget = 2;
    template <class V>
    static LOWRANK_INLINE V apply(V x) {
        return log(x);
    }
    static double reference(double x) { return std::log(x); }
};
struct Tanh {
    static constexpr double budget = 3;
    template <class V>
    static LOWRANK_INLINE V apply(V x) {
        return tanh(x);
    }
    static double reference(double x) { return std::tanh(x); }
};
struct Erf {
    static constexpr double budget = 4;
    template <class V>
    static LOWRANK_INLINE V apply(V x) {
        return erf(x);
    }
    static double reference(double x) { return std::erf(x); }
};

template <class Function>
struct ApplyKernel {
    template <int Width, class S>
    static LOWRANK_INLINE void run(const S* from, S* to, std::int64_t n) {
        using V = Vec<S, int(Width * sizeof(float) / sizeof(S))>;
        for (std::int64_t i = 0; i < n; i += V::size) {
            store(Function::apply(load<V>(from + i)), to + i);
        }
    }
};

// The distance of y from the reference in units of the last place that a float has there.
double ulps(float y, double reference) {
    if (y == static_cast<float>(reference)) { // less than half a unit: too good to count
        return 0;
    }
    if (std::isnan(reference) || std::isnan(y)) {
        return std::isnan(reference) && std::isnan(y) ? 0 : 1e9;
    }
    if (std::fabs(reference) > 0x1.ffffffp127) { // rounds to infinity
        return std::isinf(y) && std::signbit(y) == std::signbit(reference) ? 0 : 1e9;
    }
    const int exponent = std::max(std::ilogb(reference == 0 ? 0x1p-149 : reference), -126);
    const double value = std::isinf(y) ? std::copysign(0x1p128, y) : double(y);
    return std::fabs(value - reference) / std::ldexp(1.0, exponent - 23);
}

#if defined(__OPTIMIZE__)
constexpr std::uint64_t stride = 211;
#else
constexpr std::uint64_t stride = 4999;
#endif

template <class Function>
void check_all_floats() {
    constexpr std::int64_t block = 4096;
    std::vector<float> x(block), y(block);
    std::vector<double> reference(block);
    const auto isas = all_isas();
    std::vector<double> worst(isas.size());
    std::vector<float> where(isas.size());
    for (std::uint64_t first = 0; first < (1ull << 32); first += block * stride) {
        for (std::uint64_t i = 0; i < block; ++i) {
            x[i] = std::bit_cast<float>(std::uint32_t(first + i * stride));
            reference[i] = Function::reference(x[i]);
        }
        for (std::size_t k = 0; k < isas.size(); ++k) {
            run_on_isa<ApplyKernel<Function>>(isas[k], x.data(), y.data(), block);
            for (std::size_t i = 0; i < block; ++i) {
                const double error = ulps(y[i], reference[i]);
                if (error > worst[k]) {
                    worst[k] = error;
                    where[k] = x[i];
                }
            }
        }
    }
    for (std::size_t k = 0; k < isas.size(); ++k) {
        MESSAGE(name_of(isas[k]), ": ", worst[k], " ULP at ", where[k]);
        CHECK(worst[k] <= Function::budget);
    }
}

struct PowKernel {
    template <int Width, class S>
    static LOWRANK_INLINE void run(const S* x, const S* y, S* to, std::int64_t n) {
        using V = Vec<S, int(Width * sizeof(float) / sizeof(S))>;
        for (std::int64_t i = 0; i < n; i += V::size) {
            store(pow(load<V>(x + i), load<V>(y + i)), to + i);
        }
    }
};

// How far powers are from the C library's of doubles at most, on an instruction set, and how many differ from it.
struct PowErrors {
    double worst = 0;
    std::size_t differing = 0;
};
PowErrors pow_errors(Isa isa, const std::vector<float>& x, const std::vector<float>& y) {
    PowErrors errors;
    std::vector<float> found(x.size());
    run_on_isa<PowKernel>(isa, x.data(), y.data(), found.data(), std::int64_t(x.size()));
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double reference = std::pow(double(x[i]), double(y[i]));
        const double error = std::signbit(found[i]) == std::signbit(reference) || std::isnan(reference)
                                 ? ulps(found[i], reference)
                                 : 1e9; // also of zeros
        if (error > errors.worst) {
            MESSAGE(name_of(isa), ": ", x[i], " to the power ", y[i], ": found ", found[i], ", expected ", reference);
            errors.worst = error;
        }
        errors.differing += error > 0;
    }
    return errors;
}

template <class Function>
float at(Isa isa, float x) {
    std::vector<float> in(16, x), out(16);
    run_on_isa<ApplyKernel<Function>>(isa, in.data(), out.data(), std::int64_t(width_of(isa)));
    return out[std::size_t(width_of(isa)) - 1];
}

} // namespace

TEST_CASE("exp is within its budget over all floats") {
    check_all_floats<Exp>();
}
TEST_CASE("softmax_exp is within its budget over all floats up to 88") {
    check_all_floats<SoftmaxExp>();
}
TEST_CASE("log is within its budget over all floats") {
    check_all_floats<Log>();
}
TEST_CASE("tanh is within its budget over all floats") {
    check_all_floats<Tanh>();
}
TEST_CASE("erf is within its budget over all floats") {
    check_all_floats<Erf>();
}

TEST_CASE("special values") {
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        CHECK(at<Exp>(isa, 0.0f) == 1.0f);
        CHECK(at<Exp>(isa, -inf) == 0.0f);
        CHECK(at<Exp>(isa, inf) == inf);
        CHECK(std::isnan(at<Exp>(isa, not_a_number)));
        CHECK(at<Exp>(isa, 88.72284f) == inf);
        CHECK(at<Exp>(isa, -104.0f) == 0.0f);
        CHECK(at<Exp>(isa, -100.0f) > 0.0f); // subnormal
        CHECK(at<SoftmaxExp>(isa, 0.0f) == 1.0f);
        CHECK(at<SoftmaxExp>(isa, std::numeric_limits<float>::lowest()) == 0.0f);
        CHECK(std::isnan(at<SoftmaxExp>(isa, not_a_number)));
        CHECK(at<Log>(isa, 1.0f) == 0.0f);
        CHECK(at<Log>(isa, 0.0f) == -inf);
        CHECK(at<Log>(isa, -0.0f) == -inf);
        CHECK(at<Log>(isa, inf) == inf);
        CHECK(std::isnan(at<Log>(isa, -1.0f)));
        CHECK(std::isnan(at<Log>(isa, -inf)));
        CHECK(std::isnan(at<Log>(isa, not_a_number)));
        for (float sign : {1.0f, -1.0f}) {
            CHECK(at<Tanh>(isa, sign * inf) == sign);
            CHECK(at<Erf>(isa, sign * inf) == sign);
            CHECK(std::signbit(at<Tanh>(isa, sign * 0.0f)) == (sign < 0));
            CHECK(std::signbit(at<Erf>(isa, sign * 0.0f)) == (sign < 0));
        }
        CHECK(std::isnan(at<Tanh>(isa, not_a_number)));
        CHECK(std::isnan(at<Erf>(isa, not_a_number)));
    }
}

TEST_CASE("pow is within its budget") {
    // Any bits twice, which mostly overflow; then bases and exponents whose powers are floats.
    std::vector<float> x, y;
    std::uint64_t state = 1;
    const auto next = [&] { // Knuth's MMIX generator
        state = state * 6364136223846793005u + 1442695040888963407u;
        return std::uint32_t(state >> 32);
    };
    const auto between = [&](double low, double high) { return low + (high - low) * next() * 0x1p-32; };
    for (int i = 0; i < 1 << 18; ++i) {
        x.push_back(std::bit_cast<float>(next()));
        y.push_back(std::bit_cast<float>(next()));
    }
    for (int i = 0; i < 1 << 20; ++i) {
        const double log2_of_x = between(-149, 128);
        const float base = float(std::exp2(log2_of_x));
        x.push_back(i % 3 == 0 ? -base : base);
        const double exponent = between(-150, 129) / log2_of_x;
        y.push_back(float(i % 3 == 0 ? std::round(exponent) : exponent));
    }
    for (int i = 0; i < 1 << 18; ++i) { // near 1, where a power depends on all digits of a base's logarithm
        x.push_back(1 + float(between(-0x1p-10, 0x1p-10)));
        y.push_back(float(between(-1e5, 1e5)));
    }
    for (Isa isa : all_isas()) {
        const auto errors = pow_errors(isa, x, y);
        MESSAGE(name_of(isa), ": ", errors.worst, " ULP, ", errors.differing, " of ", x.size(), " differ");
        CHECK(errors.worst <= 1);
    }
}

TEST_CASE("pow has the special cases of the C library") {
    constexpr float largest = std::numeric_limits<float>::max(), least = 0x1p-149f;
    std::vector<float> values;
    for (float value : {0.0f, 1.0f, 0.5f, 1.5f, 2.0f, 3.0f, 4.0f, 1e-3f, 16777215.0f, 16777216.0f, 33554432.0f,
                        8388607.5f, 1 + 0x1p-23f, 1 - 0x1p-24f, least, 0x1p-126f, largest, inf, not_a_number}) {
        values.push_back(value);
        values.push_back(-value);
    }
    std::vector<float> x, y;
    for (float base : values) {
        for (float exponent : values) {
            x.push_back(base);
            y.push_back(exponent);
        }
    }
    x.resize((x.size() + 15) / 16 * 16, 1.0f); // whole vectors
    y.resize(x.size(), 1.0f);
    for (Isa isa : all_isas()) {
        CHECK(pow_errors(isa, x, y).worst <= 1);
    }
    const std::vector<double> in(16, 3.7), to(16, -1.3);
    std::vector<double> out(16);
    for (Isa isa : all_isas()) {
        run_on_isa<PowKernel>(isa, in.data(), to.data(), out.data(), std::int64_t(16));
        CHECK(out == std::vector<double>(16, std::pow(3.7, -1.3)));
    }
}

TEST_CASE("double lanes give what the C library gives") {
    std::vector<double> x(64), y(64);
    for (int i = 0; i < 64; ++i) {
        x[std::size_t(i)] = i * 0.37 - 5.0;
    }
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        const auto check = [&]<class Function>(Function) {
            run_on_isa<ApplyKernel<Function>>(isa, x.data(), y.data(), std::int64_t(64));
            int wrong = 0;
            for (std::size_t i = 0; i < 64; ++i) {
                const double reference = Function::reference(x[i]);
                wrong += !(y[i] == reference || (std::isnan(y[i]) && std::isnan(reference)));
            }
            CHECK(wrong == 0);
        };
        check(Exp());
        check(Log());
        check(Tanh());
        check(Erf());
    }
}
