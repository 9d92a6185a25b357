// Finds the names that someone who wrote a wrong one may have meant, for messages of errors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lowrank {

/// How many insertions, deletions and replacements of a byte turn `from` into `to` (Levenshtein).
inline std::size_t edit_distance(std::string_view from, std::string_view to) {
    std::vector<std::size_t> row(to.size() + 1);
    for (std::size_t j = 0; j <= to.size(); ++j) {
        row[j] = j;
    }
    for (std::size_t i = 1; i <= from.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= to.size(); ++j) {
            const std::size_t replaced = diagonal + (from[i - 1] == to[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row.back();
}

/// "; similar: a, b, c": the up to three `names` nearest to `wanted`, or "" where there are none. Only the first
/// 10,000 names of at most 256 bytes are compared, so that no input makes this slow.
template <class Names>
std::string similar_names(std::string_view wanted, const Names& names) {
    constexpr std::size_t shown = 3;
    constexpr std::size_t most = 10000;
    constexpr std::size_t longest = 256;
    std::vector<std::pair<std::size_t, std::string_view>> ranked;
    for (const std::string& name : names) {
        if (ranked.size() == most || wanted.size() > longest) {
            break;
        }
        if (name.size() <= longest) {
            ranked.emplace_back(edit_distance(wanted, name), name);
        }
    }
    std::sort(ranked.begin(), ranked.end());
    std::string text;
    for (std::size_t i = 0; i < std::min(shown, ranked.size()); ++i) {
        text += i == 0 ? "; similar: " : ", ";
        text += ranked[i].second;
    }
    return text;
}

} // namespace lowrank
