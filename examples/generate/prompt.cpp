#include "prompt.hpp"

#include <utility>

#include "lowrank/data/tokenize.hpp"
#include "lowrank/generate/answer_form.hpp"
#include "stored_template.hpp"

namespace examples {

lowrank::TextTemplate find_template(const std::string& chosen, const ModelOptions& model) {
    if (!chosen.empty()) {
        return lowrank::TextTemplate::find(chosen);
    }
    const auto stored = stored_template({model.adapter, model.model});
    return stored ? *stored : lowrank::TextTemplate::named("alpaca");
}

PromptMaker::PromptMaker(const lowrank::Tokenizer& tokenizer, const lowrank::Gpt2Config& config,
                         lowrank::TextTemplate text_template, std::vector<std::string> stop)
    : tokenizer_(tokenizer),
      config_(config),
      template_(std::move(text_template)),
      stop_(std::move(stop)) {}

Prompt PromptMaker::of_text(const std::string& text) const {
    const lowrank::Segment segment{text};
    return {encode(std::span(&segment, 1)), stop_};
}

Prompt PromptMaker::of_instruction(const std::string& instruction, const std::string& input) const {
    Prompt prompt{encode(template_.prompt_segments(instruction, input)), stop_};
    if (!template_.prompt()) {
        const lowrank::AnswerForm form = lowrank::answer_form(*template_.chat());
        prompt.lead = form.lead;
        if (!form.end.empty()) {
            prompt.stop.push_back(form.end);
        }
    }
    return prompt;
}

std::vector<std::int32_t> PromptMaker::encode(std::span<const lowrank::Segment> segments) const {
    std::vector<std::int32_t> ids = lowrank::encode_segments(tokenizer_, segments).input_ids;
    if (ids.empty() && tokenizer_.eos_id()) {
        ids.push_back(*tokenizer_.eos_id()); // GPT-2's documents begin behind one
    }
    if (ids.empty() || std::ssize(ids) > config_.n_positions) {
        throw lowrank::OptionError(lowrank::concat("found ", ids.size(), " tokens, expected 1 to ", config_.n_positions,
                                                   ", the positions of the model (n_positions)"));
    }
    for (const std::int32_t id : ids) {
        if (id >= config_.vocab_size) {
            throw lowrank::OptionError(lowrank::concat("found the token id ", id, ", expected 0 to ",
                                                       config_.vocab_size - 1,
                                                       ": the tokenizer is not that of the model"));
        }
    }
    return ids;
}

} // namespace examples
