// Choosing the next token: what Transformers leaves of the logits, by hand and by its own numbers.

#include <array>
#include <cmath>
#include <doctest/doctest.h>

#include "io/temporary_directory.hpp"
#include "lowrank/generate/sampler.hpp"
#include "lowrank/io/json.hpp"

using namespace lowrank;

namespace {

SamplerOptions with(double temperature, std::int64_t top_k, double top_p, double repetition_penalty = 1,
                    double min_p = 0) {
    SamplerOptions options;
    options.temperature = temperature;
    options.top_k = top_k;
    options.top_p = top_p;
    options.repetition_penalty = repetition_penalty;
    options.min_p = min_p;
    return options;
}

std::vector<float> logs(const std::vector<double>& probabilities) {
    std::vector<float> logits;
    for (const double p : probabilities) {
        logits.push_back(static_cast<float>(std::log(p)));
    }
    return logits;
}

void check_candidates(const SamplerOptions& options, const std::vector<float>& logits,
                      const std::vector<Candidate>& expected, const std::vector<std::int32_t>& past = {}) {
    const std::vector<Candidate> found = Sampler(options).candidates(logits, past);
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        CAPTURE(i);
        CHECK(found[i].id == expected[i].id);
        CHECK(std::abs(found[i].probability - expected[i].probability) <= 1e-6);
    }
}

std::string error_of(const SamplerOptions& options) {
    return message_of<OptionError>([&] { Sampler sampler(options); });
}

} // namespace

TEST_CASE("the candidates are those of Transformers' processors") {
    const json cases = json::parse(file_bytes(LOWRANK_TEST_FIXTURES "/generate_sampler.json"));
    REQUIRE(cases.size() == 20);
    for (const json& one : cases) {
        CAPTURE(one.at("options").dump());
        const json& o = one.at("options");
        const SamplerOptions options = with(o.value("temperature", 1.0), o.value("top_k", 0), o.value("top_p", 1.0),
                                            o.value("repetition_penalty", 1.0), o.value("min_p", 0.0));
        const auto logits = one.at("logits").get<std::vector<float>>();
        const auto past = one.at("past").get<std::vector<std::int32_t>>();
        const auto expected = one.at("probabilities").get<std::vector<double>>();
        std::vector<double> found(expected.size());
        double last = 1;
        for (const Candidate& c : Sampler(options).candidates(logits, past)) {
            found[static_cast<std::size_t>(c.id)] = c.probability;
            CHECK(c.probability <= last);
            last = c.probability;
        }
        for (std::size_t id = 0; id < expected.size(); ++id) {
            CAPTURE(id);
            CHECK(std::abs(found[id] - expected[id]) <= 2e-7);
        }
    }
}

TEST_CASE("cases by hand") {
    const std::vector<float> logits = logs({0.1, 0.4, 0.2, 0.3});
    check_candidates(with(1, 0, 1), logits, {{1, 0.4}, {3, 0.3}, {2, 0.2}, {0, 0.1}});
    check_candidates(with(1, 2, 1), logits, {{1, 4.0 / 7}, {3, 3.0 / 7}});
    // The fewest tokens whose probabilities reach p.
    check_candidates(with(1, 0, 0.39), logits, {{1, 1.0}});
    check_candidates(with(1, 0, 0.41), logits, {{1, 4.0 / 7}, {3, 3.0 / 7}});
    check_candidates(with(1, 0, 0.71), logits, {{1, 4.0 / 9}, {3, 3.0 / 9}, {2, 2.0 / 9}});
    // top_p judges what top_k left: 4/7 alone exceeds a half.
    check_candidates(with(1, 2, 0.5), logits, {{1, 1.0}});
    // Temperature 1/2 squares the probabilities before top_p: 16/30 alone exceeds a half.
    check_candidates(with(0.5, 0, 1), logits, {{1, 16.0 / 30}, {3, 9.0 / 30}, {2, 4.0 / 30}, {0, 1.0 / 30}});
    check_candidates(with(0.5, 0, 0.5), logits, {{1, 1.0}});
    // min_p compares with the most likely token, after the temperature, and judges what top_p left.
    check_candidates(with(1, 0, 1, 1, 0.49), logits, {{1, 4.0 / 9}, {3, 3.0 / 9}, {2, 2.0 / 9}});
    check_candidates(with(1, 0, 1, 1, 0.51), logits, {{1, 4.0 / 7}, {3, 3.0 / 7}});
    check_candidates(with(0.5, 0, 1, 1, 0.5), logits, {{1, 16.0 / 25}, {3, 9.0 / 25}});
    check_candidates(with(1, 0, 0.71, 1, 0.6), logits, {{1, 4.0 / 7}, {3, 3.0 / 7}});
    check_candidates(with(1, 0, 1, 1, 1), {1, 3, 3, 2}, {{1, 0.5}, {2, 0.5}});
    // Positive logits are divided by the penalty, negative ones multiplied, once however often a token occurred.
    check_candidates(with(1, 1, 1, 4), {2, 1, -1}, {{1, 1.0}}, {0, 2, 0});
    check_candidates(with(1, 1, 1, 3), {-1, -2}, {{1, 1.0}}, {0});
    check_candidates(with(1, 0, 1, 2), {2, 2, -2},
                     {{1, std::exp(2) / (std::exp(2) + std::exp(1) + std::exp(-4))},
                      {0, std::exp(1) / (std::exp(2) + std::exp(1) + std::exp(-4))},
                      {2, std::exp(-4) / (std::exp(2) + std::exp(1) + std::exp(-4))}},
                     {0, 2, 2, 0, 0});
    // What is impossible stays so.
    check_candidates(with(1, 0, 1), {0, -INFINITY, 0}, {{0, 0.5}, {2, 0.5}});
    SamplerOptions greedy;
    greedy.greedy = true;
    check_candidates(greedy, {1, 3, 3, 2}, {{1, 1.0}});
}

