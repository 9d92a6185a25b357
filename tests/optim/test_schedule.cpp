#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/io/json.hpp"
#include "lowrank/optim/schedule.hpp"

using namespace lowrank;

TEST_CASE("every step's factor equals transformers.get_scheduler's, past the end too") {
    const json curves = read_json(LOWRANK_TEST_FIXTURES "/optim_schedules.json");
    REQUIRE(curves.size() == 20);
    for (const json& curve : curves) {
        CAPTURE(curve.at("kind"));
        const Schedule schedule{schedule_from_name(curve.at("kind").get<std::string>()),
                                curve.at("warmup_steps").get<std::int64_t>(),
                                curve.at("total_steps").get<std::int64_t>()};
        std::int64_t step = 0;
        for (const json& factor : curve.at("factors")) {
            CAPTURE(step);
            CHECK(std::abs(schedule.factor(step++) - factor.get<double>()) < 1e-15);
        }
    }
}

TEST_CASE("names are read back, and an unknown one is refused with those that exist") {
    for (const char* name : {"constant", "constant_with_warmup", "linear", "cosine"}) {
        CHECK(name_of(schedule_from_name(name)) == name);
    }
    CHECK_THROWS_WITH_AS(
        schedule_from_name("Linear"),
        "learning-rate schedule: found 'Linear', expected one of: constant, constant_with_warmup, linear, cosine",
        OptionError);
}

TEST_CASE("steps of warmup come from the number, else from the ratio rounded up") {
    CHECK(warmup_step_count(100, 7, 0.5) == 7);
    CHECK(warmup_step_count(100, 0, 0.03) == 3);
    CHECK(warmup_step_count(101, 0, 0.03) == 4);
    CHECK(warmup_step_count(100, 0, 0) == 0);
    CHECK_THROWS_AS(warmup_step_count(100, -1, 0), OptionError);
    CHECK_THROWS_AS(warmup_step_count(100, 0, 1.5), OptionError);
    CHECK_THROWS_AS(warmup_step_count(100, 0, std::nan("")), OptionError);
}
