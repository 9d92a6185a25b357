// The tokenizer's interface on small vocabularies, against Hugging Face's answers.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/text/stream_decoder.hpp"
#include "text/parity.hpp"

using namespace lowrank;
using Ids = std::vector<std::int32_t>;

static const std::filesystem::path fixtures = LOWRANK_TEST_FIXTURES;

static const Tokenizer& tiny() {
    static const Tokenizer tokenizer = Tokenizer::load(fixtures / "text_tiny_bpe");
    return tokenizer;
}
static const Tokenizer& extended() { // the same with more added tokens, from tokenizer.json
    static const Tokenizer tokenizer = Tokenizer::load(fixtures / "text_tiny_json");
    return tokenizer;
}

static void check_blocks(const Tokenizer& tokenizer, const std::string& name) {
    const auto ids = parity::expected(name + ".random");
    REQUIRE(ids.size() == 32);
    for (const parity::Expected& line : ids) {
        parity::Hash ours;
        for (const std::string& text : parity::block_of_strings(line.block())) {
            ours.add(tokenizer.encode(text));
        }
        CHECK_MESSAGE(ours == line.hash, name, ": ids of block ", line.name);
    }
    for (const parity::Expected& line : parity::expected(name + ".decode")) {
        parity::Hash ours;
        for (const Ids& list : parity::block_of_ids(line.block(), tokenizer.vocab_size())) {
            const std::string text = tokenizer.decode(list);
            ours.add_bytes(text);
            StreamDecoder stream(tokenizer);
            std::string streamed;
            for (const std::int32_t id : list) {
                const std::string part = stream.push(id);
                REQUIRE(!validate_utf8(part));
                streamed += part;
            }
            REQUIRE(streamed + stream.flush() == text);
        }
        CHECK_MESSAGE(ours == line.hash, name, ": decoded texts of block ", line.name);
    }
}

TEST_CASE("ids and texts of pseudo-random blocks: vocab.json and merges.txt") {
    check_blocks(tiny(), "tiny");
}
TEST_CASE("ids and texts of pseudo-random blocks: tokenizer.json") {
    check_blocks(extended(), "extended");
}

TEST_CASE("encode and decode are inverse on text") {
    for (const std::string& text : parity::block_of_strings(99)) {
        CHECK(tiny().decode(tiny().encode(text)) == text);
        CHECK(tiny().decode(tiny().encode(text, {.special_tokens = false})) == text);
    }
    CHECK(tiny().encode("").empty());
    CHECK(tiny().decode(Ids{}) == "");
}

TEST_CASE("special tokens are one id, or plain text where asked") {
    const std::int32_t eos = tiny().eos_id().value();
    CHECK(eos == tiny().vocab_size() - 1);
    CHECK(tiny().token_text(eos) == "<|endoftext|>");
    CHECK(tiny().encode("<|endoftext|>") == Ids{eos});
    const Ids ids = tiny().encode("a<|endoftext|><|endoftext|>b");
    CHECK(ids == Ids{tiny().token_id("a").value(), eos, eos, tiny().token_id("b").value()});
    CHECK(tiny().decode(ids) == "a<|endoftext|><|endoftext|>b");
    const Ids plain = tiny().encode("a<|endoftext|>", {.special_tokens = false});
    CHECK(std::find(plain.begin(), plain.end(), eos) == plain.end());
    CHECK(tiny().decode(plain) == "a<|endoftext|>");
    CHECK(tiny().encode("<|endoftext|").size() > 1);
}

TEST_CASE("added tokens: the longest of those that begin first; those that are not special always count") {
    const auto id = [](const char* text) { return extended().token_id(text).value(); };
    CHECK(extended().encode("<|user|>2<|user|>") == Ids{id("<|user|>2"), id("<|user|>")});
    const Ids plain = extended().encode("<|user|>don't be", {.special_tokens = false});
    CHECK(plain.back() == id("don't be"));
    CHECK(plain.size() > 2);
    CHECK(extended().added_tokens().size() == 5);
}

TEST_CASE("a token's bytes and its spelling") {
    const std::int32_t space = tiny().token_id("Ġ").value();
    CHECK(tiny().token_bytes(space) == " ");
    CHECK(tiny().token_text(space) == "Ġ");
    CHECK(!tiny().token_id("no such token"));
    CHECK(!tiny().merges().empty());
    const Merge first = tiny().merges().front();
    CHECK(tiny().token_text(first.result) ==
          std::string(tiny().token_text(first.left)) + std::string(tiny().token_text(first.right)));
}

TEST_CASE("what is not text or not a token is refused") {
    CHECK_THROWS_WITH_AS(tiny().encode("abc\xff"), "Tokenizer::encode: the text is not valid UTF-8 at byte 3 of 4",
                         OptionError);
    CHECK_THROWS_AS(tiny().decode(Ids{-1}), OptionError);
    CHECK_THROWS_WITH_AS(tiny().decode(Ids{0, 463}),
                         "Tokenizer: the token id 463 is not in the vocabulary (ids 0 to 462)", OptionError);
    StreamDecoder stream(tiny());
    CHECK_THROWS_AS(stream.push(463), OptionError);
}

TEST_CASE("a stream never ends inside a character") {
    const auto byte = [](int value) {
        return tiny().token_id(to_byte_alphabet(std::string(1, static_cast<char>(value)))).value();
    };
    StreamDecoder stream(tiny());
    CHECK(stream.push(byte(0xf0)) == "");
    CHECK(stream.push(byte(0x9f)) == "");
    CHECK(stream.push(byte(0x99)) == "");
    CHECK(stream.push(byte(0x82)) == "🙂");
    CHECK(stream.push(byte(0xe2)) == "");
    CHECK(stream.push(byte('a')) == "\ufffd"
                                    "a"); // known to be malformed now
    CHECK(stream.push(byte(0xe2)) == "");
    CHECK(stream.flush() == "\ufffd");
    CHECK(stream.flush() == "");
}

TEST_CASE("threads share a tokenizer") {
    const Tokenizer tokenizer = tiny(); // copies share caches
    const std::vector<std::string> texts = parity::block_of_strings(5);
    std::vector<Ids> expected;
    for (const std::string& text : texts) {
        expected.push_back(tiny().encode(text));
    }
    std::vector<int> wrong(4, 0);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < wrong.size(); ++t) {
        threads.emplace_back([&, t] {
            for (std::size_t i = 0; i < 400; ++i) {
                const std::size_t k = (i * 7 + t) % texts.size();
                wrong[t] += tokenizer.encode(texts[k]) != expected[k];
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(wrong == std::vector<int>(4, 0));
}
