// BLEU, as sacreBLEU computes it.

#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>

#include "lowrank/io/json.hpp"
#include "lowrank/train/bleu.hpp"

using namespace lowrank;

namespace {
const std::filesystem::path fixtures = LOWRANK_TEST_FIXTURES;
const std::filesystem::path shared = LOWRANK_SHARED_DATA;

using Lines = std::vector<std::string>;
} // namespace

TEST_CASE("tokens are those of sacreBLEU's 13a") {
    const json all = read_json(fixtures / "train_bleu.json").at("tokens");
    REQUIRE(all.size() > 200);
    for (const json& entry : all) {
        CAPTURE(entry.dump());
        CHECK(bleu_tokens(entry.at("line").get<std::string>()) == entry.at("tokens").get<Lines>());
    }
}

TEST_CASE("scores are sacreBLEU's") {
    const json all = read_json(fixtures / "train_bleu.json").at("cases");
    REQUIRE(all.size() > 30);
    for (const json& entry : all) {
        CAPTURE(entry.dump());
        const auto hypotheses = entry.at("hypotheses").get<Lines>();
        const auto references = entry.at("references").get<std::vector<Lines>>();
        const BleuScore score = corpus_bleu(hypotheses, references);
        CHECK(score.score == doctest::Approx(entry.at("corpus").get<double>()).epsilon(1e-12));
        CHECK(corpus_bleu(hypotheses, references, {.effective_order = true}).score ==
              doctest::Approx(entry.at("effective_order").get<double>()).epsilon(1e-12));
        CHECK(score.brevity_penalty == doctest::Approx(entry.at("brevity_penalty").get<double>()).epsilon(1e-12));
        CHECK(score.hypothesis_length == entry.at("hypothesis_length"));
        CHECK(score.reference_length == entry.at("reference_length"));
        for (std::size_t n = 0; n < 4; ++n) {
            CHECK(score.precisions[n] == doctest::Approx(entry.at("precisions")[n].get<double>()).epsilon(1e-12));
        }
    }
}

TEST_CASE("the cases of sacreBLEU's and GEM's own tests") {
    // Apache-2.0, MIT; see ../shared/data/README.md.
    const Lines hypotheses = {"The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."};
    const std::vector<Lines> references = {{"The dog bit the man.", "The dog had bit the man."},
                                           {"It was not unexpected.", "No one was surprised."},
                                           {"The man bit him first.", "The man had bitten the dog."}};
    CHECK(corpus_bleu(hypotheses, references).score == doctest::Approx(48.530827).epsilon(1e-7));
    const Lines one = {"Producția de zahăr primă va fi exprimată în ceea ce privește zahărul alb;"};
    const std::vector<Lines> its_reference = {{"producţia de zahăr brut se exprimă în zahăr alb;"}};
    CHECK(corpus_bleu(one, its_reference).score == doctest::Approx(8.493).epsilon(1e-4));
    CHECK_THROWS_AS(corpus_bleu(hypotheses, its_reference), OptionError);
    CHECK_THROWS_AS(corpus_bleu(one, {{}}), OptionError);
    CHECK(corpus_bleu({}, {}).score == 0);

    const std::filesystem::path gem = shared / "bleu" / "gem";
    if (!std::filesystem::exists(gem)) {
        MESSAGE("skipped: no " << gem.string());
        return;
    }
    std::vector<Lines> targets;
    const json file = read_json(gem / "references.json");
    for (const json& value : file.at("values")) {
        targets.push_back(value.at("target").get<Lines>());
    }
    const double score = corpus_bleu(read_json(gem / "predictions.json").at("values").get<Lines>(), targets).score;
    CHECK(std::round(score * 100) == 3256);
}
