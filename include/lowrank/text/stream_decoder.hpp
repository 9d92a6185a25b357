// Turns tokens into text as they are generated, without ever printing part of a character.
#pragma once

#include <cstdint>
#include <string>

#include "lowrank/text/tokenizer.hpp"

namespace lowrank {

/// Decodes one token after the other: all that push and flush return together is Tokenizer::decode of all tokens.
class StreamDecoder {
  public:
    /// The tokenizer must outlive the decoder.
    explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

    /// Takes a token and returns the characters that it completes, perhaps none. Throws as Tokenizer::decode.
    std::string push(std::int32_t id) {
        pending_ += tokenizer_->token_bytes(id);
        std::string text;
        pending_.erase(0, append_utf8_lossy(text, pending_, false));
        return text;
    }

    /// Ends the text: returns what a character that was begun amounts to (U+FFFD or nothing), and starts anew.
    std::string flush() {
        std::string text;
        append_utf8_lossy(text, pending_, true);
        pending_.clear();
        return text;
    }

  private:
    const Tokenizer* tokenizer_;
    std::string pending_; // the begin of a character, at most 3 bytes
};

} // namespace lowrank
