// Tokens beside the merges, such as <|endoftext|>: found in text before it is split, longest first.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lowrank {

/// A token that text is searched for as it stands.
struct AddedToken {
    std::string text; ///< not empty
    std::int32_t id;
    bool special; ///< marks structure (end of text, a role) rather than content
};

/// A set of added tokens to search for. Immutable.
class AddedTokens {
  public:
    struct Match {
        std::size_t begin, end; ///< both text.size() where there is none
        std::int32_t id;
    };

    explicit AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
        std::sort(tokens_.begin(), tokens_.end(),
                  [](const AddedToken& a, const AddedToken& b) { return a.text.size() > b.text.size(); });
        for (const AddedToken& token : tokens_) {
            first_bytes_[static_cast<unsigned char>(token.text[0])] = true;
            one_first_byte_ = one_first_byte_ && token.text[0] == tokens_[0].text[0];
        }
    }

    const std::vector<AddedToken>& tokens() const { return tokens_; }

    /// The first match at or after `from`, the longest of those that begin there. With `skip_special`, special tokens
    /// are ordinary text.
    Match find(std::string_view text, std::size_t from, bool skip_special) const {
        for (std::size_t at = next_candidate(text, from); at < text.size(); at = next_candidate(text, at + 1)) {
            for (const AddedToken& token : tokens_) {
                if (!(skip_special && token.special) && text.substr(at, token.text.size()) == token.text) {
                    return {at, at + token.text.size(), token.id};
                }
            }
        }
        return {text.size(), text.size(), -1};
    }

  private:
    /// The next place where the first byte of a token stands.
    std::size_t next_candidate(std::string_view text, std::size_t from) const {
        if (tokens_.empty()) {
            return text.size();
        }
        if (one_first_byte_) { // the usual case, '<', at the speed of memchr
            return std::min(text.find(tokens_[0].text[0], from), text.size());
        }
        while (from < text.size() && !first_bytes_[static_cast<unsigned char>(text[from])]) {
            ++from;
        }
        return from;
    }

    std::vector<AddedToken> tokens_; // longest first
    std::array<bool, 256> first_bytes_{};
    bool one_first_byte_ = true;
};

} // namespace lowrank
