// The tokens of a model: from id to text and back.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/text/bpe.hpp"

namespace lowrank {

/// Strings indexed by id; ids may have gaps, which hold empty strings.
class StringTable {
  public:
    explicit StringTable(const std::vector<std::string>& strings) {
        ends_.reserve(strings.size());
        for (const std::string& string : strings) {
            characters_ += string;
            ends_.push_back(characters_.size());
        }
    }

    std::size_t size() const { return ends_.size(); }
    std::string_view operator[](std::size_t i) const {
        const std::size_t begin = i == 0 ? 0 : ends_[i - 1];
        return std::string_view(characters_).substr(begin, ends_[i] - begin);
    }

  private:
    std::string characters_;
    std::vector<std::size_t> ends_;
};

/// Token texts as the vocabulary file spells them, and their ids. Immutable.
class Vocabulary {
  public:
    struct Entry {
        std::string text;
        std::int32_t id;
    };

    /// `source` names the file in errors. Throws FileError where an id or a text occurs twice, an id is outside
    /// [0, max_token_id_count) or a text is empty.
    Vocabulary(const std::vector<Entry>& entries, std::string_view source) : texts_(by_id(entries, source)) {
        slots_.assign(std::bit_ceil(2 * entries.size() + 2), -1);
        for (const Entry& entry : entries) {
            std::int32_t& slot = slots_[place(entry.text)];
            if (slot >= 0) {
                throw FileError(concat(source, ": the token \"", entry.text, "\" occurs twice, with ids ", slot,
                                       " and ", entry.id));
            }
            slot = entry.id;
        }
    }

    /// One more than the largest id.
    std::int32_t size() const { return static_cast<std::int32_t>(texts_.size()); }
    /// Whether a token has this id.
    bool contains(std::int32_t id) const {
        return id >= 0 && id < size() && !texts_[static_cast<std::size_t>(id)].empty();
    }
    /// The text of a token that the vocabulary contains.
    std::string_view text(std::int32_t id) const { return texts_[static_cast<std::size_t>(id)]; }
    std::optional<std::int32_t> find(std::string_view text) const {
        const std::int32_t id = slots_[place(text)];
        return id < 0 ? std::nullopt : std::optional(id);
    }

  private:
    static std::vector<std::string> by_id(const std::vector<Entry>& entries, std::string_view source) {
        std::int32_t largest = -1;
        for (const Entry& entry : entries) {
            if (entry.id < 0 || entry.id >= max_token_id_count) {
                throw FileError(concat(source, ": the token \"", entry.text, "\" has id ", entry.id, ", expected 0 to ",
                                       max_token_id_count - 1));
            }
            if (entry.text.empty()) {
                throw FileError(concat(source, ": the token of id ", entry.id, " is empty"));
            }
            largest = std::max(largest, entry.id);
        }
        std::vector<std::string> texts(static_cast<std::size_t>(largest + 1));
        for (const Entry& entry : entries) {
            std::string& text = texts[static_cast<std::size_t>(entry.id)];
            if (!text.empty()) {
                throw FileError(
                    concat(source, ": the id ", entry.id, " is given to both \"", text, "\" and \"", entry.text, "\""));
            }
            text = entry.text;
        }
        return texts;
    }

    /// The slot that holds `text`, or the empty one where it would be.
    std::size_t place(std::string_view text) const {
        std::size_t at = std::hash<std::string_view>()(text) & (slots_.size() - 1);
        while (slots_[at] >= 0 && texts_[static_cast<std::size_t>(slots_[at])] != text) {
            at = (at + 1) & (slots_.size() - 1);
        }
        return at;
    }

    StringTable texts_;
    std::vector<std::int32_t> slots_; // ids, hashed by text
};

} // namespace lowrank
