// Learns the merges of a byte-level BPE from text: the same as the BpeTrainer of Hugging Face tokenizers.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/text/bpe.hpp"
#include "lowrank/text/byte_level.hpp"
#include "lowrank/text/pre_tokenize.hpp"
#include "lowrank/text/tokenizer.hpp"

namespace lowrank {

/// Settings of BpeTrainer, named as in tokenizers.
struct BpeTrainerOptions {
    std::int64_t vocab_size = 50257; ///< special tokens, the 256 bytes and merges; fewer where the text gives no more
    std::int64_t min_frequency = 0;  ///< a pair that is rarer is not merged
    std::vector<std::string> special_tokens = {"<|endoftext|>"}; ///< get the first ids
};

/// What training gives: the tokens by id, as vocabulary files spell them, and the merges by rank. The special tokens
/// come first, then the bytes in the order of their characters.
struct BpeVocabulary {
    std::vector<std::string> tokens;
    std::vector<Merge> merges;
    std::vector<std::string> special_tokens;

    /// A tokenizer of these; a special token <|endoftext|> ends its texts.
    Tokenizer tokenizer() const {
        std::vector<Vocabulary::Entry> entries;
        for (const std::string& token : tokens) {
            entries.push_back({token, static_cast<std::int32_t>(entries.size())});
        }
        Vocabulary vocabulary(entries, "BPE training");
        std::array<std::int32_t, 256> bytes{};
        for (std::size_t byte = 0; byte < bytes.size(); ++byte) {
            bytes[byte] = *vocabulary.find(to_byte_alphabet(std::string(1, static_cast<char>(byte))));
        }
        std::vector<AddedToken> added;
        for (const std::string& token : special_tokens) {
            added.push_back({token, *vocabulary.find(token), true});
        }
        const std::optional<std::int32_t> eos = vocabulary.find("<|endoftext|>");
        return {std::move(vocabulary), BytePairEncoder(SplitPattern::gpt2, Bpe(bytes, merges)), std::move(added), eos};
    }
};

/// Counts the pieces of texts, and then merges the most frequent pair of neighbouring tokens again and again; of
/// equally frequent ones, that of the smaller ids.
///
/// The counts of pairs are kept up to date beside a heap, whose entries remember the pieces to look into; an entry
/// whose count is no longer true goes back with the true one.
class BpeTrainer {
  public:
    /// Throws OptionError for a vocabulary that does not hold the bytes and special tokens, or is too large, and for
    /// special tokens that are empty or occur twice.
    explicit BpeTrainer(BpeTrainerOptions options) : options_(std::move(options)) {
        const auto least = static_cast<std::int64_t>(256 + options_.special_tokens.size());
        if (options_.vocab_size < least || options_.vocab_size > detail::PairTable::none) {
            throw OptionError(concat("BPE training: found vocab_size ", options_.vocab_size, ", expected ", least,
                                     " (bytes and special tokens) to ", detail::PairTable::none));
        }
        std::vector<std::string> special = options_.special_tokens;
        std::sort(special.begin(), special.end());
        if (std::adjacent_find(special.begin(), special.end()) != special.end() ||
            (!special.empty() && special.front().empty())) {
            throw OptionError("BPE training: found a special token that is empty or given twice");
        }
    }

    /// Counts the pieces of a text, by GPT-2's pattern. Special tokens in it are text like any other: leave them out.
    /// Throws OptionError where it is not UTF-8.
    void add(std::string_view text) {
        if (const auto offset = validate_utf8(text)) {
            throw OptionError(
                concat("BPE training: the text is not valid UTF-8 at byte ", *offset, " of ", text.size()));
        }
        for_each_piece(SplitPattern::gpt2, text, [&](std::string_view piece) { ++counts_[std::string(piece)]; });
    }

    /// Learns the merges from all texts that were added.
    BpeVocabulary train() const { return Training(options_, counts_).run(); }

  private:
    using Counts = std::unordered_map<std::string, std::int64_t>;
    using Pair = std::uint64_t; // left id above, right id below: compares as (left, right) do

    static Pair pair_of(std::int32_t left, std::int32_t right) {
        return Pair(std::uint32_t(left)) << 32 | std::uint32_t(right);
    }

    struct Word {
        std::vector<std::int32_t> tokens;
        std::int64_t count;
    };

    /// A pair, how often it occurred when this entry was made, and the words that it was then found in.
    struct Entry {
        Pair pair;
        std::int64_t count;
        std::vector<std::uint32_t> words;

        bool operator<(const Entry& other) const { // the largest comes out of the heap first
            return count != other.count ? count < other.count : pair > other.pair;
        }
    };

