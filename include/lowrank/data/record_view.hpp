// Access to a record's columns by role, with errors that name file, line, key, what was found and what was expected.
#pragma once

#include <string>
#include <string_view>

#include "lowrank/core/error.hpp"
#include "lowrank/data/columns.hpp"
#include "lowrank/data/records.hpp"
#include "lowrank/io/json_reader.hpp"

namespace lowrank {

/// The keys of an object for messages: "a", "b", the first twelve.
inline std::string describe_keys(const json& object) {
    std::string keys;
    std::size_t shown = 0;
    for (const auto& item : object.items()) {
        if (++shown > 12) {
            return keys + ", …";
        }
        keys += concat(keys.empty() ? "" : ", ", in_quotes(item.key()));
    }
    return keys.empty() ? "none" : keys;
}

/// One record, read by role. Refers to its arguments, which must outlive it.
class RecordView {
  public:
    RecordView(const json& record, const Columns& columns, const Place& place)
        : record_(record),
          columns_(columns),
          place_(place) {}

    const json& value() const { return record_; }
    const Place& place() const { return place_; }

    /// Throws FileError: what was found under the column of `role`, and what was expected.
    [[noreturn]] void refuse(std::string_view role, std::string_view found, std::string_view expected) const {
        throw FileError(concat(place_, ": key '", columns_.column(role), "': found ", found, ", expected ", expected));
    }

    /// The value of a column that must be there.
    const json& require(std::string_view role) const {
        if (!record_.is_object()) {
            throw FileError(concat(place_, ": found ", JsonReader::describe(record_), ", expected an object"));
        }
        const auto found = record_.find(columns_.column(role));
        if (found == record_.end()) {
            refuse(role, concat("no such key (the record has ", describe_keys(record_), ")"), concat("the ", role));
        }
        return *found;
    }

    /// The value of a column that may be absent or null: nullptr then. A column that was renamed must be there, so that
    /// a misspelt `--columns` is not ignored.
    const json* find(std::string_view role) const {
        if (!columns_.is_renamed(role) && (!record_.is_object() || !record_.contains(columns_.column(role)))) {
            return nullptr;
        }
        const json& value = require(role);
        return value.is_null() ? nullptr : &value;
    }

    /// The text of a column that must be there.
    std::string text(std::string_view role) const { return as_text(role, require(role)); }

    /// The text of a column that may be absent or null: empty then.
    std::string text_or_empty(std::string_view role) const {
        const json* value = find(role);
        return value == nullptr ? std::string() : as_text(role, *value);
    }

  private:
    std::string as_text(std::string_view role, const json& value) const {
        if (!value.is_string()) {
            refuse(role, JsonReader::describe(value), "a string");
        }
        return value.get<std::string>();
    }

    const json& record_;
    const Columns& columns_;
    const Place& place_;
};

} // namespace lowrank
