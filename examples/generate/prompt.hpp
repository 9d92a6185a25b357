// A prompt for generate: its tokens, and where its answer begins and ends.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lowrank/models/gpt2_config.hpp"
#include "lowrank/text/text_template.hpp"
#include "lowrank/text/tokenizer.hpp"
#include "model.hpp"

namespace examples {

/// The template of that name or file; unless given, the one that was stored with the adapter or the model, or Alpaca's.
lowrank::TextTemplate find_template(const std::string& chosen, const ModelOptions& model);

struct Prompt {
    std::vector<std::int32_t> ids;
    std::vector<std::string> stop{}; ///< texts at which the answer ends
    std::string lead{};              ///< left out where the answer begins with it
};

/// Makes prompts of texts and of instructions.
class PromptMaker {
  public:
    /// The tokenizer and the config must outlive it.
    PromptMaker(const lowrank::Tokenizer& tokenizer, const lowrank::Gpt2Config& config,
                lowrank::TextTemplate text_template, std::vector<std::string> stop);

    /// A text to continue. Throws OptionError, saying what was found, for one that the model cannot take.
    Prompt of_text(const std::string& text) const;

    /// An instruction to answer; `input` may be empty. Throws likewise.
    Prompt of_instruction(const std::string& instruction, const std::string& input) const;

  private:
    std::vector<std::int32_t> encode(std::span<const lowrank::Segment> segments) const;

    const lowrank::Tokenizer& tokenizer_;
    const lowrank::Gpt2Config& config_;
    lowrank::TextTemplate template_;
    std::vector<std::string> stop_;
};

} // namespace examples
