// The exceptions of the library. Everything it throws on purpose derives from lowrank::Error.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

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

/// One part of a message, its type forgotten, so that a message costs little code where it is put together.
struct MessagePart {
    const void* value;
    void (*append)(std::string& out, const void* value);
};

template <class Value>
void append_value(std::string& out, const void* pointer) {
    const Value& value = *static_cast<const Value*>(pointer);
    if constexpr (std::is_same_v<Value, bool>) {
        out += value ? "true" : "false";
    } else if constexpr (std::is_same_v<Value, char>) {
        out += value;
    } else if constexpr (std::is_arithmetic_v<Value>) {
        out += std::to_string(value);
    } else if constexpr (std::is_convertible_v<const Value&, std::string_view>) {
        out += std::string_view(value);
    } else {
        out += value.str();
    }
}

[[gnu::cold]] inline std::string join(const MessagePart* parts, std::size_t count) {
    std::string out;
    for (std::size_t i = 0; i < count; ++i) {
        parts[i].append(out, parts[i].value);
    }
    return out;
}

inline void append_text(std::string& out, const void* text) {
    out += static_cast<const char*>(text);
}

template <class Value>
MessagePart message_part(const Value& value) {
    if constexpr (std::is_convertible_v<const Value&, const char*>) {
        return {static_cast<const char*>(value), append_text}; // one function for literals of every length
    } else {
        return {&value, append_value<Value>};
    }
}

} // namespace detail

/// Joins its arguments (strings, numbers, anything with `.str()`) into one string: for messages of errors.
template <class... Parts>
std::string concat(const Parts&... parts) {
    const detail::MessagePart all[] = {detail::message_part(parts)...};
    return detail::join(all, sizeof...(parts));
}

} // namespace lowrank
