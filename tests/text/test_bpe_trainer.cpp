// The BPE trainer against Hugging Face's, token for token and merge for merge, and the files that it writes.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "io/temporary_directory.hpp"
#include "lowrank/io/json.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/text/write_tokenizer.hpp"

using namespace lowrank;

using Strings = std::vector<std::string>;

static const json& cases() {
    static const json all = read_json(LOWRANK_TEST_FIXTURES "/bpe_trainer.json");
    return all;
}

static BpeVocabulary train(const json& texts, const BpeTrainerOptions& options) {
    BpeTrainer trainer(options);
    for (const json& text : texts) {
        trainer.add(text.get<std::string>());
    }
    return trainer.train();
}

static BpeVocabulary train(const json& of) {
    return train(of["texts"], {of["vocab_size"], of["min_frequency"], of["special_tokens"]});
}

static Strings merge_lines(const BpeVocabulary& bpe) {
    Strings lines;
    for (const Merge& merge : bpe.merges) {
        const auto text = [&](std::int32_t id) { return bpe.tokens.at(static_cast<std::size_t>(id)); };
        CHECK(text(merge.result) == text(merge.left) + text(merge.right));
        lines.push_back(text(merge.left) + " " + text(merge.right));
    }
    return lines;
}

TEST_CASE("tokens, merges and ids are those of tokenizers") {
    REQUIRE(cases().size() == 5);
    for (const json& expected : cases()) {
        const BpeVocabulary bpe = train(expected);
        CHECK(bpe.tokens == expected["tokens"].get<Strings>());
        CHECK(merge_lines(bpe) == expected["merges"].get<Strings>());
        CHECK(bpe.tokenizer().encode(expected["texts"][0].get<std::string>()) ==
              expected["ids"].get<std::vector<std::int32_t>>());
    }
}

TEST_CASE("the order of the texts changes nothing") {
    const json& expected = cases()[0];
    json texts = expected["texts"];
    std::reverse(texts.begin(), texts.end());
    const BpeVocabulary bpe =
        train(texts, {expected["vocab_size"], expected["min_frequency"], expected["special_tokens"]});
    CHECK(bpe.tokens == expected["tokens"].get<Strings>());
}

TEST_CASE("the files give the same tokenizer, with tokenizer.json and without") {
    for (const json& of : cases()) {
        const BpeVocabulary bpe = train(of);
        const Tokenizer own = bpe.tokenizer();
        const TemporaryDirectory directory;
        write_tokenizer(bpe, 64, directory.path());
        for (const bool whole : {true, false}) {
            if (!whole) {
                std::filesystem::remove(directory / "tokenizer.json");
            }
            const Tokenizer loaded = Tokenizer::load(directory.path());
            CHECK(loaded.vocab_size() == own.vocab_size());
            CHECK(loaded.eos_id() == own.eos_id());
            for (const json& text : of["texts"]) {
                const std::string both = text.get<std::string>() + "<|endoftext|>" + text.get<std::string>();
                CHECK(loaded.encode(both) == own.encode(both));
                CHECK(loaded.decode(loaded.encode(both)) == both);
            }
        }
    }
}

TEST_CASE("what cannot be learnt from is refused") {
    CHECK_THROWS_WITH_AS(BpeTrainer({256, 0, {"<|endoftext|>"}}),
                         "BPE training: found vocab_size 256, expected 257 (bytes and special tokens) to 1048575",
                         OptionError);
    CHECK_THROWS_AS(BpeTrainer({std::int64_t(1) << 20, 0, {}}), OptionError);
    CHECK_THROWS_AS(BpeTrainer({300, 0, {"twice", "twice"}}), OptionError);
    CHECK_THROWS_AS(BpeTrainer({300, 0, {""}}), OptionError);
    BpeTrainer trainer({300, 0, {}});
    CHECK_THROWS_WITH_AS(trainer.add("ab\xff"), "BPE training: the text is not valid UTF-8 at byte 2 of 3",
                         OptionError);
    CHECK(trainer.train().merges.empty());
}
