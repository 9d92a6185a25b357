// BLEU of a corpus, equal to sacreBLEU's: tokenization 13a, exponential smoothing.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// A score and what it is made of.
struct BleuScore {
    double score = 0;                      ///< 0 to 100
    std::array<double, 4> precisions{};    ///< of the n-grams of 1 to 4 tokens, in percent, smoothed
    std::array<std::int64_t, 4> correct{}; ///< n-grams that a reference has, too
    std::array<std::int64_t, 4> total{};   ///< n-grams
    double brevity_penalty = 0;
    std::int64_t hypothesis_length = 0; ///< tokens
    std::int64_t reference_length = 0;  ///< of the references closest in length
};

struct BleuOptions {
    bool effective_order = false; ///< leave out orders without n-grams, as sacreBLEU's sentence score does
};

namespace detail {

/// The size of the whitespace character (by Python's str.isspace) at the beginning of `text`; 0 where there is none.
inline std::size_t leading_space(std::string_view text) {
    const auto at = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    if (text.empty()) {
        return 0;
    }
    if (at(0) == ' ' || (at(0) >= 0x09 && at(0) <= 0x0D) || (at(0) >= 0x1C && at(0) <= 0x1F)) {
        return 1;
    }
    if (at(0) == 0xC2 && (at(1) == 0x85 || at(1) == 0xA0)) { // U+0085, U+00A0
        return 2;
    }
    for (const std::string_view space :
         {"\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009",
          "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"}) {
        if (text.starts_with(space)) {
            return space.size();
        }
    }
    return 0;
}

/// The words between whitespace, as Python's str.split().
inline std::vector<std::string> split_words(std::string_view text) {
    std::vector<std::string> words;
    std::string word;
    const auto end_word = [&] {
        if (!word.empty()) {
            words.push_back(std::exchange(word, {}));
        }
    };
    while (!text.empty()) {
        if (const std::size_t space = leading_space(text)) {
            end_word();
            text.remove_prefix(space);
        } else {
            word += text.front();
            text.remove_prefix(1);
        }
    }
    end_word();
    return words;
}

inline void replace_all(std::string& text, std::string_view from, std::string_view to) {
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
        text.replace(at, from.size(), to);
    }
}

/// Puts spaces where two neighbours match: pairs do not overlap, as with re.sub. `joined(a, b)` is what replaces them.
template <class Matches, class Joined>
std::string replace_pairs(const std::string& text, const Matches& matches, const Joined& joined) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (i + 1 < text.size() && matches(text[i], text[i + 1])) {
            out += joined(text[i], text[i + 1]);
            ++i;
        } else {
            out += text[i];
        }
    }
    return out;
}

} // namespace detail

