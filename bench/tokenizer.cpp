// GPT-2's tokenizer on one thread: loading its files, and encoding a text as a whole and line by line.
//
// LOWRANK_BENCH_TOKENIZER is a directory with tokenizer files and LOWRANK_BENCH_TEXT a file of text. Where neither they
// nor the project's shared data are there, a text is made up and a tokenizer of 5,000 tokens trained on it.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "lowrank/core/random.hpp"
#include "lowrank/io/read_text.hpp"
#include "lowrank/text/bpe_trainer.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/text/write_tokenizer.hpp"
#include "measure.hpp"

namespace {

using namespace lowrank;
namespace fs = std::filesystem;

fs::path given_or(const char* variable, const char* shared) {
    const char* given = std::getenv(variable);
    return given != nullptr ? fs::path(given) : fs::path(LOWRANK_SHARED_DATA) / shared;
}

/// A million characters of words of random letters, the first ones the most frequent.
std::string made_up_text() {
    Rng rng(0);
    std::vector<std::string> words;
    while (words.size() < 5000) {
        std::string word;
        for (auto letters = 2 + rng.below(8); letters > 0; --letters) {
            word += static_cast<char>('a' + rng.below(26));
        }
        words.push_back(word);
    }
    std::string text;
    while (text.size() < 1'000'000) {
        text += words[rng.below(1 + rng.below(words.size()))];
        text += rng.below(12) == 0 ? ".\n" : " ";
    }
    return text;
}

struct Material {
    fs::path tokenizer;
    std::string text;
    std::string source; ///< where both are from
    bool own_files = false;

    Material() : tokenizer(given_or("LOWRANK_BENCH_TOKENIZER", "gpt2")) {
        const fs::path file = given_or("LOWRANK_BENCH_TEXT", "text/wizard-of-oz.txt");
        if (fs::exists(file) && fs::exists(tokenizer)) {
            text = read_text(file);
            source = concat(file.filename().string(), ", ", tokenizer.filename().string());
            return;
        }
        text = made_up_text();
        source = "made up";
        BpeTrainer trainer({.vocab_size = 5000});
        trainer.add(text);
        tokenizer = fs::temp_directory_path() / concat("lowrank_bench_tokenizer_", static_cast<long>(getpid()));
        fs::create_directories(tokenizer);
        own_files = true;
        write_tokenizer(trainer.train(), 1024, tokenizer);
    }
    Material(const Material&) = delete;
    Material& operator=(const Material&) = delete;
    ~Material() {
        std::error_code ignored;
        own_files&& fs::remove_all(tokenizer, ignored);
    }
};
const Material& material() {
    static const Material all;
    return all;
}

void load_tokenizer(benchmark::State& state) {
    state.SetLabel(material().source);
    bench::best_seconds(state, [] { Tokenizer::load(material().tokenizer); });
}

void encode(benchmark::State& state, bool by_line) {
    const Tokenizer tokenizer = Tokenizer::load(material().tokenizer);
    const std::string_view text = material().text;
    std::vector<std::string_view> parts = {text};
    if (by_line) {
        parts.clear();
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t end = std::min(text.find('\n', begin), text.size());
            parts.push_back(text.substr(begin, end - begin)); // without its newline
            begin = end + 1;
        }
    }
    std::size_t tokens = 0;
    const double seconds = bench::best_seconds(state, [&] {
        tokens = 0;
        for (const std::string_view part : parts) {
            tokens += tokenizer.encode(part).size();
        }
    });
    state.SetLabel(material().source);
    state.counters["MB/s"] = 1e-6 * static_cast<double>(text.size()) / seconds;
    state.counters["tokens"] = static_cast<double>(tokens);
}

BENCHMARK(load_tokenizer)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, text, false)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, lines, true)->UseManualTime()->Unit(benchmark::kMillisecond);

} // namespace
