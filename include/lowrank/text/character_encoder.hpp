// Character-level models: every character is a token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/text/unicode.hpp"
#include "lowrank/text/vocabulary.hpp"

namespace lowrank {

/// Encodes text one character at a time.
class CharacterEncoder {
  public:
    /// `source` names the file in errors. Throws FileError where a token is not exactly one character.
    CharacterEncoder(const Vocabulary& vocabulary, std::string_view source) {
        for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
            if (!vocabulary.contains(id)) {
                continue;
            }
            const std::string_view text = vocabulary.text(id);
            const Utf8Step step = utf8_step(text, 0);
            if (step.length != text.size() || step.status != Utf8Step::Status::valid) {
                throw FileError(concat(source, ": the token \"", text, "\" of id ", id, " is not one character"));
            }
            ids_.emplace(step.code_point, id);
        }
    }

    /// Appends the tokens of `text` (well-formed UTF-8). Throws OptionError for a character that the model does not
    /// know.
    void encode(std::string_view text, std::vector<std::int32_t>& ids) const {
        for (std::size_t position = 0; position < text.size();) {
            const Utf8Step step = utf8_step(text, position);
            const auto found = ids_.find(step.code_point);
            if (found == ids_.end()) {
                const std::string shown = step.code_point < ' ' // a zero byte would end the message
                                              ? concat("of code ", static_cast<int>(step.code_point))
                                              : concat("\"", text.substr(position, step.length), "\"");
                throw OptionError(concat("encode: the character ", shown, " at byte ", position, " is not among the ",
                                         ids_.size(), " characters of this model's vocabulary"));
            }
            ids.push_back(found->second);
            position += step.length;
        }
    }

  private:
    std::unordered_map<char32_t, std::int32_t> ids_;
};

} // namespace lowrank
