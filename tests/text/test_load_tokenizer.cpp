// Tokenizer files that are wrong are refused with the file, the place and what was expected.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "lowrank/text/load_tokenizer.hpp"

using namespace lowrank;
namespace fs = std::filesystem;

static std::string contents(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

static std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

/// A model directory of its own, gone at the end of the scope.
struct Directory {
    fs::path path =
        fs::temp_directory_path() / ("lowrank-tokenizer-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)));

    Directory() {
        fs::remove_all(path);
        fs::create_directories(path);
    }
    ~Directory() { fs::remove_all(path); }

    Directory& put(const std::string& name, const std::string& text) {
        std::ofstream(path / name, std::ios::binary) << text;
        return *this;
    }
    Directory& put_tiny() { return put("vocab.json", vocab).put("merges.txt", merges); }

    /// The message with which loading fails, without the directory's name.
    std::string error() const {
        try {
            Tokenizer::load(path);
        } catch (const FileError& error) {
            std::string message = error.what();
            const std::string prefix = path.string() + "/";
            return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
        }
        return "no error";
    }

    inline static const std::string vocab = contents(LOWRANK_TEST_FIXTURES "/text_tiny_bpe/vocab.json");
    inline static const std::string merges = contents(LOWRANK_TEST_FIXTURES "/text_tiny_bpe/merges.txt");
    inline static const std::string whole = contents(LOWRANK_TEST_FIXTURES "/text_tiny_json/tokenizer.json");
};

static void check_error(const Directory& directory, const std::string& part) {
    const std::string message = directory.error();
    CHECK_MESSAGE(message.find(part) != std::string::npos, "expected \"", part, "\" in: ", message);
}

TEST_CASE("a directory without a tokenizer") {
    const Directory directory;
    CHECK(directory.error() == directory.path.string() +
                                   ": found no tokenizer, expected one of tokenizer.json, vocab.json "
                                   "(with merges.txt) and char_vocab.json");
    Directory lonely;
    check_error(lonely.put("vocab.json", Directory::vocab), "merges.txt");
}

TEST_CASE("a broken vocab.json") {
    const auto with = [](const std::string& vocab, const std::string& part) {
        check_error(Directory().put_tiny().put("vocab.json", vocab), part);
    };
    with("{\"a\": 0", "vocab.json: line 1, column");
    with("", "vocab.json: line 1");
    with("[1]", "vocab.json: found a list, expected an object of token: id");
    with("{}", "vocab.json: found no token \"Ā\" for the byte 0");
    with("{\"a\": 0, \"a\": 1}", "key \"a\" appears twice");
    with("{\"a\": 0, \"b\": 0}", "vocab.json: the id 0 is given to both \"a\" and \"b\"");
    with("{\"\": 0}", "vocab.json: the token of id 0 is empty");
    with("{\"a\": -1}",
         "vocab.json: found the id -1 (number) for the token \"a\", expected an integer from 0 to 4194303");
    with("{\"a\": 4194304}", "found the id 4194304 (number)");
    with("{\"a\": 18446744073709551616}", "found the id 1.8446744073709552e+19 (number)");
    with("{\"a\": 1.5}", "found the id 1.5 (number)");
    with("{\"a\": \"1\"}", "found the id \"1\" (string)");
    with("{\"a\xff\": 1}", "vocab.json: line 1");
    with(replaced(Directory::vocab, "\"Ġ\":", "\"another\":"), "vocab.json: found no token \"Ġ\" for the byte 32");
}

TEST_CASE("a broken merges.txt") {
    const auto with = [](const std::string& line, const std::string& part) {
        check_error(Directory().put_tiny().put("merges.txt", "#version: 0.2\nt h\n" + line + "\n"), part);
    };
    with("Q X",
         "merges.txt: line 3: the merge of \"Q\" and \"X\" needs the token \"QX\", which is not in the vocabulary");
    with("Ġunknown X", "line 3: the merge of \"Ġunknown\" and \"X\" needs the token \"Ġunknown\"");
    with("one", "merges.txt: line 3: found \"one\", expected two tokens with one space between");
    with("a b c", "line 3: found \"a b c\"");
    with(" ", "line 3");
}

TEST_CASE("line ends and blank lines of merges.txt do not matter") {
    std::string windows;
    for (const char c : Directory::merges) {
        windows += c == '\n' ? "\r\n" : std::string(1, c);
    }
    const std::string text = "the 中文 naïve tokens";
    CHECK(Tokenizer::load(Directory().put_tiny().put("merges.txt", windows + "\r\n\r\n").path).encode(text) ==
          Tokenizer::load(LOWRANK_TEST_FIXTURES "/text_tiny_bpe").encode(text));
}

TEST_CASE("a tokenizer.json that is not GPT-2's kind, or broken") {
    const auto with = [](const std::string& from, const std::string& to, const std::string& part) {
        check_error(Directory().put("tokenizer.json", replaced(Directory::whole, from, to)), part);
    };
    with("\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}",
         "tokenizer.json: key 'normalizer': found an object, expected null");
    with("\"type\":\"BPE\"", "\"type\":\"Unigram\"", "key 'model.type': found \"Unigram\", expected \"BPE\"");
    with("\"pre_tokenizer\":{\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\"type\":\"Metaspace\"",
         "key 'pre_tokenizer.type': found \"Metaspace\"");
    with("\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"Fuse\"", "key 'decoder.type'");
    with("\"byte_fallback\":false", "\"byte_fallback\":true", "key 'model.byte_fallback': found true");
    with("\"ignore_merges\":false", "\"ignore_merges\":true", "key 'model.ignore_merges'");
    with("\"dropout\":null", "\"dropout\":0.1", "key 'model.dropout'");
    with("\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", "key 'model.end_of_word_suffix'");
    with("\"add_prefix_space\":false", "\"add_prefix_space\":true", "key 'pre_tokenizer.add_prefix_space': found true");
    with("\"vocab\":", "\"words\":", "key 'model.vocab'");
    with("\"merges\":", "\"words\":", "key 'model.merges'");
    with("\"lstrip\":false", "\"lstrip\":true", "key 'lstrip': found true, expected false");
    with("\"content\":\"<|user|>\"", "\"content\":\"\"", "found an added token without text");
    with("\"content\":\"<|user|>\"", "\"content\":\"a\"", "found the added token \"a\" with id 463, expected");
    with("\"id\":463", "\"id\":-5", "with id -5, expected an id from 0");
    with("\"id\":463", "\"id\":1", "the id 1 is given to both");
}

TEST_CASE("settings beside the vocabulary") {
    const auto load = [](const std::string& name, const std::string& text) {
        return Tokenizer::load(Directory().put_tiny().put(name, text).path);
    };
    SUBCASE("a new token of a role gets the next id, as in Transformers") {
        const Tokenizer tokenizer =
            load("tokenizer_config.json", R"({"pad_token": "<|pad|>", "eos_token": {"content": "the"}})");
        CHECK(tokenizer.vocab_size() == 464);
        CHECK(tokenizer.encode("<|pad|>") == std::vector<std::int32_t>{463});
        CHECK(tokenizer.eos_id() == tokenizer.token_id("the"));
    }
    SUBCASE("added_tokens_decoder") {
        const Tokenizer tokenizer =
            load("tokenizer_config.json",
                 R"({"added_tokens_decoder": {"490": {"content": "<|im_start|>", "special": true}}})");
        CHECK(tokenizer.encode("<|im_start|>") == std::vector<std::int32_t>{490});
        CHECK(tokenizer.vocab_size() == 491);
        CHECK(!tokenizer.contains(485));
        CHECK_THROWS_AS(tokenizer.decode(std::vector<std::int32_t>{485}), OptionError);
    }
    SUBCASE("added_tokens.json and special_tokens_map.json") {
        CHECK(load("added_tokens.json", R"({"[X]": 463})").encode("[X]") == std::vector<std::int32_t>{463});
        const Tokenizer tokenizer = load("special_tokens_map.json", R"({"eos_token": "and"})");
        CHECK(tokenizer.eos_id() == tokenizer.token_id("and"));
    }
    const auto with = [](const std::string& config, const std::string& part) {
        check_error(Directory().put_tiny().put("tokenizer_config.json", config), "tokenizer_config.json: " + part);
    };
    with(R"({"add_prefix_space": true})", "key 'add_prefix_space': found true");
    with(R"({"eos_token": 3})", "key 'eos_token': found 3 (number)");
    with(R"({"added_tokens_decoder": {"x": {"content": "y"}}})",
         "key 'added_tokens_decoder.x.content': found \"y\" with id -1");
    with(R"({"tokenizer_class": "Qwen2Tokenizer"})", "key 'tokenizer_class': found \"Qwen2Tokenizer\"");
}

TEST_CASE("a character-level vocabulary") {
    const Tokenizer tokenizer =
        Tokenizer::load(Directory().put("char_vocab.json", R"({"\n": 0, "a": 1, "é": 2, "🙂": 3})").path);
    CHECK(tokenizer.encode("a🙂é\n") == std::vector<std::int32_t>{1, 3, 2, 0});
    CHECK(tokenizer.decode(std::vector<std::int32_t>{1, 3, 2, 0}) == "a🙂é\n");
    CHECK(tokenizer.vocab_size() == 4);
    CHECK(!tokenizer.eos_id());
    CHECK(tokenizer.merges().empty());
    CHECK_THROWS_WITH_AS(tokenizer.encode("aab"),
                         "encode: the character \"b\" at byte 2 is not among the 4 characters of this "
                         "model's vocabulary",
                         OptionError);
    check_error(Directory().put("char_vocab.json", R"({"ab": 0})"),
                "char_vocab.json: the token \"ab\" of id 0 is not one character");
}

TEST_CASE("the tokenizers of the shared data") {
    const fs::path data = LOWRANK_SHARED_DATA;
    if (!fs::exists(data / "models/slm4096/char_vocab.json")) {
        MESSAGE("skipped: ", data.string(), "/models/slm4096 is not there");
        return;
    }
    const Tokenizer characters = Tokenizer::load(data / "models/slm4096");
    const std::string corpus = contents(data / "models/slm4096/corpus.txt");
    CHECK(characters.vocab_size() == 54);
    CHECK(characters.encode(corpus).size() == corpus.size());
    CHECK(characters.decode(characters.encode(corpus)) == corpus);
    // Kinds that are not supported are refused by what makes them different.
    CHECK_THROWS_WITH_AS(Tokenizer::load(data / "tokenizers/qwen2"), doctest::Contains("Qwen2Tokenizer"), FileError);
    CHECK_THROWS_WITH_AS(Tokenizer::load(data / "tokenizers/tiny-bpe"), doctest::Contains("normalizer"), FileError);
    CHECK_THROWS_WITH_AS(Tokenizer::load(data / "tokenizers/mistral"), doctest::Contains("byte_fallback"), FileError);
    CHECK_THROWS_WITH_AS(Tokenizer::load(data / "tokenizers/openllama"), doctest::Contains("found no tokenizer"),
                         FileError);
}
