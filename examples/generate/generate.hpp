// The generation itself, for the translation units that define it for a type of activations.
#pragma once

#include <cstdio>
#include <iostream>
#include <iterator>
#include <span>
#include <string>

#include "chat.hpp"
#include "lowrank/generate/text_stream.hpp"
#include "lowrank/text/load_tokenizer.hpp"
#include "lowrank/train/interrupt.hpp"
#include "options.hpp"
#include "prompt_file.hpp"
#include "say.hpp"

namespace examples {

using namespace lowrank;

/// The prompt of --prompt or --instruction.
inline Prompt only_prompt(const GenerateOptions& options, const PromptMaker& maker) {
    const bool is_text = options.instruction.empty();
    try {
        return is_text ? maker.of_text(options.prompt) : maker.of_instruction(options.instruction, options.input);
    } catch (const OptionError& error) {
        throw OptionError(concat(is_text ? "--prompt: " : "--instruction: ", error.what()));
    }
}

template <class T>
int continue_prompt(const GenerateOptions& options, const Gpt2<T>& model, const Tokenizer& tokenizer,
                    const Prompt& prompt) {
    const auto show = [](const std::string& text) {
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
    };
    TextStream stream(tokenizer, prompt.stop, prompt.lead);
    Sampler sampler(options.sampler);
    const InterruptGuard interrupt;
    show(options.instruction.empty() ? options.prompt : "");
    const StopReason reason =
        lowrank::generate(model, std::span<const std::int32_t>(prompt.ids), options.max_new_tokens, tokenizer.eos_id(),
                          sampler, [&](std::int32_t id) {
                              show(stream.push(id));
                              return !stream.stopped() && !interrupt.requested() && !std::ferror(stdout);
                          });
    show((reason == StopReason::callback ? "" : stream.finish()) + "\n");
    if (reason == StopReason::n_positions) {
        say(stderr, "stopped at the model's last position, {}\n", model.config.n_positions);
    }
    return interrupt.requested() ? 130 : 0;
}

template <class T>
int generate(GenerateOptions& options, const CLI::App& app) {
    if (options.prompt == "-") {
        options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    }
    const Sampler check(options.sampler);
    const TextTemplate text_template = find_template(options.text_template, options.model);
    if (options.chat && !text_template.chat()) {
        throw OptionError("--chat: found a template for instructions only, expected one with texts for turns "
                          "(--template)");
    }
    const Gpt2<T> model = load_model<T>(options.model);
    const Tokenizer tokenizer = Tokenizer::load(options.model.model);
    if (options.chat) {
        Conversation<T> conversation(model, tokenizer, *text_template.chat(),
                                     {options.system, options.max_new_tokens, options.sampler, options.stop});
        return chat({[&](const auto& line, const auto& on_text) { return conversation.say(line, on_text); },
                     [&] { conversation.reset(); }});
    }
    const PromptMaker maker(tokenizer, model.config, text_template, options.stop);
    if (app.count("--prompts") > 0) {
        const PromptFile file = read_prompts(options.prompts, maker);
        const BatchOptions batch{options.max_new_tokens, tokenizer.eos_id(), options.sampler,
                                 static_cast<std::size_t>(options.batch_size)};
        return answer_prompts(
            [&](const auto& prompts, const auto& on_token, const auto& on_end) {
                generate_batch<T, Cpu>(model, prompts, batch, on_token, on_end);
            },
            tokenizer, file, options.output);
    }
    return continue_prompt(options, model, tokenizer, only_prompt(options, maker));
}

} // namespace examples
