// GPT-2's own vocabulary: ids equal Hugging Face's on every text of the shared data and for every code point.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "lowrank/text/load_tokenizer.hpp"
#include "text/parity.hpp"

using namespace lowrank;
using Ids = std::vector<std::int32_t>;

static const std::filesystem::path data = LOWRANK_SHARED_DATA;

static bool present() {
    if (!std::filesystem::exists(data / "gpt2/tokenizer.json")) {
        MESSAGE("skipped: ", data.string(), "/gpt2 is not there");
        return false;
    }
    return true;
}

static const Tokenizer& gpt2() {
    static const Tokenizer tokenizer = Tokenizer::load(data / "gpt2");
    return tokenizer;
}

TEST_CASE("files of the data") {
    if (!present()) {
        return;
    }
    const auto expected = parity::expected("gpt2.file");
    REQUIRE(expected.size() > 50);
    for (const parity::Expected& line : expected) {
        const std::string text = read_text(data / line.name);
        parity::Hash ours;
        const Ids ids = gpt2().encode(text);
        ours.add(ids);
        CHECK_MESSAGE(ours == line.hash, line.name, ": ", ours.count, " ids, expected ", line.hash.count);
        CHECK_MESSAGE(gpt2().decode(ids) == text, line.name);
    }
}

TEST_CASE("files that are not UTF-8: the first bad byte, and the bytes decoded as tokens") {
    if (!present()) {
        return;
    }
    const auto expected = parity::expected("invalid.file");
    REQUIRE(!expected.empty());
    for (const parity::Expected& line : expected) {
        const std::string text = read_text(data / line.name);
        CHECK_THROWS_AS(gpt2().encode(text), OptionError);
        Ids bytes;
        for (const char byte : text) {
            bytes.push_back(gpt2().token_id(to_byte_alphabet(std::string(1, byte))).value());
        }
        parity::Hash ours;
        ours.add_bytes(gpt2().decode(bytes));
        ours.count = validate_utf8(text).value();
        CHECK_MESSAGE(ours == line.hash, line.name, ": first bad byte ", ours.count, ", expected ", line.hash.count);
    }
}

TEST_CASE("every code point, in several contexts") {
    if (!present()) {
        return;
    }
    const auto expected = parity::expected("gpt2.code_points");
    REQUIRE(expected.size() == 0x110000 / 4096);
    for (const parity::Expected& line : expected) {
        parity::Hash ours;
        for (const std::string& text : parity::block_of_code_points(line.block())) {
            ours.add(gpt2().encode(text));
        }
        CHECK_MESSAGE(ours == line.hash, "the 4096 code points of block ", line.name);
    }
}

TEST_CASE("pseudo-random strings and ids") {
    if (!present()) {
        return;
    }
    for (const parity::Expected& line : parity::expected("gpt2.random")) {
        parity::Hash ours;
        for (const std::string& text : parity::block_of_strings(line.block())) {
            ours.add(gpt2().encode(text));
        }
        CHECK_MESSAGE(ours == line.hash, "block ", line.name);
    }
    for (const parity::Expected& line : parity::expected("gpt2.decode")) {
        parity::Hash ours;
        for (const Ids& ids : parity::block_of_ids(line.block(), gpt2().vocab_size())) {
            ours.add_bytes(gpt2().decode(ids));
        }
        CHECK_MESSAGE(ours == line.hash, "block ", line.name);
    }
}

TEST_CASE("vocab.json with merges.txt gives the ids of tokenizer.json") {
    if (!present()) {
        return;
    }
    const auto directory = std::filesystem::temp_directory_path() / "lowrank-gpt2-parity";
    std::filesystem::create_directories(directory);
    for (const char* name : {"vocab.json", "merges.txt"}) {
        std::filesystem::copy_file(data / "gpt2" / name, directory / name,
                                   std::filesystem::copy_options::overwrite_existing);
    }
    const Tokenizer tokenizer = Tokenizer::load(directory);
    std::filesystem::remove_all(directory);
    CHECK(tokenizer.vocab_size() == 50257);
    CHECK(tokenizer.eos_id() == 50256);
    CHECK(tokenizer.merges().size() == 50000);
    const std::string text = read_text(data / "text/wikitext2-valid.txt") + "<|endoftext|>x";
    CHECK(tokenizer.encode(text) == gpt2().encode(text));
}

TEST_CASE("llama.cpp's vocabulary test, and ids published with a model") {
    if (!present()) {
        return;
    }
    const std::string separator = "\n__ggml_vocab_test__\n";
    std::string inputs = read_text(data / "tokenizer-tests/ggml-vocab-gpt-2.gguf.inp");
    std::istringstream outputs(read_text(data / "tokenizer-tests/ggml-vocab-gpt-2.gguf.out"));
    std::size_t cases = 0;
    for (std::string line; std::getline(outputs, line); ++cases) {
        std::istringstream numbers(line);
        const Ids expected{std::istream_iterator<std::int32_t>(numbers), {}};
        const auto end = inputs.find(separator);
        const std::string input = inputs.substr(0, end);
        CHECK_MESSAGE(gpt2().encode(input) == expected, input);
        inputs.erase(0, end == std::string::npos ? end : end + separator.size());
    }
    CHECK(cases > 40);
    JsonReader published = JsonReader::open(data / "tokenizer-tests/gpt2_encoded_tokens.json");
    CHECK(gpt2().encode(published.get_string("text")) == published.find("token_ids")->get<Ids>());
}
