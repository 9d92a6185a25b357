// TextStream: the text of tokens as they are generated, in whole characters, up to a stop string.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/generate/stop_strings.hpp"
#include "lowrank/text/stream_decoder.hpp"

namespace lowrank {

/// Turns token after token into text that can be shown at once: StreamDecoder and StopStrings in one.
class TextStream {
  public:
    /// The tokenizer must outlive the stream. `lead` is left out where the text begins with it. Throws OptionError for
    /// an empty stop string.
    explicit TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops = {}, std::string lead = {})
        : tokenizer_(&tokenizer),
          decoder_(tokenizer),
          stops_(std::move(stops)),
          lead_(std::move(lead)) {}

    /// Takes a token and returns the text that is certain now, perhaps none. A token that the tokenizer does not know
    /// has no text, for a model's vocabulary may be padded.
    std::string push(std::int32_t id) {
        return tokenizer_->contains(id) ? without_lead(stops_.push(decoder_.push(id))) : std::string();
    }

    /// Ends the text: returns what was held back.
    std::string finish() {
        std::string rest = stops_.push(decoder_.flush());
        return without_lead(rest + stops_.finish());
    }

    /// Whether a stop string has occurred.
    bool stopped() const { return stops_.stopped(); }

  private:
    std::string without_lead(std::string text) {
        if (!text.empty()) {
            const std::string lead = std::exchange(lead_, {});
            text.erase(0, text.starts_with(lead) ? lead.size() : 0);
        }
        return text;
    }

    const Tokenizer* tokenizer_;
    StreamDecoder decoder_;
    StopStrings stops_;
    std::string lead_;
};

} // namespace lowrank
