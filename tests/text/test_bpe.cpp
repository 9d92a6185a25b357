// Merging against the plainest implementation there is, for short and long pieces, with and without a cache.
#include <doctest/doctest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/text/byte_pair_encoder.hpp"
#include "text/parity.hpp"

using namespace lowrank;

static std::array<std::int32_t, 256> bytes_as_ids() {
    std::array<std::int32_t, 256> ids{};
    for (int byte = 0; byte < 256; ++byte) {
        ids[static_cast<std::size_t>(byte)] = byte;
    }
    return ids;
}

/// Merges among the bytes a to d and what they became, in random order: a later merge may well have the lower rank.
static std::vector<Merge> random_merges(parity::Random& random, std::size_t count) {
    std::vector<std::string> tokens = {"a", "b", "c", "d"};
    std::vector<std::int32_t> ids = {'a', 'b', 'c', 'd'};
    std::map<std::string, std::int32_t> known;
    std::vector<Merge> merges;
    while (merges.size() < count) {
        const std::size_t left = random.below(tokens.size()), right = random.below(tokens.size());
        const std::string text = tokens[left] + tokens[right];
        const auto [entry, fresh] = known.emplace(text, 256 + static_cast<std::int32_t>(known.size()));
        merges.push_back({ids[left], ids[right], entry->second});
        if (fresh) {
            tokens.push_back(text);
            ids.push_back(entry->second);
        }
    }
    for (std::size_t i = merges.size(); i > 1; --i) {
        std::swap(merges[i - 1], merges[random.below(i)]);
    }
    return merges;
}

/// Merges the leftmost pair of the lowest rank until there is none; the last of equal pairs in the list counts.
static std::vector<std::int32_t> plain_encode(const std::vector<Merge>& merges, const std::string& piece) {
    std::vector<std::int32_t> ids(piece.begin(), piece.end());
    for (;;) {
        std::size_t best_rank = merges.size(), at = 0;
        for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
            for (std::size_t rank = merges.size(); rank-- > 0;) {
                if (merges[rank].left == ids[i] && merges[rank].right == ids[i + 1]) {
                    if (rank < best_rank) {
                        best_rank = rank;
                        at = i;
                    }
                    break;
                }
            }
        }
        if (best_rank == merges.size()) {
            return ids;
        }
        ids[at] = merges[best_rank].result;
        ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
}

TEST_CASE("short and long pieces merge as the definition says") {
    parity::Random random{1};
    for (int round = 0; round < 60; ++round) {
        const std::vector<Merge> merges = random_merges(random, 1 + random.below(60));
        const Bpe bpe(bytes_as_ids(), merges);
        for (int i = 0; i < 20; ++i) {
            std::string piece;
            const std::size_t length = 1 + random.below(i % 2 == 0 ? 48 : 130);
            const std::uint64_t letters = 1 + random.below(4);
            for (std::size_t k = 0; k < length; ++k) {
                piece += "abcd"[random.below(letters)];
            }
            std::vector<std::int32_t> ids = {-7}; // what is there stays
            bpe.encode(piece, ids);
            REQUIRE(ids.front() == -7);
            ids.erase(ids.begin());
            REQUIRE(ids == plain_encode(merges, piece));
        }
    }
}

TEST_CASE("a piece of a megabyte takes no quadratic time") {
    const Bpe bpe(bytes_as_ids(), {{'a', 'a', 256}, {256, 256, 257}, {257, 257, 258}});
    std::vector<std::int32_t> ids;
    bpe.encode(std::string(1 << 20, 'a'), ids);
    CHECK(ids == std::vector<std::int32_t>((1 << 20) / 8, 258));
}

TEST_CASE("the cache changes nothing") {
    parity::Random random{2};
    const std::vector<Merge> merges = random_merges(random, 60);
    const Bpe bpe(bytes_as_ids(), merges);
    const BytePairEncoder encoder(SplitPattern::gpt2, Bpe(bytes_as_ids(), merges));
    for (int i = 0; i < 3000; ++i) { // far more words than a repetition would need, lengths around the cache's limits
        std::string text;
        for (std::uint64_t words = random.below(12); words > 0; --words) {
            text += std::string(random.below(2), ' ');
            for (std::uint64_t length = 1 + random.below(30); length > 0; --length) {
                text += "abcd"[random.below(4)];
            }
        }
        std::vector<std::int32_t> ids, expected;
        encoder.encode(text, ids);
        for_each_piece(SplitPattern::gpt2, text, [&](std::string_view piece) { bpe.encode(piece, expected); });
        REQUIRE(ids == expected);
    }
}

TEST_CASE("the cache's keys tell pieces apart") {
    using namespace std::string_literals;
    std::vector<std::string> pieces;
    for (std::size_t length = 1; length <= detail::WordKey::longest; ++length) {
        for (std::size_t place = 0; place < length; ++place) {
            for (const char other : "\0b"s) {
                pieces.push_back(std::string(length, 'a'));
                pieces.back()[place] = other;
            }
        }
    }
    pieces.push_back(std::string(detail::WordKey::longest, '\0'));
    for (const std::string& a : pieces) {
        const std::string inside = a + "and what follows in the text";
        const auto key = detail::word_key(a, a.size());
        REQUIRE(key == detail::word_key(std::string_view(inside).substr(0, a.size()), inside.size()));
        for (const std::string& b : pieces) {
            REQUIRE((key == detail::word_key(b, b.size())) == (a == b));
        }
    }
}

TEST_CASE("ids outside the table's range are refused") {
    CHECK_THROWS_AS(Bpe(bytes_as_ids(), {{'a', -1, 256}}), OptionError);
    CHECK_THROWS_AS(Bpe(bytes_as_ids(), {{'a', 'b', max_token_id_count}}), OptionError);
    CHECK_THROWS_AS(Bpe(bytes_as_ids(), std::vector<Merge>((1u << 20) - 1, Merge{1, 2, 3})), OptionError);
}