TEST_CASE("tokens are drawn as often as they are likely, and again with the same seed") {
    const std::vector<double> probabilities{0.1, 0.4, 0.2, 0.3};
    const std::vector<float> logits = logs(probabilities);
    SamplerOptions options;
    options.seed = 5;
    Sampler first(options), again(options);
    options.seed = 6;
    Sampler other(options);
    constexpr int draws = 20000;
    std::array<int, 4> counts{};
    int differences = 0;
    for (int i = 0; i < draws; ++i) {
        const std::int32_t id = first.next(logits, {});
        ++counts[static_cast<std::size_t>(id)];
        CHECK(again.next(logits, {}) == id);
        differences += other.next(logits, {}) != id;
    }
    CHECK(differences > draws / 2);
    for (std::size_t id = 0; id < 4; ++id) { // four standard deviations
        const double p = probabilities[id];
        CHECK(std::abs(counts[id] - draws * p) <= 4 * std::sqrt(draws * p * (1 - p)));
    }
}

TEST_CASE("a large vocabulary is cut as a small one: top_p sorts it piece by piece") {
    std::vector<float> logits;
    Rng rng(3);
    for (int i = 0; i < 5000; ++i) {
        logits.push_back(static_cast<float>(rng.normal()));
    }
    const std::vector<Candidate> all = Sampler(with(1, 0, 1)).candidates(logits, {});
    REQUIRE(all.size() == 5000);
    for (const double top_p : {0.01, 0.1, 0.5, 0.9, 0.999}) {
        CAPTURE(top_p);
        std::size_t count = 0;
        double sum = 0;
        while (sum < top_p) {
            sum += all[count++].probability;
        }
        const std::vector<Candidate> found = Sampler(with(1, 0, top_p)).candidates(logits, {});
        REQUIRE(found.size() == count);
        for (std::size_t i = 0; i < count; ++i) {
            REQUIRE(found[i].id == all[i].id);
            REQUIRE(std::abs(found[i].probability - all[i].probability / sum) <= 1e-12);
        }
    }
}

TEST_CASE("streams of one seed differ") {
    const std::vector<float> logits = logs({0.25, 0.25, 0.25, 0.25});
    Sampler first(SamplerOptions{}), same(SamplerOptions{}, 0), other(SamplerOptions{}, 1);
    int differences = 0;
    for (int i = 0; i < 100; ++i) {
        const std::int32_t id = first.next(logits, {});
        CHECK(same.next(logits, {}) == id);
        differences += other.next(logits, {}) != id;
    }
    CHECK(differences > 50);
}

TEST_CASE("settings out of range, and logits that are no numbers, are refused") {
    const auto mentions = [](const std::string& message, const char* key) {
        CAPTURE(message);
        CHECK(message.find(key) != std::string::npos);
    };
    mentions(error_of(with(0, 0, 1)), "temperature");
    mentions(error_of(with(NAN, 0, 1)), "temperature");
    mentions(error_of(with(1, -1, 1)), "top_k");
    mentions(error_of(with(1, 0, 0)), "top_p");
    mentions(error_of(with(1, 0, 1.5)), "top_p");
    mentions(error_of(with(1, 0, 1, 1, -0.1)), "min_p");
    mentions(error_of(with(1, 0, 1, 1, 1.1)), "min_p");
    mentions(error_of(with(1, 0, 1, 1, NAN)), "min_p");
    mentions(error_of(with(1, 0, 1, 0)), "repetition_penalty");
    mentions(error_of(with(1, 0, 1, INFINITY)), "repetition_penalty");
    Sampler sampler{with(1, 0, 1, 2)};
    SamplerOptions greedy;
    greedy.greedy = true;
    for (const std::vector<float>& logits :
         std::vector<std::vector<float>>{{0, NAN, 1}, {NAN, 0, 1}, {0, INFINITY}, {-INFINITY, -INFINITY}, {}}) {
        CHECK_THROWS_AS(sampler.next(logits, {}), NumericError);
        CHECK_THROWS_AS(Sampler(greedy).next(logits, {}), NumericError);
    }
    const std::vector<float> two{0, 1};
    const std::vector<std::int32_t> past{2}, negative{-1};
    CHECK_THROWS_AS(sampler.next(two, past), ShapeError);
    CHECK_THROWS_AS(sampler.next(two, negative), ShapeError);
}
