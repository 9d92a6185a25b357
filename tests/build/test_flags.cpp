// Translation units with different flags link into one program and agree.
#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>

#include "build/flags_unit.hpp"

namespace {

/// The largest relative difference.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(double(a[i]) - double(b[i])) / std::abs(double(a[i])));
    }
    return largest;
}

} // namespace

TEST_CASE("units with different flags train alike") {
    const std::vector<float> losses = train_default();
    REQUIRE(losses.size() == 20);
    CHECK(losses.back() < 0.95f * losses.front());
    CHECK(difference(losses, train_native()) < 1e-6);
#ifdef LOWRANK_TEST_AVX2
    CHECK(difference(losses, train_avx2()) < 1e-6);
#endif
}
