// Strict JSON from untrusted text: duplicate keys and deep nesting are refused, and errors name file, line and column.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/read_text.hpp"

namespace lowrank {

using json = nlohmann::json;

/// `text` in quotation marks for a message: control characters escaped, at most 200 bytes of it.
inline std::string in_quotes(std::string_view text) {
    constexpr std::size_t limit = 200;
    const json shown = std::string(text.substr(0, limit));
    return shown.dump(-1, ' ', false, json::error_handler_t::replace) + (text.size() > limit ? "…" : "");
}

namespace detail {

/// Characters whose reading position can be seen from outside, for the events of nlohmann's parser carry none.
class TrackedIterator {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    TrackedIterator(const char* at, const char** seen) : at_(at), seen_(seen) {}
    reference operator*() const { return *at_; }
    TrackedIterator& operator++() {
        *seen_ = ++at_;
        return *this;
    }
    TrackedIterator operator++(int) {
        const TrackedIterator old = *this;
        ++*this;
        return old;
    }
    bool operator==(const TrackedIterator& other) const { return at_ == other.at_; }

  private:
    const char* at_;
    const char** seen_;
};

/// Builds the document from the parser's events, and refuses what is not allowed as soon as it is met.
class JsonBuilder final : public nlohmann::json_sax<json> {
  public:
    // As in serde_json, which reads safetensors and tokenizer files. It also bounds the recursion of json's functions.
    static constexpr std::size_t max_depth = 128;

    JsonBuilder(std::string_view text, std::string file, std::size_t first_line)
        : text_(text),
          seen_(text.data()),
          file_(std::move(file)),
          first_line_(first_line) {}

    json build() {
        const char* end = text_.data() + text_.size();
        if (const auto zero = text_.find('\0'); zero != std::string_view::npos) {
            seen_ = text_.data() + zero + 1;
            fail("found a zero byte, expected JSON text"); // nlohmann would take it for the end
        }
        json::sax_parse(TrackedIterator(text_.data(), &seen_), TrackedIterator(end, &seen_), this);
        return std::move(root_);
    }

    bool null() override { return place(nullptr); }
    bool boolean(bool value) override { return place(value); }
    bool number_integer(number_integer_t value) override { return place(value); }
    bool number_unsigned(number_unsigned_t value) override { return place(value); }
    bool number_float(number_float_t value, const string_t&) override { return place(value); }
    bool string(string_t& value) override { return place(std::move(value)); }
    bool binary(binary_t&) override { return false; } // not in text
    bool start_object(std::size_t) override { return open(json::object()); }
    bool start_array(std::size_t) override { return open(json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }

    bool key(string_t& name) override {
        const auto slot = open_.back()->emplace(name, nullptr);
        if (!slot.second) {
            fail(concat("key ", in_quotes(name), " appears twice in one object"));
        }
        slot_ = &*slot.first;
        return true;
    }

    bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
        // "[json.exception.parse_error.101] parse error at line 1, column 2: <what>; last read: '<untrusted>'"
        std::string_view what = error.what();
        what.remove_prefix(std::min(what.find("] ") + 2, what.size()));
        if (what.starts_with("parse error")) {
            what.remove_prefix(std::min(what.find(": ") + 2, what.size()));
        }
        fail(what.substr(0, std::min<std::size_t>(what.find("; last read"), 200)));
    }

  private:
    [[noreturn]] void fail(std::string_view what) const {
        const std::size_t read = static_cast<std::size_t>(seen_ - text_.data());
        const std::string_view before = text_.substr(0, read == 0 ? 0 : read - 1); // what precedes the last one read
        const auto line = first_line_ + static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n'));
        const auto column = before.size() - (before.rfind('\n') + 1) + 1; // npos + 1 is 0
        throw FileError(concat(file_, ": line ", line, ", column ", column, ": ", what));
    }

    bool place(json&& value) {
        insert(std::move(value));
        return true;
    }

    json* insert(json&& value) {
        if (open_.empty()) {
            root_ = std::move(value);
            return &root_;
        }
        if (open_.back()->is_array()) {
            open_.back()->push_back(std::move(value));
            return &open_.back()->back();
        }
        *slot_ = std::move(value);
        return slot_;
    }

    bool open(json&& empty) {
        if (open_.size() == max_depth) {
            fail(concat("found more than ", max_depth, " nested arrays and objects"));
        }
        open_.push_back(insert(std::move(empty)));
        return true;
    }

    bool close() {
        open_.pop_back();
        return true;
    }

    std::string_view text_;
    const char* seen_;
    std::string file_;
    std::size_t first_line_;
    json root_;
    std::vector<json*> open_; // the containers around the current position
    json* slot_ = nullptr;    // where the value of the key just read goes
};

} // namespace detail

/// The JSON document `text`. `file` and `first_line` (of a line of JSON Lines) say in messages where it came from.
/// Throws FileError for anything that RFC 8259 does not allow, ill-formed UTF-8, numbers beyond double, a key twice
/// in one object and more than 128 levels of nesting. A byte order mark at the beginning is skipped.
inline json parse_json(std::string_view text, const std::string& file, std::size_t first_line = 1) {
    return detail::JsonBuilder(text, file, first_line).build();
}

/// The JSON document in the file `path`, at most `limit` bytes; throws FileError as read_text and parse_json do.
inline json read_json(const std::filesystem::path& path, std::size_t limit = max_text_bytes) {
    return parse_json(read_text(path, limit), path.string());
}

} // namespace lowrank