/// The tokens of a line of UTF-8 by mteval-v13a, as sacreBLEU's tokenizer "13a" finds them.
inline std::vector<std::string> bleu_tokens(std::string_view line) {
    std::string text(line);
    for (std::size_t end = text.size(); end > 0;) { // Python's rstrip: from the end, character by character
        std::size_t begin = end - 1;
        while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
            --begin;
        }
        if (detail::leading_space(std::string_view(text).substr(begin, end - begin)) != end - begin) {
            break;
        }
        text.resize(begin);
        end = begin;
    }
    detail::replace_all(text, "<skipped>", "");
    detail::replace_all(text, "-\n", "");
    detail::replace_all(text, "\n", " ");
    if (text.find('&') != std::string::npos) {
        detail::replace_all(text, "&quot;", "\"");
        detail::replace_all(text, "&amp;", "&");
        detail::replace_all(text, "&lt;", "<");
        detail::replace_all(text, "&gt;", ">");
    }
    std::string spaced = " ";
    for (const char c : text) {
        const bool symbol = (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
                            (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
        spaced += symbol ? std::string{' ', c, ' '} : std::string(1, c);
    }
    spaced += ' ';
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto stop = [](char c) { return c == '.' || c == ','; };
    spaced = detail::replace_pairs(
        spaced, [&](char a, char b) { return !digit(a) && stop(b); },
        [](char a, char b) {
            return std::string{a, ' ', b, ' '};
        });
    spaced = detail::replace_pairs(
        spaced, [&](char a, char b) { return stop(a) && !digit(b); },
        [](char a, char b) {
            return std::string{' ', a, ' ', b};
        });
    spaced = detail::replace_pairs(
        spaced, [&](char a, char b) { return digit(a) && b == '-'; },
        [](char a, char b) {
            return std::string{a, ' ', b, ' '};
        });
    return detail::split_words(spaced);
}

/// BLEU of `hypotheses`, each against one or more references. Source: Papineni et al., 2002; Post, 2018 (sacreBLEU).
/// Throws OptionError when a hypothesis has no reference or their numbers differ.
inline BleuScore corpus_bleu(const std::vector<std::string>& hypotheses,
                             const std::vector<std::vector<std::string>>& references, const BleuOptions& options = {}) {
    using Counts = std::map<std::vector<std::string>, std::int64_t>;
    constexpr std::size_t orders = 4;
    if (hypotheses.size() != references.size()) {
        throw OptionError(
            concat("BLEU: found ", hypotheses.size(), " hypotheses and references for ", references.size()));
    }
    const auto count_ngrams = [](const std::vector<std::string>& tokens) {
        Counts counts;
        for (std::size_t n = 1; n <= orders; ++n) {
            for (std::size_t i = 0; i + n <= tokens.size(); ++i) {
                const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(i);
                ++counts[std::vector<std::string>(begin, begin + static_cast<std::ptrdiff_t>(n))];
            }
        }
        return counts;
    };
    BleuScore result;
    for (std::size_t i = 0; i < hypotheses.size(); ++i) {
        if (references[i].empty()) {
            throw OptionError(concat("BLEU: hypothesis ", i, " has no reference"));
        }
        const std::vector<std::string> tokens = bleu_tokens(hypotheses[i]);
        const auto length = static_cast<std::int64_t>(tokens.size());
        Counts most;               // of each n-gram in any one reference
        std::int64_t closest = -1; // length; of two equally close ones the shorter
        for (const std::string& reference : references[i]) {
            const std::vector<std::string> reference_tokens = bleu_tokens(reference);
            const auto other = static_cast<std::int64_t>(reference_tokens.size());
            const std::int64_t distance = std::abs(other - length), least = std::abs(closest - length);
            if (closest < 0 || distance < least || (distance == least && other < closest)) {
                closest = other;
            }
            for (const auto& [ngram, count] : count_ngrams(reference_tokens)) {
                std::int64_t& known = most[ngram];
                known = std::max(known, count);
            }
        }
        for (const auto& [ngram, count] : count_ngrams(tokens)) {
            result.total[ngram.size() - 1] += count;
            if (const auto it = most.find(ngram); it != most.end()) {
                result.correct[ngram.size() - 1] += std::min(count, it->second);
            }
        }
        result.hypothesis_length += length;
        result.reference_length += closest;
    }

    const auto hypothesis = static_cast<double>(result.hypothesis_length);
    const auto reference = static_cast<double>(result.reference_length);
    result.brevity_penalty = hypothesis >= reference ? 1 : hypothesis > 0 ? std::exp(1 - reference / hypothesis) : 0;
    if (std::all_of(result.correct.begin(), result.correct.end(), [](std::int64_t count) { return count == 0; })) {
        return result;
    }
    double smoothing = 1, logarithms = 0;
    std::size_t order = 0;
    for (; order < orders && result.total[order] > 0; ++order) {
        const auto total = static_cast<double>(result.total[order]);
        if (result.correct[order] == 0) {
            smoothing *= 2;
            result.precisions[order] = 100 / (smoothing * total);
        } else {
            result.precisions[order] = 100 * static_cast<double>(result.correct[order]) / total;
        }
        logarithms += std::log(result.precisions[order]);
    }
    if (order == orders || options.effective_order) {
        result.score = result.brevity_penalty * std::exp(logarithms / static_cast<double>(order));
    }
    return result;
}

} // namespace lowrank
