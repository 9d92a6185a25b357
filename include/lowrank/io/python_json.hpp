// Writes JSON as Python's json.dumps(value, indent=2, sort_keys=True) does, for files that PEFT and Transformers share.
#pragma once

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>

#include "lowrank/core/error.hpp"
#include "lowrank/io/json.hpp"

namespace lowrank {

namespace detail {

/// A double as Python's repr writes it: the shortest digits that read back equal, "1.0", "1e-05", "1e+16".
inline std::string python_repr(double value) {
    if (!std::isfinite(value)) {
        throw NumericError(concat("cannot write ", value, " as JSON: it has no such number"));
    }
    char buffer[32];
    const auto print = [&](std::chars_format format) {
        return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, value, format).ptr);
    };
    const std::string scientific = print(std::chars_format::scientific);
    const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
    if (exponent < -4 || exponent >= 16) {
        return scientific;
    }
    const std::string fixed = print(std::chars_format::fixed);
    return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

inline void append_python_json(std::string& out, const json& value, std::size_t indent) {
    if (value.is_number_float()) {
        out += python_repr(value.get<double>());
        return;
    }
    if (!value.is_structured() || value.empty()) {
        out += value.dump(-1, ' ', true); // ASCII only
        return;
    }
    const bool object = value.is_object();
    const char* separator = "";
    out += object ? '{' : '[';
    for (auto it = value.begin(); it != value.end(); ++it) {
        out += separator;
        out += '\n';
        out.append(indent + 2, ' ');
        if (object) {
            out += json(it.key()).dump(-1, ' ', true);
            out += ": ";
        }
        append_python_json(out, *it, indent + 2);
        separator = ",";
    }
    out += '\n';
    out.append(indent, ' ');
    out += object ? '}' : ']';
}

} // namespace detail

/// The text that Python's json.dumps(value, indent=2, sort_keys=True) gives, byte by byte. Throws NumericError for
/// an infinity or NaN, and nlohmann's type_error for ill-formed UTF-8.
inline std::string to_python_json(const json& value) {
    std::string out;
    detail::append_python_json(out, value, 0);
    return out;
}

} // namespace lowrank
