// Tokenizer: text to token ids and back, for byte-level BPE and character-level models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/text/added_tokens.hpp"
#include "lowrank/text/byte_level.hpp"
#include "lowrank/text/byte_pair_encoder.hpp"
#include "lowrank/text/character_encoder.hpp"
#include "lowrank/text/unicode.hpp"
#include "lowrank/text/vocabulary.hpp"

namespace lowrank {

struct EncodeOptions {
    /// Whether special tokens that stand in the text, such as "<|endoftext|>", become their one id. False for text that
    /// is not trusted: there they are ordinary characters.
    bool special_tokens = true;
};

/// A tokenizer with the ids of Hugging Face's (encode with add_special_tokens=False). Threads may share one.
class Tokenizer {
  public:
    using Encoder = std::variant<BytePairEncoder, CharacterEncoder>;

    /// Reads a model directory: tokenizer.json, or else vocab.json and merges.txt, or else char_vocab.json. Throws
    /// FileError that names the file and what is wrong with it. Defined in load_tokenizer.hpp, which must be included
    /// to call it.
    static Tokenizer load(const std::filesystem::path& model_directory);

    /// From parts. The added tokens and `eos` must be in the vocabulary.
    Tokenizer(Vocabulary vocabulary, Encoder encoder, std::vector<AddedToken> added, std::optional<std::int32_t> eos)
        : vocabulary_(std::move(vocabulary)),
          encoder_(std::move(encoder)),
          added_(std::move(added)),
          eos_(eos),
          bytes_(token_bytes_of(vocabulary_, byte_level())) {}

    /// The token ids of `text`, as they stand: nothing is put before or after. Throws OptionError where the text is not
    /// UTF-8, naming the byte, or has a character that a character-level model lacks.
    std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options = {}) const {
        if (const auto offset = validate_utf8(text)) {
            throw OptionError(
                concat("Tokenizer::encode: the text is not valid UTF-8 at byte ", *offset, " of ", text.size()));
        }
        std::vector<std::int32_t> ids;
        ids.reserve(text.size() / 3);
        for (std::size_t begin = 0; begin < text.size();) {
            const AddedTokens::Match match = added_.find(text, begin, !options.special_tokens);
            if (match.begin > begin) {
                const std::string_view plain = text.substr(begin, match.begin - begin);
                std::visit([&](const auto& encoder) { encoder.encode(plain, ids); }, encoder_);
            }
            if (match.id >= 0) {
                ids.push_back(match.id);
            }
            begin = match.end;
        }
        return ids;
    }

    /// The text of `ids`, special tokens included; bytes that are not UTF-8 become U+FFFD. Throws OptionError for an id
    /// that is not in the vocabulary.
    std::string decode(std::span<const std::int32_t> ids) const {
        std::string bytes;
        for (const std::int32_t id : ids) {
            bytes += token_bytes(id);
        }
        if (!validate_utf8(bytes)) {
            return bytes;
        }
        std::string text;
        append_utf8_lossy(text, bytes, true);
        return text;
    }

    /// The bytes that a token stands for, which need not be whole characters; valid as long as the tokenizer.
    std::string_view token_bytes(std::int32_t id) const {
        check(id);
        return bytes_[static_cast<std::size_t>(id)];
    }
    /// A token as the vocabulary file spells it: "Ġthe" for " the".
    std::string_view token_text(std::int32_t id) const {
        check(id);
        return vocabulary_.text(id);
    }
    /// The id of a token by its spelling in the vocabulary file, or nothing.
    std::optional<std::int32_t> token_id(std::string_view text) const { return vocabulary_.find(text); }

    /// One more than the largest id. A model's embedding may have more rows, for padding.
    std::int32_t vocab_size() const { return vocabulary_.size(); }
    /// Whether a token has this id; vocabularies may have gaps.
    bool contains(std::int32_t id) const { return vocabulary_.contains(id); }
    /// The token that ends a text, where the model has one.
    std::optional<std::int32_t> eos_id() const { return eos_; }
    const std::vector<AddedToken>& added_tokens() const { return added_.tokens(); }
    /// The merges in order of rank, for exporters; none for a character-level model.
    std::span<const Merge> merges() const {
        const auto* encoder = std::get_if<BytePairEncoder>(&encoder_);
        return encoder ? std::span<const Merge>(encoder->bpe().merges()) : std::span<const Merge>();
    }

  private:
    bool byte_level() const { return std::holds_alternative<BytePairEncoder>(encoder_); }

    /// Hugging Face's byte-level decoder: a token that is not written in the byte alphabet stands for itself.
    static StringTable token_bytes_of(const Vocabulary& vocabulary, bool byte_level) {
        std::vector<std::string> bytes;
        bytes.reserve(static_cast<std::size_t>(vocabulary.size()));
        for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
            const std::string_view text = vocabulary.text(id);
            std::optional<std::string> mapped = byte_level ? from_byte_alphabet(text) : std::nullopt;
            bytes.push_back(mapped ? *std::move(mapped) : std::string(text));
        }
        return StringTable(bytes);
    }

    void check(std::int32_t id) const {
        if (!contains(id)) {
            throw OptionError(
                concat("Tokenizer: the token id ", id, " is not in the vocabulary (ids 0 to ", vocab_size() - 1, ")"));
        }
    }

    Vocabulary vocabulary_;
    Encoder encoder_;
    AddedTokens added_;
    std::optional<std::int32_t> eos_;
    StringTable bytes_;
};

} // namespace lowrank
