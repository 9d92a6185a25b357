// Hyperparameter search: draws from ranges, the rungs of successive halving, and who goes on.

#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <set>

#include "lowrank/train/search.hpp"

using namespace lowrank;

TEST_CASE("draws stay in their range, are spread as they should be, and have three digits") {
    Rng rng(3);
    const SearchRange rate = SearchRange::log_uniform(1e-5, 1e-2), part = SearchRange::uniform(0, 0.5);
    int below = 0;
    double sum = 0;
    for (int i = 0; i < 3000; ++i) {
        const double x = rate.draw(rng), y = part.draw(rng);
        REQUIRE((x >= 1e-5 && x <= 1e-2 && y >= 0 && y <= 0.5));
        const double digits = x / std::pow(10, std::floor(std::log10(x)) - 2);
        REQUIRE(std::abs(digits - std::round(digits)) < 1e-9);
        below += x < 1e-4; // a third of the logarithm
        sum += y;
    }
    CHECK(below == doctest::Approx(1000).epsilon(0.1));
    CHECK(sum / 3000 == doctest::Approx(0.25).epsilon(0.05));
    CHECK(SearchRange::log_uniform(0.12345, 0.12345).draw(rng) == 0.12345);

    std::multiset<double> drawn;
    for (int i = 0; i < 3000; ++i) {
        drawn.insert(SearchRange::choices({4, 8, 16}).draw(rng));
    }
    for (const double value : {4.0, 8.0, 16.0}) {
        CHECK(double(drawn.count(value)) == doctest::Approx(1000).epsilon(0.1));
    }
    Rng one(7), other(7);
    CHECK(rate.draw(one) == rate.draw(other));
    CHECK_THROWS_AS(SearchRange::log_uniform(0, 1), OptionError);
    CHECK_THROWS_AS(SearchRange::uniform(2, 1), OptionError);
    CHECK_THROWS_AS(SearchRange::uniform(0, std::numeric_limits<double>::infinity()), OptionError);
    CHECK_THROWS_AS(SearchRange::choices({}), OptionError);
}

TEST_CASE("rungs keep the best part and train it that many times as long") {
    using Rungs = std::vector<SearchRung>;
    // The bracket of Hyperband's paper: 81 trials, a budget of 81, factor 3.
    CHECK(halving_rungs(81, 81, 3) == Rungs{{81, 1}, {27, 3}, {9, 9}, {3, 27}, {1, 81}});
    CHECK(halving_rungs(9, 180, 3) == Rungs{{9, 20}, {3, 60}, {1, 180}});
    CHECK(halving_rungs(10, 100, 4) == Rungs{{10, 25}, {2, 100}});
    CHECK(halving_rungs(2, 7, 2) == Rungs{{2, 4}, {1, 7}});
    CHECK(halving_rungs(1, 50, 3) == Rungs{{1, 50}});
    CHECK(halving_rungs(81, 81, 3, 9) == Rungs{{81, 9}, {27, 27}, {9, 81}}); // no rung below 9 steps
    CHECK(halving_rungs(81, 2, 3) == Rungs{{81, 2}});
    CHECK(halving_rungs(1000000, std::int64_t(1) << 40, 2).size() == 20);
    CHECK_THROWS_AS(halving_rungs(9, 10, 1), OptionError);
    CHECK_THROWS_AS(halving_rungs(0, 10, 3), OptionError);
    CHECK_THROWS_AS(halving_rungs(9, 0, 3), OptionError);
}

TEST_CASE("the lowest losses go on, and what failed does not") {
    const double nan = std::numeric_limits<double>::quiet_NaN(), infinite = std::numeric_limits<double>::infinity();
    using Places = std::vector<std::size_t>;
    CHECK(lowest_losses({3, 1, nan, 2, 1, -infinite, infinite}, 3) == Places{1, 4, 3});
    CHECK(lowest_losses({nan, 2}, 5) == Places{1});
    CHECK(lowest_losses({nan}, 1).empty());
}
