// Tokenizer::load: reads the tokenizer files of a model directory, as Transformers writes them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/json_reader.hpp"
#include "lowrank/io/read_text.hpp"
#include "lowrank/text/added_token_files.hpp"
#include "lowrank/text/tokenizer.hpp"

namespace lowrank {

namespace detail {

/// The entries of a {token: id} object; `file` is its name in messages.
inline std::vector<Vocabulary::Entry> vocabulary_entries(const json& object, const std::string& file) {
    if (!object.is_object()) {
        throw FileError(concat(file, ": found ", JsonReader::describe(object), ", expected an object of token: id"));
    }
    std::vector<Vocabulary::Entry> entries;
    entries.reserve(object.size());
    for (auto it = object.begin(); it != object.end(); ++it) {
        if (!it->is_number_unsigned() || it->get<std::uint64_t>() >= std::uint64_t(max_token_id_count)) {
            throw FileError(concat(file, ": found the id ", JsonReader::describe(*it), " for the token ",
                                   in_quotes(it.key()), ", expected an integer from 0 to ", max_token_id_count - 1));
        }
        entries.push_back({it.key(), it->get<std::int32_t>()});
    }
    return entries;
}

/// The ids of the 256 single bytes. Throws FileError where one is missing: some text would have no tokens.
inline std::array<std::int32_t, 256> byte_ids(const Vocabulary& vocabulary, const std::string& file) {
    std::array<std::int32_t, 256> ids{};
    for (std::size_t byte = 0; byte < ids.size(); ++byte) {
        const std::string token = to_byte_alphabet(std::string(1, static_cast<char>(byte)));
        const std::optional<std::int32_t> id = vocabulary.find(token);
        if (!id) {
            throw FileError(concat(file, ": found no token \"", token, "\" for the byte ", byte,
                                   ", expected one for each of the 256 bytes (the alphabet of byte-level BPE)"));
        }
        ids[byte] = *id;
    }
    return ids;
}

/// A merge by the texts of its tokens; `where()` says in messages which one it is.
template <class Where>
Merge merge_of(const Vocabulary& vocabulary, std::string_view left, std::string_view right, const Where& where) {
    const auto id = [&](std::string_view token) {
        const std::optional<std::int32_t> found = vocabulary.find(token);
        if (!found) {
            throw FileError(concat(where(), ": the merge of ", in_quotes(left), " and ", in_quotes(right),
                                   " needs the token ", in_quotes(token), ", which is not in the vocabulary"));
        }
        return *found;
    };
    return {id(left), id(right), id(concat(left, right))};
}

/// "left right", as merges.txt and older tokenizer.json files write a merge.
template <class Where>
Merge merge_of(const Vocabulary& vocabulary, std::string_view line, const Where& where) {
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
        throw FileError(concat(where(), ": found ", in_quotes(line), ", expected two tokens with one space between"));
    }
    return merge_of(vocabulary, line.substr(0, space), line.substr(space + 1), where);
}

inline std::vector<Merge> read_merges(const std::filesystem::path& path, const Vocabulary& vocabulary) {
    const std::string text = read_text(path);
    std::vector<Merge> merges;
    std::size_t number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        std::string_view line = std::string_view(text).substr(begin, end - begin);
        if (line.ends_with('\r')) {
            line.remove_suffix(1);
        }
        ++number;
        if (!line.empty() && !line.starts_with("#version")) {
            merges.push_back(merge_of(vocabulary, line, [&] { return concat(path.string(), ": line ", number); }));
        }
        begin = end + 1;
    }
    return merges;
}

inline std::vector<Merge> merges_of_json(const json& list, const Vocabulary& vocabulary, const std::string& file) {
    std::vector<Merge> merges;
    merges.reserve(list.size());
    for (const json& merge : list) {
        const auto where = [&] { return concat(file, ": key 'model.merges': item ", merges.size()); };
        const bool pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
        if (!pair && !merge.is_string()) {
            throw FileError(
                concat(where(), ": found ", JsonReader::describe(merge), ", expected \"left right\" or a pair"));
        }
        merges.push_back(pair ? merge_of(vocabulary, merge[0].get_ref<const std::string&>(),
                                         merge[1].get_ref<const std::string&>(), where)
                              : merge_of(vocabulary, merge.get_ref<const std::string&>(), where));
    }
    return merges;
}

/// The value of `key`, which must be there.
inline const json& required(JsonReader& reader, const char* key, const char* expected) {
    const json* value = reader.find(key);
    if (value == nullptr) {
        reader.fail(key, "no such key", expected);
    }
    return *value;
}

/// The steps that both forms of a byte-level tokenizer share.
class ByteLevelLoader {
  public:
    /// `file` is the one that `entries` come from. Throws FileError where they are no byte-level vocabulary.
    ByteLevelLoader(std::filesystem::path directory, std::vector<Vocabulary::Entry> entries, std::string file)
        : directory_(std::move(directory)),
          entries_(std::move(entries)),
          vocabulary_(entries_, file),
          byte_ids_(byte_ids(vocabulary_, file)),
          added_(vocabulary_) {}
    ByteLevelLoader(const ByteLevelLoader&) = delete; // added_ refers to vocabulary_
    ByteLevelLoader& operator=(const ByteLevelLoader&) = delete;

