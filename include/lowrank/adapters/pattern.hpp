// Patterns over the paths of modules, with the syntax of Python's `re` as PEFT uses it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lowrank/core/error.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace lowrank {

/// A compiled regular expression (PCRE2, whose syntax covers what Python's has in such patterns).
class Pattern {
  public:
    /// Throws OptionError, naming the pattern and what is wrong with it.
    explicit Pattern(const std::string& pattern) {
        int error = 0;
        PCRE2_SIZE offset = 0;
        code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &error,
                                  &offset, nullptr));
        if (!code_) {
            PCRE2_UCHAR message[256];
            pcre2_get_error_message(error, message, sizeof message);
            throw OptionError(
                concat("pattern '", pattern, "': ", reinterpret_cast<const char*>(message), " at offset ", offset));
        }
    }

    /// Whether the whole text matches (re.fullmatch).
    bool matches_all(const std::string& text) const {
        return match(text, PCRE2_ANCHORED | PCRE2_ENDANCHORED) != nullptr;
    }

    /// The group called `name` of a match at the start of the text (re.match); empty where nothing matches.
    std::string group(const char* name, const std::string& text) const {
        const Match found = match(text, PCRE2_ANCHORED);
        const int number = pcre2_substring_number_from_name(code_.get(), reinterpret_cast<PCRE2_SPTR>(name));
        if (!found || number < 0) {
            return "";
        }
        const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(found.get()) + 2 * number;
        return bounds[0] == PCRE2_UNSET ? "" : text.substr(bounds[0], bounds[1] - bounds[0]);
    }

  private:
    struct Free {
        void operator()(pcre2_code* code) const { pcre2_code_free(code); }
        void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
    };
    using Match = std::unique_ptr<pcre2_match_data, Free>;

    Match match(const std::string& text, std::uint32_t options) const {
        Match data(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
        const int count = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, options,
                                      data.get(), nullptr);
        if (count == PCRE2_ERROR_NOMATCH) {
            return nullptr;
        }
        if (count < 0) {
            throw OptionError(concat("a pattern failed on '", text, "' with PCRE2 error ", count));
        }
        return data;
    }

    std::unique_ptr<pcre2_code, Free> code_;
};

} // namespace lowrank
