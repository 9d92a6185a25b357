// generate: continues a prompt with a model, with or without an adapter, streaming the text as it comes; answers a file
// of prompts side by side; or chats.

#include <filesystem>

#include <fmt/ranges.h>

#include "generate/options.hpp"
#include "lowrank/text/text_template.hpp"
#include "number.hpp"
#include "program.hpp"

namespace {

/// Refuses options that say nothing together.
void refuse_contradictions(const examples::GenerateOptions& options, const CLI::App& app) {
    std::string source;
    for (const char* name : {"--prompt", "--instruction", "--prompts", "--chat"}) {
        if (app.count(name) > 0) {
            if (!source.empty()) {
                throw lowrank::OptionError(fmt::format("{}: give either this or {}, not both", name, source));
            }
            source = name;
        }
    }
    const auto belongs_to = [&](const char* name, const std::string& other) {
        if (app.count(name) > 0 && source != other) {
            throw lowrank::OptionError(fmt::format("{}: goes with {}, which is missing", name, other));
        }
    };
    belongs_to("--input", "--instruction");
    belongs_to("--output", "--prompts");
    belongs_to("--batch-size", "--prompts");
    belongs_to("--system", "--chat");
    if (app.count("--template") > 0 && (source.empty() || source == "--prompt")) {
        throw lowrank::OptionError(
            "--template: goes with --instruction, --prompts or --chat; a --prompt stands as it is");
    }
    for (const char* name : {"--temperature", "--top-k", "--top-p", "--min-p"}) {
        if (options.sampler.greedy && app.count(name) > 0) {
            throw lowrank::OptionError(fmt::format("{}: has no meaning with --greedy; leave one of them out", name));
        }
    }
    for (const std::string& stop : options.stop) {
        if (stop.empty()) {
            throw lowrank::OptionError("--stop: found an empty text");
        }
    }
    if (!options.output.empty() &&
        std::filesystem::weakly_canonical(options.output) == std::filesystem::weakly_canonical(options.prompts)) {
        throw lowrank::OptionError("--output: found the file of --prompts, expected another");
    }
}

} // namespace

int main(int argc, char** argv) {
    using examples::number;
    examples::Program app("Continues a prompt with a GPT-2, with or without a LoRA adapter; answers a file of prompts; "
                          "or chats.");
    examples::GenerateOptions options;
    examples::add_model_options(app, options.model, true);
    examples::add_dtype_option(app, options.model);
    examples::add_quantization_options(app, options.model);
    app.add_option("--prompt", options.prompt, "text to continue; - reads it from standard input");
    app.add_option("--instruction", options.instruction, "instruction to answer, in the text of --template");
    app.add_option("--input", options.input, "input that goes with --instruction");
    app.add_option("--prompts", options.prompts,
                   "file to answer: .json or .jsonl with prompt, or instruction and input; or a prompt a line");
    app.add_option("--output", options.output,
                   "file for the answers to --prompts, JSON Lines with response; unless given, standard output");
    app.add_option("--batch-size", options.batch_size, "how many of --prompts are answered side by side")
        ->check(number<std::int64_t>(1));
    app.add_flag("--chat", options.chat, "answer line after line of standard input; /reset begins anew, /quit ends");
    app.add_option("--system", options.system, "what --chat tells the model first");
    app.add_option("--template", options.text_template,
                   fmt::format("text around instructions and turns: {}, or a file; unless given, that of the adapter "
                               "or the model, or alpaca",
                               fmt::join(lowrank::TextTemplate::names(), ", ")));
    app.add_option("--max-new-tokens", options.max_new_tokens, "most tokens to generate")
        ->check(number<std::int64_t>(0));
    app.add_option("--temperature", options.sampler.temperature, "below 1 the likely tokens gain, above 1 the others")
        ->check(number(0.0));
    app.add_option("--top-k", options.sampler.top_k, "draw among the k most likely tokens; 0: all")
        ->check(number<std::int64_t>(0));
    app.add_option("--top-p", options.sampler.top_p, "draw among the most likely tokens of this total probability")
        ->check(number(0.0, 1.0));
    app.add_option("--min-p", options.sampler.min_p,
                   "draw among tokens at least so many times as likely as the likeliest; 0: all")
        ->check(number(0.0, 1.0));
    app.add_option("--repetition-penalty", options.sampler.repetition_penalty, "above 1 avoids repetition")
        ->check(number(0.0));
    app.add_flag("--greedy", options.sampler.greedy, "take the most likely token always");
    app.add_option("--seed", options.sampler.seed, "seed of the sampling")->check(number<std::uint64_t>(0));
    app.add_option("--stop", options.stop, "text at which to stop; may be given several times")
        ->allow_extra_args(false);
    return app.run(argc, argv, [&] {
        refuse_contradictions(options, app);
        return examples::with_dtype(
            options.model, [&]<class T>(std::type_identity<T>) { return examples::generate<T>(options, app); });
    });
}
