// The added and special tokens of a model directory: tokenizer.json's list, tokenizer_config.json and its companions.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/json_reader.hpp"
#include "lowrank/text/added_tokens.hpp"
#include "lowrank/text/vocabulary.hpp"

namespace lowrank::detail {

/// Collects the tokens that text is searched for: some of the vocabulary, others that are put behind it.
class AddedTokenCollector {
  public:
    /// The vocabulary must outlive the collector.
    explicit AddedTokenCollector(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

    /// Takes a token. Throws FileError where its text is empty or known under another id.
    void add(const AddedToken& token, const std::string& file) {
        if (token.text.empty()) {
            throw FileError(concat(file, ": found an added token without text, with id ", token.id));
        }
        if (const auto known = find(token.text); known && *known != token.id) {
            throw FileError(concat(file, ": found the added token ", in_quotes(token.text), " with id ", token.id,
                                   ", expected ", *known, " as elsewhere in the model directory"));
        }
        for (AddedToken& other : tokens_) {
            if (other.text == token.text) {
                other.special = other.special || token.special;
                return;
            }
        }
        if (!vocabulary_.find(token.text)) {
            fresh_.push_back({token.text, token.id});
        }
        tokens_.push_back(token);
    }

    /// Takes the token of a role, such as eos_token. One that is not known gets the next free id, as in Transformers.
    void add_role(const std::string& text, const std::string& file) {
        std::int32_t next = vocabulary_.size();
        for (const Vocabulary::Entry& entry : fresh_) {
            next = std::max(next, entry.id + 1);
        }
        add({text, find(text).value_or(next), true}, file);
    }

    /// An object of tokenizer.json's added_tokens or of tokenizer_config.json's added_tokens_decoder.
    void add(JsonReader object, std::int64_t id) {
        for (const char* key : {"single_word", "lstrip", "rstrip"}) {
            if (object.get_bool_or(key, false)) {
                object.fail(key, "true", "false (added tokens that depend on their surroundings are not supported)");
            }
        }
        const std::string text = object.get_string("content");
        if (id < 0 || id >= max_token_id_count) {
            object.fail("content", concat(in_quotes(text), " with id ", id),
                        concat("an id from 0 to ", max_token_id_count - 1));
        }
        add({text, static_cast<std::int32_t>(id), object.get_bool_or("special", false)}, object.file());
    }

    std::optional<std::int32_t> find(std::string_view text) const {
        for (const AddedToken& token : tokens_) {
            if (token.text == text) {
                return token.id;
            }
        }
        return vocabulary_.find(text);
    }

    const std::vector<AddedToken>& tokens() const { return tokens_; }
    /// The tokens that the vocabulary lacks.
    const std::vector<Vocabulary::Entry>& fresh() const { return fresh_; }

  private:
    const Vocabulary& vocabulary_;
    std::vector<AddedToken> tokens_;
    std::vector<Vocabulary::Entry> fresh_;
};

/// The number that `text` writes in decimal digits, or -1.
inline std::int64_t id_of_key(const std::string& text) {
    std::int64_t id = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    return error == std::errc() && end == text.data() + text.size() ? id : -1;
}

/// Adds what added_tokens.json, special_tokens_map.json and tokenizer_config.json say, those of them that are there,
/// and returns the text of the end-of-text token where one is named.
inline std::optional<std::string> read_token_settings(const std::filesystem::path& directory,
                                                      AddedTokenCollector& added) {
    if (const auto path = directory / "added_tokens.json"; std::filesystem::exists(path)) {
        JsonReader tokens = JsonReader::open(path);
        for (const std::string& text : tokens.unread_keys()) {
            added.add({text, static_cast<std::int32_t>(tokens.get_integer(text, 0, max_token_id_count - 1)), false},
                      path.string());
        }
    }
    std::optional<std::string> eos;
    for (const char* name :
         {"special_tokens_map.json", "tokenizer_config.json"}) { // where both name it, the last counts
        if (!std::filesystem::exists(directory / name)) {
            continue;
        }
        JsonReader config = JsonReader::open(directory / name);
        if (config.has("added_tokens_decoder")) {
            JsonReader decoder = config.get_object("added_tokens_decoder");
            for (const std::string& id : decoder.unread_keys()) {
                const std::string key = id.substr(id.rfind('.') + 1);
                added.add(decoder.get_object(key), id_of_key(key));
            }
        }
        for (const char* role :
             {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
            const json* token = config.find(role);
            if (token == nullptr) {
                continue;
            }
            const std::string text =
                token->is_object() ? config.get_object(role).get_string("content") : config.get_string(role);
            added.add_role(text, config.file());
            if (std::string_view(role) == "eos_token") {
                eos = text;
            }
        }
        // Without tokenizer.json only its class says how a tokenizer splits text.
        const std::string kind = config.get_string_or("tokenizer_class", "GPT2Tokenizer");
        const bool gpt2 = kind == "GPT2Tokenizer" || kind == "GPT2TokenizerFast";
        if (!gpt2 && !std::filesystem::exists(directory / "tokenizer.json")) {
            config.fail("tokenizer_class", in_quotes(kind), "\"GPT2Tokenizer\" (others need a tokenizer.json)");
        }
        if (config.get_bool_or("add_prefix_space", false)) {
            config.fail("add_prefix_space", "true", "false (true is not supported)");
        }
    }
    return eos;
}

} // namespace lowrank::detail
