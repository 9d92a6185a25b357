// generate: continues a prompt with a model, with or without an adapter, streaming the text as it comes; answers a file
// of prompts side by side; or chats.

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>

#include <fmt/ranges.h>

#include "generate/chat.hpp"
#include "generate/prompt_file.hpp"
#include "lowrank/generate/text_stream.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/train/interrupt.hpp"
#include "number.hpp"
#include "program.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

struct Options {
    examples::ModelOptions model;
    std::string prompt, instruction, input, prompts, output, text_template, system;
    bool chat = false;
    std::int64_t max_new_tokens = 100, batch_size = 8;
    SamplerOptions sampler;
    std::vector<std::string> stop;
};

/// Refuses options that say nothing together.
void refuse_contradictions(const Options& options, const CLI::App& app) {
    std::string source;
    for (const char* name : {"--prompt", "--instruction", "--prompts", "--chat"}) {
        if (app.count(name) > 0) {
            if (!source.empty()) {
                throw OptionError(fmt::format("{}: give either this or {}, not both", name, source));
            }
            source = name;
        }
    }
    const auto belongs_to = [&](const char* name, const std::string& other) {
        if (app.count(name) > 0 && source != other) {
            throw OptionError(fmt::format("{}: goes with {}, which is missing", name, other));
        }
    };
    belongs_to("--input", "--instruction");
    belongs_to("--output", "--prompts");
    belongs_to("--batch-size", "--prompts");
    belongs_to("--system", "--chat");
    if (app.count("--template") > 0 && (source.empty() || source == "--prompt")) {
        throw OptionError("--template: goes with --instruction, --prompts or --chat; a --prompt stands as it is");
    }
    for (const char* name : {"--temperature", "--top-k", "--top-p", "--min-p"}) {
        if (options.sampler.greedy && app.count(name) > 0) {
            throw OptionError(fmt::format("{}: has no meaning with --greedy; leave one of them out", name));
        }
    }
    for (const std::string& stop : options.stop) {
        if (stop.empty()) {
            throw OptionError("--stop: found an empty text");
        }
    }
    if (!options.output.empty() &&
        std::filesystem::weakly_canonical(options.output) == std::filesystem::weakly_canonical(options.prompts)) {
        throw OptionError("--output: found the file of --prompts, expected another");
    }
}

/// The prompt of --prompt or --instruction.
examples::Prompt only_prompt(const Options& options, const examples::PromptMaker& maker) {
    const bool is_text = options.instruction.empty();
    try {
        return is_text ? maker.of_text(options.prompt) : maker.of_instruction(options.instruction, options.input);
    } catch (const OptionError& error) {
        throw OptionError(concat(is_text ? "--prompt: " : "--instruction: ", error.what()));
    }
}

int continue_prompt(const Options& options, const examples::Model& model, const Tokenizer& tokenizer,
                    const examples::Prompt& prompt) {
    const auto show = [](const std::string& text) {
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
    };
    TextStream stream(tokenizer, prompt.stop, prompt.lead);
    Sampler sampler(options.sampler);
    const InterruptGuard interrupt;
    show(options.instruction.empty() ? options.prompt : "");
    const StopReason reason = generate(model, std::span<const std::int32_t>(prompt.ids), options.max_new_tokens,
                                       tokenizer.eos_id(), sampler, [&](std::int32_t id) {
                                           show(stream.push(id));
                                           return !stream.stopped() && !interrupt.requested() && !std::ferror(stdout);
                                       });
    show((reason == StopReason::callback ? "" : stream.finish()) + "\n");
    if (reason == StopReason::n_positions) {
        examples::say(stderr, "stopped at the model's last position, {}\n", model.config.n_positions);
    }
    return interrupt.requested() ? 130 : 0;
}

int generate_program(Options& options, const CLI::App& app) {
    refuse_contradictions(options, app);
    if (options.prompt == "-") {
        options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    }
    const Sampler check(options.sampler);
    const TextTemplate text_template = examples::find_template(options.text_template, options.model);
    if (options.chat && !text_template.chat()) {
        throw OptionError("--chat: found a template for instructions only, expected one with texts for turns "
                          "(--template)");
    }
    const examples::Model model = examples::load_model(options.model);
    const Tokenizer tokenizer = Tokenizer::load(options.model.model);
    if (options.chat) {
        return examples::chat(model, tokenizer, *text_template.chat(),
                              {options.system, options.max_new_tokens, options.sampler, options.stop});
    }
    const examples::PromptMaker maker(tokenizer, model.config, text_template, options.stop);
    if (app.count("--prompts") > 0) {
        const examples::PromptFile file = examples::read_prompts(options.prompts, maker);
        return examples::answer_prompts(
            model, tokenizer, file,
            {options.max_new_tokens, tokenizer.eos_id(), options.sampler, static_cast<std::size_t>(options.batch_size)},
            options.output);
    }
    return continue_prompt(options, model, tokenizer, only_prompt(options, maker));
}

} // namespace

int main(int argc, char** argv) {
    using examples::number;
    examples::Program app("Continues a prompt with a GPT-2, with or without a LoRA adapter; answers a file of prompts; "
                          "or chats.");
    Options options;
    examples::add_model_options(app, options.model, true);
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
                               fmt::join(TextTemplate::names(), ", ")));
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
    return app.run(argc, argv, [&] { return generate_program(options, app); });
}
