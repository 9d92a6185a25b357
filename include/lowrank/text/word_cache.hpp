// Remembers the tokens of recent short pieces of text, in bounded memory, one cache for each thread that encodes.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

namespace lowrank::detail {

/// A short piece's bytes padded with zeros, and in the last byte its length: equal keys are equal pieces. No piece's
/// key is all zero.
struct WordKey {
    static constexpr std::size_t longest = 23; ///< bytes of a piece

    std::array<std::uint64_t, 3> words{};

    bool operator==(const WordKey& other) const {
        return ((words[0] ^ other.words[0]) | (words[1] ^ other.words[1]) | (words[2] ^ other.words[2])) == 0;
    }
};

/// For pieces of n bytes: `keep` has those bytes set, `length` has n as its last byte, in either byte order.
struct WordKeyMask {
    WordKey keep, length;
};
inline constexpr std::array<WordKeyMask, WordKey::longest + 1> word_key_masks = [] {
    std::array<WordKeyMask, WordKey::longest + 1> masks{};
    for (std::size_t n = 0; n < masks.size(); ++n) {
        std::array<unsigned char, sizeof(WordKey)> keep{}, length{};
        std::fill_n(keep.begin(), n, static_cast<unsigned char>(0xff));
        length.back() = static_cast<unsigned char>(n);
        masks[n] = {std::bit_cast<WordKey>(keep), std::bit_cast<WordKey>(length)};
    }
    return masks;
}();

/// The key of a piece of 1 … `longest` bytes, of which `readable` bytes of memory, at least the piece's, may be read.
inline WordKey word_key(std::string_view piece, std::size_t readable) {
    WordKey key;
    if (readable >= sizeof key) { // the usual case: a copy of constant size, and then a mask
        std::memcpy(&key.words, piece.data(), sizeof key);
    } else {
        std::memcpy(&key.words, piece.data(), piece.size());
    }
    const WordKeyMask& mask = word_key_masks[piece.size()];
    for (std::size_t i = 0; i < key.words.size(); ++i) {
        key.words[i] = (key.words[i] & mask.keep.words[i]) | mask.length.words[i];
    }
    return key;
}

/// A direct-mapped cache: each piece has one slot, where the newest replaces what was there.
class WordCache {
  public:
    static constexpr std::size_t most_tokens = 9; ///< of a piece that is remembered

    /// Appends the tokens remembered for `key`, if they are; says whether.
    bool find(const WordKey& key, std::vector<std::int32_t>& ids) const {
        const Slot& slot = slots_[place(key)];
        if (!(slot.key == key)) {
            return false;
        }
        if (slot.count == 1) {
            ids.push_back(slot.tokens[0]);
        } else {
            ids.insert(ids.end(), slot.tokens.data(), slot.tokens.data() + slot.count);
        }
        return true;
    }

    /// Remembers ids[first…] for `key`, unless they are too many.
    void store(const WordKey& key, const std::vector<std::int32_t>& ids, std::size_t first) {
        const std::size_t count = ids.size() - first;
        if (count > most_tokens) {
            return;
        }
        Slot& slot = slots_[place(key)];
        slot.key = key;
        slot.count = static_cast<std::uint32_t>(count);
        std::copy(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end(), slot.tokens.begin());
    }

  private:
    static constexpr int slot_bits = 15; // of 64 bytes: 2 MB

    struct Slot { // one line of the processor's cache
        WordKey key;
        std::uint32_t count = 0;
        std::array<std::int32_t, most_tokens> tokens{};
    };

    static std::size_t place(const WordKey& key) {
        std::uint64_t hash = key.words[0] * 0x9e3779b97f4a7c15u;
        hash = (hash ^ (hash >> 32) ^ key.words[1]) * 0xd6e8feb86659fd93u;
        hash = (hash ^ (hash >> 32) ^ key.words[2]) * 0x9e3779b97f4a7c15u;
        return hash >> (64 - slot_bits);
    }

    std::vector<Slot> slots_ = std::vector<Slot>(std::size_t(1) << slot_bits);
};

/// Lends caches: a thread has one to itself while it encodes, and as many exist as ever encoded at once.
class WordCachePool {
  public:
    /// A cache, returned to the pool at the end of the scope.
    class Loan {
      public:
        explicit Loan(WordCachePool& pool) : pool_(pool), cache_(pool.take()) {}
        Loan(const Loan&) = delete;
        Loan& operator=(const Loan&) = delete;
        ~Loan() { pool_.give(std::move(cache_)); }

        WordCache& operator*() const { return *cache_; }

      private:
        WordCachePool& pool_;
        std::unique_ptr<WordCache> cache_;
    };

  private:
    std::unique_ptr<WordCache> take() {
        {
            const std::lock_guard lock(mutex_);
            if (!free_.empty()) {
                std::unique_ptr<WordCache> cache = std::move(free_.back());
                free_.pop_back();
                return cache;
            }
            free_.reserve(++count_); // so that giving back cannot fail
        }
        return std::make_unique<WordCache>();
    }
    void give(std::unique_ptr<WordCache> cache) noexcept {
        const std::lock_guard lock(mutex_);
        free_.push_back(std::move(cache));
    }

    std::mutex mutex_;
    std::size_t count_ = 0;
    std::vector<std::unique_ptr<WordCache>> free_;
};

} // namespace lowrank::detail
