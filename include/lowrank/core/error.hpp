// The exceptions of the library. Everything it throws on purpose derives from lowrank::Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lowrank {

/// Base of every exception that the library throws on purpose.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Shapes, ranks or indices that do not fit an operation.
struct ShapeError : Error {
    using Error::Error;
};

/// A file that is missing, unreadable, malformed or of the wrong content, or that cannot be written.
struct FileError : Error {
    using Error::Error;
};

/// An option, setting or argument outside what is allowed.
struct OptionError : Error {
    using Error::Error;
};

/// A misuse of the autograd graph: no graph, a second backward, a saved tensor that was overwritten.
struct AutogradError : Error {
    using Error::Error;
};

/// A value that is not finite where it must be.
struct NumericError : Error {
    using Error::Error;
};

namespace detail {

inline void append(std::string& out, std::string_view text) {
    out += text;
}
inline void append(std::string& out, const char* text) {
    out += text;
}
inline void append(std::string& out, char text) {
    out += text;
}
inline void append(std::string& out, bool value) {
    out += value ? "true" : "false";
}
template <class Value>
requires requires(const Value& v) {
    std::to_string(v);
}
void append(std::string& out, const Value& value) {
    out += std::to_string(value);
}
template <class Value>
requires requires(const Value& v) {
    v.str();
}
void append(std::string& out, const Value& value) {
    out += value.str();
}

} // namespace detail

/// Joins its arguments (strings, numbers, anything with `.str()`) into one string: for messages of errors.
template <class... Parts>
std::string concat(const Parts&... parts) {
    std::string out;
    (detail::append(out, parts), ...);
    return out;
}

} // namespace lowrank
