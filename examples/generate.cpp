// generate: continues a prompt with a model, with or without an adapter, streaming the text as it comes.

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "model.hpp"
#include "number.hpp"
#include "program.hpp"
#include "say.hpp"
#include "lowrank/generate/generate.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/text/stream_decoder.hpp"
#include "lowrank/text/template.hpp"
#include "lowrank/train/interrupt.hpp"

using namespace lowrank;

namespace {

struct Options {
    examples::ModelOptions model;
    std::string prompt, instruction, input;
    std::int64_t max_new_tokens = 100;
    SamplerOptions sampler;
    std::vector<std::string> stop;
};

/// Prints text as it grows, but holds back what may be the beginning of a stop string.
class StopWatch {
  public:
    explicit StopWatch(const std::vector<std::string>& stops) : stops_(stops) {}

    /// Takes new text; returns whether to go on.
    bool push(const std::string& text) {
        held_ += text;
        std::size_t end = std::string::npos; // the first stop text in it
        for (const std::string& stop : stops_) {
            end = std::min(end, held_.find(stop));
        }
        if (end != std::string::npos) {
            held_.resize(end);
            flush();
            return false;
        }
        std::size_t keep = 0;
        for (const std::string& stop : stops_) {
            for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
                if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) {
                    keep = n;
                }
            }
        }
        print(held_.substr(0, held_.size() - keep));
        held_.erase(0, held_.size() - keep);
        return true;
    }

    void flush() {
        print(held_);
        held_.clear();
    }

  private:
    static void print(const std::string& text) {
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
    }

    std::vector<std::string> stops_;
    std::string held_;
};

/// Refuses options that say nothing together.
void refuse_contradictions(const Options& options, const CLI::App& app) {
    if (!options.instruction.empty() && app.count("--prompt") > 0) {
        throw OptionError("--instruction: give either this or --prompt, not both");
    }
    if (options.instruction.empty() && !options.input.empty()) {
        throw OptionError("--input: goes with --instruction, which is missing");
    }
    for (const char* name : {"--temperature", "--top-k", "--top-p"}) {
        if (options.sampler.greedy && app.count(name) > 0) {
            throw OptionError(std::string(name) + ": has no meaning with --greedy; leave one of them out");
        }
    }
    for (const std::string& stop : options.stop) {
        if (stop.empty()) {
            throw OptionError("--stop: found an empty text");
        }
    }
}

/// The prompt's tokens, checked against the model.
std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, const std::string& prompt,
                                        const Gpt2Config& config) {
    std::vector<std::int32_t> ids = tokenizer.encode(prompt);
    if (ids.empty() && tokenizer.eos_id()) {
        ids.push_back(*tokenizer.eos_id()); // GPT-2's documents begin behind one
    }
    const auto length = static_cast<std::int64_t>(ids.size());
    if (length == 0 || length > config.n_positions) {
        throw OptionError(concat("--prompt: found ", length, " tokens, expected 1 to ", config.n_positions,
                                 ", the positions of the model (n_positions)"));
    }
    for (const std::int32_t id : ids) {
        if (id >= config.vocab_size) {
            throw OptionError(concat("--prompt: found the token id ", id, ", expected 0 to ", config.vocab_size - 1,
                                     ": the tokenizer is not that of the model"));
        }
    }
    return ids;
}

int generate_program(Options& options, const CLI::App& app) {
    refuse_contradictions(options, app);
    if (!options.instruction.empty()) {
        options.prompt = PromptTemplate::alpaca().render(options.instruction, options.input);
    } else if (options.prompt == "-") {
        options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    }
    Sampler sampler(options.sampler);
    const examples::Model model = examples::load_model(options.model);
    const Tokenizer tokenizer = Tokenizer::load(options.model.model);
    const std::vector<std::int32_t> prompt = encode_prompt(tokenizer, options.prompt, model.config);
    StreamDecoder decoder(tokenizer);
    StopWatch out(options.stop);
    const InterruptGuard interrupt;
    if (options.instruction.empty()) {
        examples::say(stdout, "{}", options.prompt);
    }
    // A model's vocabulary may be padded beyond its tokenizer's: such tokens have no text.
    const auto text_of = [&](std::int32_t id) { return tokenizer.contains(id) ? decoder.push(id) : std::string(); };
    const StopReason reason = generate(
        model, std::span<const std::int32_t>(prompt), options.max_new_tokens, tokenizer.eos_id(), sampler,
        [&](std::int32_t id) { return out.push(text_of(id)) && !interrupt.requested() && !std::ferror(stdout); });
    if (reason != StopReason::callback) {
        out.push(decoder.flush());
        out.flush();
    }
    examples::say(stdout, "\n");
    if (reason == StopReason::n_positions) {
        examples::say(stderr, "stopped at the model's last position, {}\n", model.config.n_positions);
    }
    return interrupt.requested() ? 130 : 0;
}

} // namespace

int main(int argc, char** argv) {
    using examples::number;
    examples::Program app("Continues a prompt with a GPT-2, with or without a LoRA adapter.");
    Options options;
    examples::add_model_options(app, options.model, true);
    app.add_option("--prompt", options.prompt, "text to continue; - reads it from standard input");
    app.add_option("--instruction", options.instruction,
                   "instruction to put into the Alpaca template instead of --prompt");
    app.add_option("--input", options.input, "input that goes with --instruction");
    app.add_option("--max-new-tokens", options.max_new_tokens, "most tokens to generate")
        ->check(number<std::int64_t>(0));
    app.add_option("--temperature", options.sampler.temperature, "below 1 the likely tokens gain, above 1 the others")
        ->check(number(0.0));
    app.add_option("--top-k", options.sampler.top_k, "draw among the k most likely tokens; 0: all")
        ->check(number<std::int64_t>(0));
    app.add_option("--top-p", options.sampler.top_p, "draw among the most likely tokens of this total probability")
        ->check(number(0.0, 1.0));
    app.add_option("--repetition-penalty", options.sampler.repetition_penalty, "above 1 avoids repetition")
        ->check(number(0.0));
    app.add_flag("--greedy", options.sampler.greedy, "take the most likely token always");
    app.add_option("--seed", options.sampler.seed, "seed of the sampling")->check(number<std::uint64_t>(0));
    app.add_option("--stop", options.stop, "text at which to stop; may be given several times")
        ->allow_extra_args(false);
    return app.run(argc, argv, [&] { return generate_program(options, app); });
}
