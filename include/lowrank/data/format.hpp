// The formats of records: which columns each one needs, and how a record becomes segments of text.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/record_view.hpp"
#include "lowrank/text/template.hpp"

namespace lowrank {

/// A piece of a row's text. Pieces are tokenized separately and joined.
struct Segment {
    std::string text;
    bool supervised = false; ///< the model learns to write it
    bool ends = false;       ///< the end-of-sequence token follows it
};

/// One format: the roles that its columns play, and how a record becomes text. A new format is a new entry of
/// record_formats().
struct RecordFormat {
    std::string_view name;
    std::vector<std::string_view> required, optional;
    /// The text of a record; null where the record holds tokens.
    std::vector<Segment> (*segments)(const RecordView& record, const PromptTemplate& prompt) = nullptr;
    /// A document may be longer than a row: it continues in the next one, where other rows are truncated.
    bool is_document = false;

    bool has_role(std::string_view role) const {
        return std::find(required.begin(), required.end(), role) != required.end() ||
               std::find(optional.begin(), optional.end(), role) != optional.end();
    }
};

namespace detail {

inline std::vector<Segment> instruction_segments(const RecordView& record, const PromptTemplate& prompt) {
    const std::string input = record.text_or_empty("input");
    if (!input.empty() && !prompt.takes_input()) {
        record.refuse("input", "an input", "none, because the prompt template has no {input}");
    }
    return {{prompt.render(record.text("instruction"), input), false, false}, {record.text("output"), true, true}};
}

inline std::vector<Segment> completion_segments(const RecordView& record, const PromptTemplate&) {
    return {{record.text("prompt"), false, false}, {record.text("completion"), true, true}};
}

inline std::vector<Segment> text_segments(const RecordView& record, const PromptTemplate&) {
    const bool bare = record.value().is_string(); // a list of strings
    return {{bare ? record.value().get<std::string>() : record.text("text"), true, true}};
}

} // namespace detail

/// All formats. Of those whose required columns a file's first record has, the first one is taken.
inline const std::vector<RecordFormat>& record_formats() {
    static const std::vector<RecordFormat> formats = {
        {"pre-tokenized", {"input_ids"}, {"labels"}},
        {"instruction", {"instruction", "output"}, {"input"}, detail::instruction_segments},
        {"prompt/completion", {"prompt", "completion"}, {}, detail::completion_segments},
        {"text", {"text"}, {}, detail::text_segments, true},
    };
    return formats;
}

/// The format of a file, told from its first record. Renamed columns narrow the choice to formats that have all of
/// their roles. A record that is a bare string is text. Throws FileError when nothing fits, OptionError when no format
/// has all renamed roles.
inline const RecordFormat& detect_format(const json& record, const Columns& columns, const Place& place) {
    if (record.is_string() && columns.renamed().empty()) {
        return record_formats().back();
    }
    if (!record.is_object()) {
        throw FileError(concat(place, ": found ", JsonReader::describe(record), ", expected an object"));
    }
    std::string expected;
    for (const RecordFormat& format : record_formats()) {
        const auto& renamed = columns.renamed();
        if (!std::all_of(renamed.begin(), renamed.end(),
                         [&](const auto& item) { return format.has_role(item.first); })) {
            continue;
        }
        bool fits = true;
        std::string needs;
        for (const auto role : format.required) {
            const std::string key = columns.column(role);
            fits = fits && record.contains(key);
            needs += concat(needs.empty() ? "'" : " and '", key, "'");
        }
        if (fits) {
            return format;
        }
        expected += concat(expected.empty() ? "" : ", or ", needs);
    }
    if (expected.empty()) {
        throw OptionError("columns: found roles of different formats, expected roles that one format has together");
    }
    throw FileError(concat(place, ": found the keys ", describe_keys(record), ", expected ", expected,
                           " (columns can be renamed, such as instruction=question)"));
}

} // namespace lowrank
