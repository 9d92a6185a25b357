// Prompt templates: how an instruction and its input become the text that a model continues.
#pragma once

#include <string>
#include <string_view>

#include "lowrank/core/error.hpp"
#include "lowrank/text/placeholders.hpp"

namespace lowrank {

/// The text before a response, in two forms: for records with an input and for records without one. `{instruction}` and
/// `{input}` are replaced in one pass, so that braces in a record's own text stay as they are; `{{` and `}}` stand for
/// single braces. A value: its two texts are all of it, to be stored beside an adapter and used again at inference.
class PromptTemplate {
  public:
    /// A template from its two texts. Both need `{instruction}`; `with_input` needs `{input}` too, unless it equals
    /// `without_input`, which must not have it. Throws OptionError for a missing or unknown placeholder or a lone
    /// brace.
    PromptTemplate(std::string with_input, std::string without_input)
        : with_input_(std::move(with_input)),
          without_input_(std::move(without_input)) {
        const Uses with = check(with_input_), without = check(without_input_);
        if (!with.instruction || !without.instruction) {
            throw OptionError("prompt template: found no {instruction}, expected it in every form of the template");
        }
        takes_input_ = with.input;
        if (without.input && with_input_ != without_input_) {
            throw OptionError("prompt template: found {input} in the form for records without an input");
        }
        if (!with.input && with_input_ != without_input_) {
            throw OptionError("prompt template: found no {input} in the form for records with an input");
        }
    }

    /// A template with one text for both kinds of records: `{input}` becomes empty where a record has none.
    explicit PromptTemplate(const std::string& text) : PromptTemplate(text, text) {}

    /// The template of Stanford Alpaca, byte for byte (github.com/tatsu-lab/stanford_alpaca, train.py).
    static PromptTemplate alpaca() {
        return {"Below is an instruction that describes a task, paired with an input that provides further context. "
                "Write a response that appropriately completes the request.\n\n"
                "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
                "Below is an instruction that describes a task. "
                "Write a response that appropriately completes the request.\n\n"
                "### Instruction:\n{instruction}\n\n### Response:\n"};
    }

    /// False when no form has `{input}`: a record that has one does not fit this template.
    bool takes_input() const { return takes_input_; }

    /// The prompt for one record. An empty `input` means that there is none. Throws OptionError when the template has
    /// no place for the input.
    std::string render(std::string_view instruction, std::string_view input = {}) const {
        if (!input.empty() && !takes_input_) {
            throw OptionError("prompt template: found an input but no {input} in the template to put it");
        }
        std::string out;
        scan_placeholders(input.empty() ? without_input_ : with_input_,
                          [&](std::string_view name, std::string_view literal) {
                              out += name.empty() ? literal : name == "instruction" ? instruction : input;
                          });
        return out;
    }

    const std::string& with_input() const { return with_input_; }
    const std::string& without_input() const { return without_input_; }

    friend bool operator==(const PromptTemplate&, const PromptTemplate&) = default;

  private:
    struct Uses {
        bool instruction = false, input = false;
    };

    static Uses check(std::string_view text) {
        Uses uses;
        scan_placeholders(text, [&](std::string_view name, std::string_view) {
            if (name.empty()) {
                return;
            }
            if (name != "instruction" && name != "input") {
                throw OptionError(concat("prompt template: found the placeholder {", name,
                                         "}, expected {instruction} or {input} (write {{ for a brace)"));
            }
            (name == "input" ? uses.input : uses.instruction) = true;
        });
        return uses;
    }

    std::string with_input_, without_input_;
    bool takes_input_ = false;
};

} // namespace lowrank
