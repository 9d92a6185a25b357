// generate: continues a prompt with a model, with or without an adapter, streaming the text as it comes.

#include <cstdio>
#include <iostream>
#include <iterator>

#include "common.hpp"
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
        for (const std::string& stop : stops_) {
            if (const std::size_t at = held_.find(stop); at != std::string::npos) {
                held_.resize(at);
                flush();
                return false;
            }
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

int generate_program(Options& options) {
    if (!options.instruction.empty() && !options.prompt.empty()) {
        throw OptionError("give either --prompt or --instruction, not both");
    }
    for (const std::string& stop : options.stop) {
        if (stop.empty()) {
            throw OptionError("--stop: found an empty text");
        }
    }
    if (!options.instruction.empty()) {
        options.prompt = PromptTemplate::alpaca().render(options.instruction, options.input);
    } else if (options.prompt == "-") {
        options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    }
    const examples::Model model = examples::load_model(options.model);
    const Tokenizer tokenizer = Tokenizer::load(options.model.model);
    Sampler sampler(options.sampler);
    std::vector<std::int32_t> prompt = tokenizer.encode(options.prompt);
    const std::optional<std::int32_t> eos = tokenizer.eos_id();
    if (prompt.empty() && eos) {
        prompt.push_back(*eos); // GPT-2's documents begin behind one
    }
    StreamDecoder decoder(tokenizer);
    StopWatch out(options.stop);
    const InterruptGuard interrupt;
    if (options.instruction.empty()) {
        std::fputs(options.prompt.c_str(), stdout);
    }
    const StopReason reason =
        generate(model, std::span<const std::int32_t>(prompt), options.max_new_tokens, eos, sampler,
                 [&](std::int32_t id) { return out.push(decoder.push(id)) && !interrupt.requested(); });
    if (reason != StopReason::callback) {
        out.push(decoder.flush());
        out.flush();
    }
    std::fputc('\n', stdout);
    if (reason == StopReason::n_positions) {
        fmt::print(stderr, "stopped at the model's last position, {}\n", model.config.n_positions);
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app("Continues a prompt with a GPT-2, with or without a LoRA adapter.");
    Options options;
    examples::add_model_options(app, options.model, true);
    app.add_option("--prompt", options.prompt, "text to continue; - reads it from standard input");
    app.add_option("--instruction", options.instruction,
                   "instruction to put into the Alpaca template instead of --prompt");
    app.add_option("--input", options.input, "input that goes with --instruction");
    app.add_option("--max-new-tokens", options.max_new_tokens, "most tokens to generate")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--temperature", options.sampler.temperature, "below 1 is bolder, above 1 more varied");
    app.add_option("--top-k", options.sampler.top_k, "draw among the k most likely tokens; 0: all");
    app.add_option("--top-p", options.sampler.top_p, "draw among the most likely tokens of this total probability");
    app.add_option("--repetition-penalty", options.sampler.repetition_penalty, "above 1 avoids repetition");
    app.add_flag("--greedy", options.sampler.greedy, "take the most likely token always");
    app.add_option("--seed", options.sampler.seed, "seed of the sampling");
    app.add_option("--stop", options.stop, "text at which to stop; may be given several times")
        ->allow_extra_args(false);
    return examples::run(app, argc, argv, [&] { return generate_program(options); });
}
