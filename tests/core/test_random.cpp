#include <cmath>
#include <doctest/doctest.h>
#include <vector>

#include "lowrank/core/random.hpp"

using namespace lowrank;

// Known answers of Random123 1.14 (tests/kat_vectors, philox4x32 10).
TEST_CASE("philox equals its published test vectors") {
    CHECK(philox({0, 0, 0, 0}, 0) == PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    CHECK(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff) ==
          PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822) ==
          PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a sequence is a function of seed, stream and position") {
    Rng a(1), b(1), other_seed(2), other_stream(1, 1);
    std::vector<std::uint32_t> first;
    bool seeds_differ = false, streams_differ = false;
    for (int i = 0; i < 11; ++i) {
        first.push_back(a.next());
        CHECK(b.next() == first.back());
        seeds_differ |= other_seed.next() != first.back();
        streams_differ |= other_stream.next() != first.back();
    }
    CHECK(seeds_differ);
    CHECK(streams_differ);
    CHECK(a.position() == 11);
    for (std::uint64_t position : {10u, 3u, 4u, 0u}) {
        a.seek(position);
        CHECK(a.next() == first[position]);
    }
}

TEST_CASE("uniform and normal numbers have the right moments") {
    constexpr int n = 200000;
    Rng rng(3);
    double sum = 0, squares = 0, normal_sum = 0, normal_squares = 0, fourth = 0;
    for (int i = 0; i < n; ++i) {
        const double u = rng.uniform(-1.0, 3.0);
        REQUIRE((u >= -1.0 && u < 3.0));
        sum += u;
        squares += (u - 1.0) * (u - 1.0);
        const double z = rng.normal();
        REQUIRE(std::isfinite(z));
        normal_sum += z;
        normal_squares += z * z;
        fourth += z * z * z * z;
    }
    CHECK(sum / n == doctest::Approx(1.0).epsilon(0.01));
    CHECK(squares / n == doctest::Approx(16.0 / 12.0).epsilon(0.01));
    CHECK(std::abs(normal_sum / n) < 0.01);
    CHECK(normal_squares / n == doctest::Approx(1.0).epsilon(0.01));
    CHECK(fourth / n == doctest::Approx(3.0).epsilon(0.03));
    CHECK(uniform_from(0xffffffffu) < 1.0f);
    CHECK(uniform_from(0) == 0.0f);
}

TEST_CASE("below gives each number equally often") {
    Rng rng(4);
    std::vector<int> counts(7);
    for (int i = 0; i < 70000; ++i) {
        ++counts.at(rng.below(7));
    }
    for (int count : counts) {
        CHECK(std::abs(count - 10000) < 500);
    }
    CHECK(rng.below(1) == 0);
}
