// Byte-pair merges: turns the bytes of one piece of text into token ids, lowest rank first.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// Token ids are below this: two of them and a rank fit one 64-bit slot of the merge table. The largest known
/// vocabularies hold a sixteenth of it.
inline constexpr std::int32_t max_token_id_count = 1 << 22;

/// Two neighbouring tokens that become one. A merge's rank is its place in the list.
struct Merge {
    std::int32_t left, right, result;
};

namespace detail {

/// From a pair of token ids to the rank of its merge: open addressing over slots that hold pair and rank in one word.
class PairTable {
  public:
    static constexpr std::uint32_t none = (1u << 20) - 1;

    /// Where a pair occurs twice, its later merge counts, as in Hugging Face tokenizers.
    explicit PairTable(const std::vector<Merge>& merges)
        : slots_(std::bit_ceil(2 * merges.size() + 2), empty),
          shift_(64 - std::countr_zero(slots_.size())) {
        for (std::size_t rank = 0; rank < merges.size(); ++rank) {
            const std::uint64_t pair = key(merges[rank].left, merges[rank].right);
            std::size_t at = home(pair);
            while (slots_[at] != empty && slots_[at] >> 20 != pair) {
                at = (at + 1) & (slots_.size() - 1);
            }
            slots_[at] = (pair << 20) | rank;
        }
    }

    /// The rank of (left, right), or `none`.
    std::uint32_t rank(std::int32_t left, std::int32_t right) const {
        const std::uint64_t pair = key(left, right);
        for (std::size_t at = home(pair);; at = (at + 1) & (slots_.size() - 1)) {
            const std::uint64_t slot = slots_[at];
            if (slot >> 20 == pair || slot == empty) {
                return static_cast<std::uint32_t>(slot & none);
            }
        }
    }

  private:
    static constexpr std::uint64_t empty = ~std::uint64_t(0); // its low 20 bits are `none`

    static std::uint64_t key(std::int32_t left, std::int32_t right) {
        return std::uint64_t(std::uint32_t(left)) << 22 | std::uint32_t(right);
    }
    std::size_t home(std::uint64_t pair) const { return (pair * 0x9e3779b97f4a7c15u) >> shift_; }

    std::vector<std::uint64_t> slots_;
    int shift_;
};

} // namespace detail

/// The merges of a byte-level BPE. Immutable, so that threads may share it.
class Bpe {
  public:
    /// `byte_ids`: the token of each single byte. Throws OptionError where an id or the number of merges is out of
    /// range.
    Bpe(std::array<std::int32_t, 256> byte_ids, std::vector<Merge> merges)
        : byte_ids_(byte_ids),
          merges_(checked(std::move(merges))),
          ranks_(merges_) {}

    /// Appends the tokens of `piece`: always the pair of lowest rank is merged next, the leftmost of equals.
    void encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
        if (piece.size() <= short_piece) {
            encode_short(piece, ids);
        } else {
            encode_long(piece, ids);
        }
    }

    const std::vector<Merge>& merges() const { return merges_; }

  private:
    static constexpr std::size_t short_piece = 48; // below it, scanning the ranks beats a heap
    static constexpr std::uint32_t none = detail::PairTable::none;

    static std::vector<Merge> checked(std::vector<Merge> merges) {
        if (merges.size() >= none) {
            throw OptionError(
                concat("Bpe: ", merges.size(), " merges are more than the ", none - 1, " that are supported"));
        }
        for (const Merge& merge : merges) {
            for (const std::int32_t id : {merge.left, merge.right, merge.result}) {
                if (id < 0 || id >= max_token_id_count) {
                    throw OptionError(concat("Bpe: token id ", id, " is outside [0, ", max_token_id_count, ")"));
                }
            }
        }
        return merges;
    }

    void encode_short(std::string_view piece, std::vector<std::int32_t>& ids) const {
        std::array<std::int32_t, short_piece> tokens;
        std::array<std::uint32_t, short_piece> ranks; // ranks[i] is that of tokens i and i + 1
        std::size_t count = piece.size();
        for (std::size_t i = 0; i < count; ++i) {
            tokens[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
        }
        for (std::size_t i = 0; i + 1 < count; ++i) {
            ranks[i] = ranks_.rank(tokens[i], tokens[i + 1]);
        }
        while (count > 1) {
            const std::size_t at = std::min_element(ranks.data(), ranks.data() + count - 1) - ranks.data();
            if (ranks[at] == none) {
                break;
            }
            tokens[at] = merges_[ranks[at]].result;
            std::copy(tokens.data() + at + 2, tokens.data() + count, tokens.data() + at + 1);
            std::copy(ranks.data() + std::min(at + 2, count - 1), ranks.data() + count - 1, ranks.data() + at + 1);
            --count;
            if (at > 0) {
                ranks[at - 1] = ranks_.rank(tokens[at - 1], tokens[at]);
            }
            if (at + 1 < count) {
                ranks[at] = ranks_.rank(tokens[at], tokens[at + 1]);
            }
        }
        ids.insert(ids.end(), tokens.data(), tokens.data() + count);
    }

    /// The same over a linked list with a heap: n log n for a piece of any length.
    void encode_long(std::string_view piece, std::vector<std::int32_t>& ids) const {
        struct Symbol {
            std::int32_t token;
            std::uint32_t rank; // of this and the next symbol
            std::size_t previous, next;
        };
        using Candidate = std::pair<std::uint32_t, std::size_t>; // rank, place
        const std::size_t count = piece.size();
        std::vector<Symbol> symbols(count);
        std::vector<Candidate> heap;
        for (std::size_t i = 0; i < count; ++i) {
            symbols[i] = {byte_ids_[static_cast<unsigned char>(piece[i])], none, i - 1, i + 1};
        }
        for (std::size_t i = 0; i + 1 < count; ++i) {
            symbols[i].rank = ranks_.rank(symbols[i].token, symbols[i + 1].token);
            if (symbols[i].rank != none) {
                heap.emplace_back(symbols[i].rank, i);
            }
        }
        std::make_heap(heap.begin(), heap.end(), std::greater<>());
        const auto update = [&](std::size_t at) {
            const std::size_t next = symbols[at].next;
            symbols[at].rank = next < count ? ranks_.rank(symbols[at].token, symbols[next].token) : none;
            if (symbols[at].rank != none) {
                heap.emplace_back(symbols[at].rank, at);
                std::push_heap(heap.begin(), heap.end(), std::greater<>());
            }
        };
        while (!heap.empty()) {
            const Candidate best = heap.front();
            std::pop_heap(heap.begin(), heap.end(), std::greater<>());
            heap.pop_back();
            Symbol& symbol = symbols[best.second];
            if (symbol.rank != best.first) { // an older state of this place
                continue;
            }
            Symbol& absorbed = symbols[symbol.next];
            absorbed.rank = none;
            symbol.token = merges_[best.first].result;
            symbol.next = absorbed.next;
            if (symbol.next < count) {
                symbols[symbol.next].previous = best.second;
            }
            update(best.second);
            if (best.second > 0) {
                update(symbol.previous);
            }
        }
        for (std::size_t i = 0; i < count; i = symbols[i].next) {
            ids.push_back(symbols[i].token);
        }
    }

    std::array<std::int32_t, 256> byte_ids_;
    std::vector<Merge> merges_;
    detail::PairTable ranks_;
};

} // namespace lowrank
