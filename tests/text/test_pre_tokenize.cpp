// The pieces that text is split into equal those of Hugging Face's byte-level pre-tokenizer.
#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include "lowrank/text/pre_tokenize.hpp"
#include "text/parity.hpp"

using namespace lowrank;

static std::vector<std::string> pieces(std::string_view text) {
    std::vector<std::string> found;
    for_each_piece(SplitPattern::gpt2, text, [&](std::string_view piece) { found.emplace_back(piece); });
    return found;
}

static parity::Hash hash_of_lengths(const std::vector<std::string>& texts) {
    parity::Hash hash;
    for (const std::string& text : texts) {
        std::vector<std::size_t> lengths;
        for_each_piece(SplitPattern::gpt2, text, [&](std::string_view piece) { lengths.push_back(piece.size()); });
        hash.add(lengths);
    }
    return hash;
}

using Pieces = std::vector<std::string>;

TEST_CASE("contractions, runs and spaces") {
    CHECK(pieces("").empty());
    CHECK(pieces("I don't, we'll") == Pieces{"I", " don", "'t", ",", " we", "'ll"});
    CHECK(pieces("DON'T 'S") == Pieces{"DON", "'", "T", " '", "S"}); // case matters
    CHECK(pieces("'sad ''s 's '") == Pieces{"'s", "ad", " ''", "s", " '", "s", " '"});
    CHECK(pieces("'") == Pieces{"'"});
    CHECK(pieces("'r") == Pieces{"'", "r"});
    CHECK(pieces("a1b2!?") == Pieces{"a", "1", "b", "2", "!?"});
    CHECK(pieces("x   y") == Pieces{"x", "  ", " y"});
    CHECK(pieces("x\n\ny") == Pieces{"x", "\n", "\n", "y"});
    CHECK(pieces("x \n") == Pieces{"x", " \n"});
    CHECK(pieces("x  ") == Pieces{"x", "  "});
    CHECK(pieces(" \u00a0y") == Pieces{" ", "\u00a0", "y"});
    CHECK(pieces("\u00a0 y") == Pieces{"\u00a0", " y"});
}

TEST_CASE("every code point, in several contexts") {
    const auto expected = parity::expected("pieces.code_points");
    REQUIRE(expected.size() == 0x110000 / 4096);
    for (const parity::Expected& line : expected) {
        CHECK_MESSAGE(hash_of_lengths(parity::block_of_code_points(line.block())) == line.hash,
                      "the 4096 code points of block ", line.name);
    }
}

TEST_CASE("pseudo-random strings") {
    const auto expected = parity::expected("pieces.random");
    REQUIRE(expected.size() == 32);
    for (const parity::Expected& line : expected) {
        CHECK_MESSAGE(hash_of_lengths(parity::block_of_strings(line.block())) == line.hash, "block ", line.name);
    }
}
