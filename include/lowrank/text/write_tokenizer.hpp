// Writes a byte-level BPE as the files that Hugging Face opens: vocab.json, merges.txt, tokenizer.json and its config.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>

#include "lowrank/io/atomic_file.hpp"
#include "lowrank/io/python_json.hpp"
#include "lowrank/text/bpe_trainer.hpp"

namespace lowrank {

namespace detail {

/// Vocabulary files list the tokens in the order of their ids, which no JSON object of ours keeps.
inline std::string vocab_json(const BpeVocabulary& bpe) {
    std::string text = "{";
    for (std::size_t id = 0; id < bpe.tokens.size(); ++id) {
        text += concat(id == 0 ? "" : ", ", json(bpe.tokens[id]).dump(), ": ", id);
    }
    return text + "}\n";
}

/// A special token as tokenizer files describe it.
inline json special_token(const std::string& text) {
    return {{"content", text}, {"lstrip", false},      {"normalized", false},
            {"rstrip", false}, {"single_word", false}, {"special", true}};
}

inline std::int32_t id_of(const BpeVocabulary& bpe, const std::string& token) {
    return static_cast<std::int32_t>(std::find(bpe.tokens.begin(), bpe.tokens.end(), token) - bpe.tokens.begin());
}

} // namespace detail

/// Writes vocab.json, merges.txt, tokenizer.json and tokenizer_config.json into `directory`, which must exist: the
/// files of a GPT-2 tokenizer in Transformers, for texts of at most `model_max_length` tokens. Throws FileError.
inline void write_tokenizer(const BpeVocabulary& bpe, std::int64_t model_max_length,
                            const std::filesystem::path& directory) {
    json merges = json::array(), vocabulary = json::object(), added = json::array(), decoder = json::object();
    std::string lines = "#version: 0.2\n";
    for (const Merge& merge : bpe.merges) {
        const auto text = [&](std::int32_t id) { return bpe.tokens[static_cast<std::size_t>(id)]; };
        merges.push_back(text(merge.left) + " " + text(merge.right));
        lines += text(merge.left) + " " + text(merge.right) + "\n";
    }
    for (std::size_t id = 0; id < bpe.tokens.size(); ++id) {
        vocabulary[bpe.tokens[id]] = id;
    }
    json config = {
        {"add_prefix_space", false}, {"model_max_length", model_max_length}, {"tokenizer_class", "GPT2Tokenizer"}};
    for (const std::string& token : bpe.special_tokens) {
        const std::int32_t id = detail::id_of(bpe, token);
        json entry = detail::special_token(token);
        decoder[std::to_string(id)] = entry;
        entry["id"] = id;
        added.push_back(entry);
        if (token == "<|endoftext|>") {
            for (const char* role : {"bos_token", "eos_token", "unk_token"}) {
                config[role] = token;
            }
        }
    }
    config["added_tokens_decoder"] = decoder;
    const json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    const json document = {{"version", "1.0"},
                           {"truncation", nullptr},
                           {"padding", nullptr},
                           {"added_tokens", added},
                           {"normalizer", nullptr},
                           {"pre_tokenizer", byte_level},
                           {"post_processor", byte_level},
                           {"decoder", byte_level},
                           {"model",
                            {{"type", "BPE"},
                             {"dropout", nullptr},
                             {"unk_token", nullptr},
                             {"continuing_subword_prefix", nullptr},
                             {"end_of_word_suffix", nullptr},
                             {"fuse_unk", false},
                             {"byte_fallback", false},
                             {"ignore_merges", false},
                             {"vocab", vocabulary},
                             {"merges", merges}}}};
    write_atomically(directory / "vocab.json", detail::vocab_json(bpe));
    write_atomically(directory / "merges.txt", lines);
    write_atomically(directory / "tokenizer.json", to_python_json(document) + "\n");
    write_atomically(directory / "tokenizer_config.json", to_python_json(config) + "\n");
}

} // namespace lowrank
