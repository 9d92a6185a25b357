// Typed reading of a JSON object such as config.json, with errors that name file, key, what was found and expected.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/json.hpp"

namespace lowrank {

/// A JSON object and the name of the file it came from. Getters throw FileError, such as
/// `config.json: key 'n_head': found "twelve" (string), expected an integer >= 1`. A key whose value is null counts as
/// absent. The reader remembers which keys it was asked for, so that the unknown ones can be reported.
class JsonReader {
  public:
    using Integer = std::int64_t;
    static constexpr Integer lowest = std::numeric_limits<Integer>::min();
    static constexpr Integer highest = std::numeric_limits<Integer>::max();

    /// Reads the file `path`; throws FileError where it is not a JSON object.
    static JsonReader open(const std::filesystem::path& path) { return {read_json(path), path.string()}; }

    /// Takes a document; `file` is its name in messages. Throws FileError where it is not an object.
    JsonReader(json document, std::string file)
        : document_(std::make_shared<const json>(std::move(document))),
          object_(document_.get()),
          file_(std::move(file)) {
        if (!object_->is_object()) {
            throw FileError(concat(file_, ": found ", describe(*object_), ", expected a JSON object"));
        }
    }

    const std::string& file() const { return file_; }

    /// The value of `key`, or null where it is absent or null.
    const json* find(const std::string& key) {
        asked_.insert(key);
        const auto it = object_->find(key);
        return it == object_->end() || it->is_null() ? nullptr : &*it;
    }
    bool has(const std::string& key) { return find(key) != nullptr; }

    Integer get_integer(const std::string& key, Integer min = lowest, Integer max = highest) {
        const json& value = required(key, [&] { return integer_in(min, max); });
        const bool fits = value.is_number_integer() &&
                          (!value.is_number_unsigned() || value.get<std::uint64_t>() <= std::uint64_t(highest));
        if (!fits || value.get<Integer>() < min || value.get<Integer>() > max) {
            fail(key, describe(value), integer_in(min, max));
        }
        return value.get<Integer>();
    }
    Integer get_integer_or(const std::string& key, Integer fallback, Integer min = lowest, Integer max = highest) {
        return has(key) ? get_integer(key, min, max) : fallback;
    }

    /// A finite number in [min, max]; integers are numbers too.
    double get_number(const std::string& key, double min = -std::numeric_limits<double>::infinity(),
                      double max = std::numeric_limits<double>::infinity()) {
        const json& value = required(key, [&] { return number_in(min, max); });
        if (!value.is_number() || value.get<double>() < min || value.get<double>() > max) {
            fail(key, describe(value), number_in(min, max));
        }
        return value.get<double>();
    }
    double get_number_or(const std::string& key, double fallback, double min = -std::numeric_limits<double>::infinity(),
                         double max = std::numeric_limits<double>::infinity()) {
        return has(key) ? get_number(key, min, max) : fallback;
    }

    bool get_bool(const std::string& key) { return typed(key, &json::is_boolean, "true or false").get<bool>(); }
    bool get_bool_or(const std::string& key, bool fallback) { return has(key) ? get_bool(key) : fallback; }

    std::string get_string(const std::string& key) {
        return typed(key, &json::is_string, "a string").get<std::string>();
    }
    std::string get_string_or(const std::string& key, std::string fallback) {
        return has(key) ? get_string(key) : std::move(fallback);
    }

    /// A list of strings.
    std::vector<std::string> get_strings(const std::string& key) {
        std::vector<std::string> strings;
        for (const json& value : typed(key, &json::is_array, "a list of strings")) {
            if (!value.is_string()) {
                fail(key, concat(describe(value), " at position ", strings.size()), "a list of strings");
            }
            strings.push_back(value.get<std::string>());
        }
        return strings;
    }

    /// The object under `key`; its own keys appear in messages as 'key.inner'.
    JsonReader get_object(const std::string& key) {
        const json& value = typed(key, &json::is_object, "an object");
        return {document_, &value, file_, concat(prefix_, key, ".")};
    }

    /// Throws FileError "<file>: key '<key>': found <found>, expected <expected>", for checks beyond those here.
    [[noreturn]] void fail(const std::string& key, std::string_view found, std::string_view expected) const {
        throw FileError(concat(file_, ": key '", prefix_, key, "': found ", found, ", expected ", expected));
    }

    /// All keys, sorted.
    std::vector<std::string> keys() const {
        std::vector<std::string> names;
        for (auto it = object_->begin(); it != object_->end(); ++it) {
            names.push_back(it.key());
        }
        return names;
    }

    /// The keys that nobody asked for, sorted: to name and ignore, or to refuse.
    std::vector<std::string> unread_keys() const {
        std::vector<std::string> names = keys();
        std::erase_if(names, [&](const std::string& key) { return asked_.contains(key); });
        return names;
    }

    /// A value as messages show it: `"twelve" (string)`, `3.5 (number)`, `a list`.
    static std::string describe(const json& value) {
        switch (value.type()) {
        case json::value_t::null: return "null";
        case json::value_t::object: return "an object";
        case json::value_t::array: return "a list";
        case json::value_t::string: return in_quotes(value.get_ref<const std::string&>()) + " (string)";
        default: return concat(value.dump(), " (", value.type_name(), ")");
        }
    }

  private:
    JsonReader(std::shared_ptr<const json> document, const json* object, std::string file, std::string prefix)
        : document_(std::move(document)),
          object_(object),
          file_(std::move(file)),
          prefix_(std::move(prefix)) {}

    template <class Expected>
    const json& required(const std::string& key, const Expected& expected) {
        const json* value = find(key);
        if (value == nullptr) {
            fail(key, object_->contains(key) ? "null" : "no such key", expected());
        }
        return *value;
    }

    const json& typed(const std::string& key, bool (json::*is)() const noexcept, const char* expected) {
        const json& value = required(key, [&] { return expected; });
        if (!(value.*is)()) {
            fail(key, describe(value), expected);
        }
        return value;
    }

    static std::string integer_in(Integer min, Integer max) {
        return concat("an integer", interval(json(min), json(max), min != lowest, max != highest));
    }
    static std::string number_in(double min, double max) {
        constexpr double infinity = std::numeric_limits<double>::infinity();
        return concat("a number", interval(json(min), json(max), min != -infinity, max != infinity));
    }
    static std::string interval(const json& min, const json& max, bool has_min, bool has_max) {
        if (has_min && has_max) {
            return concat(" from ", min.dump(), " to ", max.dump());
        }
        return has_min ? " >= " + min.dump() : has_max ? " <= " + max.dump() : "";
    }

    std::shared_ptr<const json> document_; // shared with the readers of inner objects
    const json* object_;
    std::string file_;
    std::string prefix_;
    std::set<std::string> asked_;
};

} // namespace lowrank