    class Training {
      public:
        Training(const BpeTrainerOptions& options, const Counts& counts) : options_(options) {
            result_.special_tokens = options.special_tokens;
            for (const std::string& token : options.special_tokens) {
                id_of(token);
            }
            std::array<char16_t, 256> alphabet = detail::byte_to_char;
            std::sort(alphabet.begin(), alphabet.end());
            for (const char16_t character : alphabet) {
                std::string token;
                append_utf8(token, character);
                id_of(token);
            }
            for (const auto& [piece, count] : counts) {
                Word word{{}, count};
                for (const char byte : piece) {
                    word.tokens.push_back(ids_.at(to_byte_alphabet(std::string(1, byte))));
                }
                words_.push_back(std::move(word));
            }
        }

        BpeVocabulary run() {
            for (std::uint32_t w = 0; w < words_.size(); ++w) {
                const Word& word = words_[w];
                for (std::size_t i = 0; i + 1 < word.tokens.size(); ++i) {
                    change(pair_of(word.tokens[i], word.tokens[i + 1]), word.count, w);
                }
            }
            push_changed();
            while (static_cast<std::int64_t>(result_.tokens.size()) < options_.vocab_size && !heap_.empty()) {
                std::pop_heap(heap_.begin(), heap_.end());
                Entry top = std::move(heap_.back());
                heap_.pop_back();
                if (const std::int64_t now = pair_counts_.at(top.pair); top.count != now) {
                    push(top.pair, now, std::move(top.words));
                    continue;
                }
                if (top.count < std::max<std::int64_t>(1, options_.min_frequency)) {
                    break;
                }
                merge(top);
            }
            return std::move(result_);
        }

      private:
        /// The id of a token by its text; a new one gets the next.
        std::int32_t id_of(const std::string& token) {
            const auto [entry, fresh] = ids_.emplace(token, static_cast<std::int32_t>(result_.tokens.size()));
            if (fresh) {
                result_.tokens.push_back(token);
            }
            return entry->second;
        }

        void merge(const Entry& entry) {
            const auto left = static_cast<std::int32_t>(entry.pair >> 32);
            const auto right = static_cast<std::int32_t>(entry.pair & 0xffffffffu);
            const std::int32_t id =
                id_of(result_.tokens[static_cast<std::size_t>(left)] + result_.tokens[static_cast<std::size_t>(right)]);
            result_.merges.push_back({left, right, id});
            for (const std::uint32_t w : entry.words) {
                merge_in(w, left, right, id);
            }
            push_changed();
        }

        void merge_in(std::uint32_t w, std::int32_t left, std::int32_t right, std::int32_t id) {
            std::vector<std::int32_t>& tokens = words_[w].tokens;
            const std::int64_t count = words_[w].count;
            std::size_t kept = 0;
            for (std::size_t i = 0; i < tokens.size(); ++i) {
                if (tokens[i] != left || i + 1 == tokens.size() || tokens[i + 1] != right) {
                    tokens[kept++] = tokens[i];
                    continue;
                }
                if (kept > 0) {
                    change(pair_of(tokens[kept - 1], left), -count, w);
                    change(pair_of(tokens[kept - 1], id), count, w);
                }
                if (i + 2 < tokens.size()) {
                    change(pair_of(right, tokens[i + 2]), -count, w);
                    change(pair_of(id, tokens[i + 2]), count, w);
                }
                tokens[kept++] = id;
                ++i;
            }
            tokens.resize(kept);
        }

        /// Counts a pair `by` more times in word `w`.
        void change(Pair pair, std::int64_t by, std::uint32_t w) {
            pair_counts_[pair] += by;
            if (by > 0) {
                std::vector<std::uint32_t>& words = changed_[pair];
                if (words.empty() || words.back() != w) {
                    words.push_back(w);
                }
            }
        }

        void push_changed() {
            for (auto& [pair, words] : changed_) {
                if (const std::int64_t count = pair_counts_.at(pair); count > 0) {
                    push(pair, count, std::move(words));
                }
            }
            changed_.clear();
        }

        void push(Pair pair, std::int64_t count, std::vector<std::uint32_t> words) {
            heap_.push_back({pair, count, std::move(words)});
            std::push_heap(heap_.begin(), heap_.end());
        }

        const BpeTrainerOptions& options_;
        BpeVocabulary result_;
        std::unordered_map<std::string, std::int32_t> ids_;
        std::vector<Word> words_;
        std::unordered_map<Pair, std::int64_t> pair_counts_;
        std::unordered_map<Pair, std::vector<std::uint32_t>> changed_; // the pairs that grew, and in which words
        std::vector<Entry> heap_;
    };

    BpeTrainerOptions options_;
    Counts counts_;
};

} // namespace lowrank
