// Splitting a JSON list or JSON Lines into records, one at a time, each with its line and number.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "lowrank/core/error.hpp"
#include "lowrank/io/json.hpp"

namespace lowrank {

/// The place of a record, for messages. Both numbers count from 1.
struct Place {
    const std::string* file;
    std::size_t line;
    std::size_t record;

    std::string str() const { return concat(*file, ": line ", line, ", record ", record); }
};

namespace detail {

inline std::size_t skip_json_space(std::string_view text, std::size_t at) {
    return std::min(text.find_first_not_of(" \t\r\n", at), text.size());
}

/// The end of the JSON value that starts at `at`: the first comma or closing bracket outside of it, or the end of the
/// text. Knows strings and brackets only; whether the value is well-formed is for the parser to say.
inline std::size_t end_of_json_value(std::string_view text, std::size_t at) {
    for (std::size_t depth = 0; at < text.size(); ++at) {
        const char c = text[at];
        if (c == '"') {
            for (++at; at < text.size() && text[at] != '"'; ++at) {
                at += text[at] == '\\';
            }
        } else if (c == '[' || c == '{') {
            ++depth;
        } else if (c == ']' || c == '}') {
            if (depth-- == 0) {
                return at;
            }
        } else if (c == ',' && depth == 0) {
            return at;
        }
    }
    return text.size();
}

} // namespace detail

/// Calls visit(place, json) for each record of `text`, in order: the elements of a list when the text begins with '[',
/// otherwise one record a line (JSON Lines; blank lines are skipped). Only one record is in memory as JSON at a time.
/// Throws FileError as parse_json does, with the line in the file, and for a file without records.
template <class Visit>
void for_each_record(const std::string& file, std::string_view text, Visit&& visit) {
    std::size_t at = 0;
    Place place{&file, 1, 1};
    const auto advance = [&](std::size_t to) {
        const std::string_view passed = text.substr(at, to - at);
        place.line += static_cast<std::size_t>(std::count(passed.begin(), passed.end(), '\n'));
        at = to;
    };
    advance(detail::skip_json_space(text, 0));
    const bool is_list = text.substr(at).starts_with('[');
    const auto parse = [&](std::string_view record) {
        try {
            return parse_json(record, file, place.line);
        } catch (const FileError& error) {
            if (is_list) {
                throw;
            }
            throw FileError(concat(error.what(), " (a file that does not begin with '[' holds one record a line)"));
        }
    };
    const auto pass = [&](std::size_t end) {
        const json record = parse(text.substr(at, end - at));
        visit(std::as_const(place), record);
        ++place.record;
    };
    if (at == text.size()) {
        throw FileError(concat(file, ": found only white space, expected records"));
    }
    if (!is_list) {
        while (at < text.size()) {
            pass(std::min(text.find('\n', at), text.size()));
            advance(std::min(text.find('\n', at), text.size()));
            advance(detail::skip_json_space(text, at));
        }
        return;
    }
    advance(detail::skip_json_space(text, at + 1));
    if (at < text.size() && text[at] == ']') {
        throw FileError(concat(file, ": found an empty list, expected records"));
    }
    for (bool last = false; !last;) {
        const std::size_t end = detail::end_of_json_value(text, at);
        if (end == at && at < text.size()) { // "[{…},]"
            throw FileError(
                concat(file, ": line ", place.line, ": found '", text[at], "', expected record ", place.record));
        }
        pass(end);
        advance(end);
        if (at == text.size() || text[at] == '}') {
            throw FileError(concat(file, ": line ", place.line, ": found ",
                                   at == text.size() ? "the end of the file" : "'}'", " after record ",
                                   place.record - 1, ", expected ',' or ']'"));
        }
        last = text[at] == ']';
        advance(detail::skip_json_space(text, at + 1));
    }
    if (at != text.size()) {
        throw FileError(concat(file, ": line ", place.line, ": found text after the list, expected nothing"));
    }
}

} // namespace lowrank
