// The formats of records: which columns each one needs, and how a record becomes segments of text.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/conversation.hpp"
#include "lowrank/data/record_view.hpp"
#include "lowrank/text/text_template.hpp"

namespace lowrank {

/// The text of a row.
using RowText = std::vector<Segment>;

/// One format: the roles that its columns play, and how a record becomes text. A new format is a new entry of
/// record_formats().
struct RecordFormat {
    std::string_view name;
    std::vector<std::string_view> required, optional;
    /// The texts of the rows that a record gives; null where the record holds tokens.
    std::vector<RowText> (*rows)(const RecordView& record, const TextTemplate& text_template) = nullptr;
    bool is_templated = false; ///< a template puts text around the record's own
    /// A document may be longer than a row: it continues in the next one, where other rows are truncated.
    bool is_document = false;

    bool has_role(std::string_view role) const {
        return std::find(required.begin(), required.end(), role) != required.end() ||
               std::find(optional.begin(), optional.end(), role) != optional.end();
    }
};

namespace detail {

inline void check_input(const RecordView& record, const std::string& input, const TextTemplate& text_template) {
    if (!input.empty() && !text_template.takes_input()) {
        record.refuse("input", "an input", "none, because the prompt template has no {input}");
    }
}

inline std::vector<RowText> instruction_rows(const RecordView& record, const TextTemplate& text_template) {
    const std::string input = record.text_or_empty("input");
    check_input(record, input, text_template);
    return {text_template.training_segments(record.text("instruction"), input, record.text("output"))};
}

/// Self-instruct's tasks: one instruction with several inputs and outputs.
inline std::vector<RowText> task_rows(const RecordView& record, const TextTemplate& text_template) {
    const std::string instruction = record.text("instruction");
    const json& instances = record.require("instances");
    if (!instances.is_array() || instances.empty()) {
        record.refuse("instances", instances.is_array() ? "an empty list" : JsonReader::describe(instances),
                      "a list of objects with input and output");
    }
    std::vector<RowText> rows;
    for (const json& instance : instances) {
        if (!instance.is_object()) {
            record.refuse("instances", concat(JsonReader::describe(instance), " as instance ", rows.size() + 1),
                          "an object with input and output");
        }
        const Columns own_names;
        const RecordView view(instance, own_names, record.place());
        const std::string input = view.text_or_empty("input");
        check_input(view, input, text_template);
        rows.push_back(text_template.training_segments(instruction, input, view.text("output")));
    }
    return rows;
}

inline std::vector<RowText> conversation_rows(const RecordView& record, std::string_view role,
                                              const TextTemplate& text_template) {
    if (!text_template.chat()) {
        throw OptionError(concat(record.place(), ": found a conversation, but the template has texts for instructions "
                                                 "only, expected a template with texts for the turns of a chat"));
    }
    std::vector<ChatTurn> turns = read_turns(record, role);
    if (const std::string system = record.text_or_empty("system"); !system.empty()) {
        turns.insert(turns.begin(), {ChatRole::system, system});
    }
    const bool has_system =
        std::any_of(turns.begin(), turns.end(), [](const ChatTurn& turn) { return turn.role == ChatRole::system; });
    if (has_system && !text_template.chat()->takes_system()) {
        record.refuse(role, "a system turn", "none, because the template has no text for it");
    }
    return {text_template.chat()->training_segments(turns)};
}

inline std::vector<RowText> message_rows(const RecordView& record, const TextTemplate& text_template) {
    return conversation_rows(record, "messages", text_template);
}

inline std::vector<RowText> from_value_rows(const RecordView& record, const TextTemplate& text_template) {
    return conversation_rows(record, "conversations", text_template);
}

inline std::vector<RowText> completion_rows(const RecordView& record, const TextTemplate&) {
    return {{{record.text("prompt")}, {record.text("completion"), true, true}}};
}

inline std::vector<RowText> text_rows(const RecordView& record, const TextTemplate&) {
    const bool bare = record.value().is_string(); // a list of strings
    return {{{bare ? record.value().get<std::string>() : record.text("text"), true, true}}};
}

} // namespace detail

/// All formats. Of those whose required columns a file's first record has, the first one is taken.
inline const std::vector<RecordFormat>& record_formats() {
    static const std::vector<RecordFormat> formats = {
        {"pre-tokenized", {"input_ids"}, {"labels"}},
        {"messages", {"messages"}, {"system"}, detail::message_rows, true},
        {"conversations", {"conversations"}, {"system"}, detail::from_value_rows, true},
        {"instruction", {"instruction", "output"}, {"input"}, detail::instruction_rows, true},
        {"tasks", {"instruction", "instances"}, {}, detail::task_rows, true},
        {"prompt/completion", {"prompt", "completion"}, {}, detail::completion_rows},
        {"text", {"text"}, {}, detail::text_rows, false, true},
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