    const Vocabulary& vocabulary() const { return vocabulary_; }
    AddedTokenCollector& added() { return added_; }

    /// Adds the settings beside the vocabulary to it, and assembles the tokenizer.
    Tokenizer finish(std::vector<Merge> merges) && {
        const std::optional<std::string> eos = read_token_settings(directory_, added_);
        const std::optional<std::int32_t> eos_id = added_.find(eos.value_or("<|endoftext|>"));
        if (!added_.fresh().empty()) {
            entries_.insert(entries_.end(), added_.fresh().begin(), added_.fresh().end());
            vocabulary_ = Vocabulary(entries_, directory_.string());
        }
        BytePairEncoder encoder(SplitPattern::gpt2, Bpe(byte_ids_, std::move(merges)));
        return {std::move(vocabulary_), std::move(encoder), added_.tokens(), eos_id};
    }

  private:
    std::filesystem::path directory_;
    std::vector<Vocabulary::Entry> entries_;
    Vocabulary vocabulary_;
    std::array<std::int32_t, 256> byte_ids_;
    AddedTokenCollector added_;
};

/// Refuses a tokenizer.json whose parts are not those of GPT-2: its ids would silently differ.
inline void check_supported(JsonReader& document) {
    const auto need_type = [&](JsonReader part, const char* type, bool required) {
        if ((required || part.has("type")) && part.get_string("type") != type) {
            part.fail("type", in_quotes(part.get_string("type")), in_quotes(type));
        }
    };
    if (const json* normalizer = document.find("normalizer")) {
        document.fail("normalizer", JsonReader::describe(*normalizer), "null (normalizers are not supported)");
    }
    JsonReader model = document.get_object("model");
    need_type(model, "BPE", false); // older files do not name it
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        if (!model.get_string_or(key, "").empty()) {
            model.fail(key, in_quotes(model.get_string(key)), "null (not supported)");
        }
    }
    for (const char* key : {"byte_fallback", "ignore_merges"}) {
        if (model.get_bool_or(key, false)) {
            model.fail(key, "true", "false (true is not supported)");
        }
    }
    if (model.get_number_or("dropout", 0) != 0) {
        model.fail("dropout", concat(model.get_number("dropout")), "null (not supported)");
    }
    JsonReader split = document.get_object("pre_tokenizer");
    need_type(split, "ByteLevel", true);
    need_type(document.get_object("decoder"), "ByteLevel", true);
    if (split.get_bool_or("add_prefix_space", false)) {
        split.fail("add_prefix_space", "true", "false (true is not supported)");
    }
    if (!split.get_bool_or("use_regex", true)) {
        split.fail("use_regex", "false", "true (false is not supported)");
    }
}

inline Tokenizer load_tokenizer_json(const std::filesystem::path& directory) {
    JsonReader document = JsonReader::open(directory / "tokenizer.json");
    const std::string& file = document.file();
    check_supported(document);
    JsonReader model = document.get_object("model");
    const json& vocabulary = required(model, "vocab", "an object of token: id");
    const json& merges = required(model, "merges", "a list of merges");
    ByteLevelLoader loader(directory, vocabulary_entries(vocabulary, file), file);
    if (const json* tokens = document.find("added_tokens")) {
        for (const json& token : *tokens) {
            JsonReader reader(token, file + ": key 'added_tokens'");
            loader.added().add(reader, reader.get_integer("id"));
        }
    }
    return std::move(loader).finish(merges_of_json(merges, loader.vocabulary(), file));
}

inline Tokenizer load_vocab_and_merges(const std::filesystem::path& directory) {
    const std::filesystem::path path = directory / "vocab.json";
    ByteLevelLoader loader(directory, vocabulary_entries(read_json(path), path.string()), path.string());
    if (loader.vocabulary().find("<|endoftext|>")) {
        loader.added().add_role("<|endoftext|>", path.string());
    }
    return std::move(loader).finish(read_merges(directory / "merges.txt", loader.vocabulary()));
}

inline Tokenizer load_characters(const std::filesystem::path& path) {
    Vocabulary vocabulary(vocabulary_entries(read_json(path), path.string()), path.string());
    CharacterEncoder encoder(vocabulary, path.string());
    return {std::move(vocabulary), std::move(encoder), {}, std::nullopt};
}

} // namespace detail

inline Tokenizer Tokenizer::load(const std::filesystem::path& model_directory) {
    const auto has = [&](const char* name) { return std::filesystem::exists(model_directory / name); };
    if (has("tokenizer.json")) {
        return detail::load_tokenizer_json(model_directory);
    }
    if (has("vocab.json")) {
        return detail::load_vocab_and_merges(model_directory);
    }
    if (has("char_vocab.json")) {
        return detail::load_characters(model_directory / "char_vocab.json");
    }
    throw FileError(concat(model_directory.string(), ": found no tokenizer, expected one of tokenizer.json, vocab.json "
                                                     "(with merges.txt) and char_vocab.json"));
}

} // namespace lowrank
