// What the parity tests share: the hash, the pseudo-random texts and the fixture of tests/scripts/text_fixtures.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/text/unicode.hpp"

namespace parity {

/// 64-bit FNV-1a over 32-bit values.
struct Hash {
    std::size_t count = 0;
    std::uint64_t value = 0xcbf29ce484222325u;

    template <class Values>
    void add(const Values& values) {
        for (const auto v : values) {
            step(static_cast<std::uint32_t>(v));
            ++count;
        }
        step(0xffffffffu);
    }
    void add_bytes(std::string_view bytes) { add(std::vector<unsigned char>(bytes.begin(), bytes.end())); }

    bool operator==(const Hash&) const = default;

  private:
    void step(std::uint32_t v) { value = (value ^ v) * 0x100000001b3u; }
};

/// A line of text_hashes.txt: what Hugging Face gives for a file of this name or a block of this number.
struct Expected {
    std::string name;
    Hash hash;

    std::uint64_t block() const { return std::stoull(name); }
};

/// The lines of one kind.
inline std::vector<Expected> expected(const std::string& kind) {
    std::ifstream file(LOWRANK_TEST_FIXTURES "/text_hashes.txt");
    std::vector<Expected> lines;
    for (std::string of, hex; file >> of;) {
        Expected line;
        file >> line.name >> line.hash.count >> hex;
        line.hash.value = std::stoull(hex, nullptr, 16);
        if (of == kind) {
            lines.push_back(line);
        }
    }
    return lines;
}

/// splitmix64
struct Random {
    std::uint64_t state;

    std::uint64_t below(std::uint64_t n) {
        std::uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return (z ^ (z >> 31)) % n;
    }
};

inline constexpr std::size_t strings_of_a_block = 128;

inline std::string random_string(Random& random) {
    static constexpr const char* fragments[] = {" ",
                                                "  ",
                                                "\n",
                                                "\n\n",
                                                "\t",
                                                "\r\n",
                                                "\u00a0",
                                                "\u3000",
                                                "\u0085",
                                                "\u200b",
                                                "'",
                                                "'s",
                                                "'re",
                                                "'ll",
                                                "'S",
                                                "don't",
                                                "the",
                                                " and",
                                                "1",
                                                "23",
                                                "\u00bd",
                                                "\u00e9",
                                                "e\u0301",
                                                "\u4e2d\u6587",
                                                "\U0001f642",
                                                "\U0001f469\u200d\U0001f467",
                                                "!",
                                                "...",
                                                "<|endoftext|>",
                                                "<|endof",
                                                "\u212a",
                                                "\u017f"};
    std::string text;
    const std::uint64_t items = 1 + random.below(24);
    for (std::uint64_t i = 0; i < items; ++i) {
        const std::uint64_t kind = random.below(8);
        if (kind < 5) {
            text += fragments[random.below(std::size(fragments))];
        } else if (kind < 7) {
            constexpr std::uint64_t limits[] = {0x3000, 0xf800, 0x10f800};
            const std::uint64_t limit = limits[random.below(3)];
            const auto code = static_cast<char32_t>(random.below(limit));
            lowrank::append_utf8(text, code < 0xd800 ? code : code + 0x800);
        } else {
            const std::uint64_t letters = 1 + random.below(7);
            const std::uint64_t length = 1 + random.below(120);
            for (std::uint64_t k = 0; k < length; ++k) {
                text += "etaonis"[random.below(letters)];
            }
        }
    }
    return text;
}

inline std::vector<std::string> block_of_strings(std::uint64_t block) {
    Random random{block};
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < strings_of_a_block; ++i) {
        texts.push_back(random_string(random));
    }
    return texts;
}

inline std::vector<std::vector<std::int32_t>> block_of_ids(std::uint64_t block, std::int32_t vocabulary) {
    Random random{1000 + block};
    std::vector<std::vector<std::int32_t>> lists(strings_of_a_block);
    for (std::vector<std::int32_t>& ids : lists) {
        const std::uint64_t count = 1 + random.below(12);
        for (std::uint64_t k = 0; k < count; ++k) {
            ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary))));
        }
    }
    return lists;
}

/// Each code point of a block of 4096 in several contexts.
inline std::vector<std::string> block_of_code_points(std::uint64_t block) {
    std::vector<std::string> texts;
    for (char32_t code = static_cast<char32_t>(block * 4096); code < (block + 1) * 4096; ++code) {
        if (code >= 0xd800 && code < 0xe000) {
            continue;
        }
        std::string c;
        lowrank::append_utf8(c, code);
        for (std::string text : {c, "a" + c + "b", " " + c, c + c, "1" + c, c + " ", "'" + c, "!" + c + "!"}) {
            texts.push_back(std::move(text));
        }
    }
    return texts;
}

} // namespace parity
