// Splitting CSV (RFC 4180) into records, each with its line and number.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/records.hpp"
#include "lowrank/io/json.hpp"

namespace lowrank {

namespace detail {

/// Reads the fields of a CSV text, one record after the other.
class CsvParser {
  public:
    CsvParser(const std::string& file, std::string_view text) : file_(file), text_(text) {}

    /// The line at which the next record begins.
    std::size_t line() const { return line_; }

    /// Passes empty lines. False at the end of the text.
    bool has_record() {
        while (at_ < text_.size() && end_of_line()) {
        }
        return at_ < text_.size();
    }

    std::vector<std::string> record() {
        std::vector<std::string> fields;
        for (;;) {
            fields.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
            if (at_ == text_.size() || end_of_line()) {
                return fields;
            }
            ++at_; // a comma
        }
    }

  private:
    [[noreturn]] void fail(std::size_t line, std::string_view what) const {
        throw FileError(concat(file_, ": line ", line, ": ", what));
    }

    /// Passes a line end, LF or CRLF, where one stands.
    bool end_of_line() {
        const std::size_t length = text_.substr(at_).starts_with("\r\n") ? 2 : text_[at_] == '\n' ? 1 : 0;
        at_ += length;
        line_ += length > 0;
        return length > 0;
    }

    std::string plain() {
        const std::size_t begin = at_;
        at_ = std::min(text_.find_first_of(",\n\"", at_), text_.size());
        if (at_ < text_.size() && text_[at_] == '"') {
            fail(line_, "found a quote inside a field without quotes, expected the whole field in quotes, and quotes "
                        "in it doubled");
        }
        const bool crlf = at_ < text_.size() && text_[at_] == '\n' && at_ > begin && text_[at_ - 1] == '\r';
        at_ -= crlf; // for end_of_line
        return std::string(text_.substr(begin, at_ - begin));
    }

    std::string quoted() {
        const std::size_t first_line = line_;
        std::string field;
        for (++at_;; ++at_) {
            const std::size_t quote = text_.find('"', at_);
            if (quote == text_.npos) {
                fail(first_line, "found a quote that is not closed before the end of the file, expected another");
            }
            const std::string_view part = text_.substr(at_, quote - at_);
            line_ += static_cast<std::size_t>(std::count(part.begin(), part.end(), '\n'));
            field += part;
            at_ = quote + 1;
            if (at_ == text_.size() || text_[at_] != '"') {
                break;
            }
            field += '"';
        }
        const bool ends =
            at_ == text_.size() || text_[at_] == ',' || text_[at_] == '\n' || text_.substr(at_).starts_with("\r\n");
        if (!ends) {
            fail(line_, concat("found ", in_quotes(text_.substr(at_, 1)),
                               " behind a closing quote, expected ',' or "
                               "the end of the line (quotes in a field are doubled)"));
        }
        return field;
    }

    const std::string& file_;
    std::string_view text_;
    std::size_t at_ = 0;
    std::size_t line_ = 1;
};

} // namespace detail

/// Calls visit(place, json) for each record of a CSV text, as an object of strings under the names in its first line.
/// Fields are separated by commas, lines end with LF or CRLF, and a field in quotes may hold commas, line ends (kept as
/// they are) and doubled quotes. Empty lines are passed over. A record's place is the line on which it begins.
///
/// Throws FileError with the line for a quote where none may stand or that is not closed, a record with more or fewer
/// fields than the first line, a column without a name or with that of another, and a text without records.
template <class Visit>
void for_each_csv_record(const std::string& file, std::string_view text, Visit&& visit) {
    detail::CsvParser parser(file, text);
    if (!parser.has_record()) {
        throw FileError(concat(file, ": found only empty lines, expected the names of columns and records"));
    }
    const std::size_t header = parser.line();
    const std::vector<std::string> names = parser.record();
    json record = json::object();
    for (const std::string& name : names) {
        if (name.empty() || !record.emplace(name, "").second) {
            throw FileError(
                concat(file, ": line ", header, ": found ",
                       name.empty() ? "a column without a name" : concat("the column ", in_quotes(name), " twice"),
                       ", expected the names of columns, each once"));
        }
    }
    Place place{&file, 0, 0};
    while (parser.has_record()) {
        place.line = parser.line();
        ++place.record;
        std::vector<std::string> fields = parser.record();
        if (fields.size() != names.size()) {
            throw FileError(concat(place, ": found ", fields.size(), " fields, expected ", names.size(),
                                   ", one for each column of line ", header,
                                   " (fields with commas or line ends are put in quotes)"));
        }
        for (std::size_t i = 0; i < names.size(); ++i) {
            record[names[i]] = std::move(fields[i]);
        }
        visit(std::as_const(place), std::as_const(record));
    }
    if (place.record == 0) {
        throw FileError(
            concat(file, ": line ", header, ": found the names of columns and no record, expected records"));
    }
}

} // namespace lowrank
