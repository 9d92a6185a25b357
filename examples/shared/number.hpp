// Numbers in options: read whole, and checked against their bounds.
#pragma once

#include <limits>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

namespace examples {

/// The number that `text` is, all of it, where it lies between the bounds. For int, std::int64_t, std::uint64_t and
/// double.
template <class Number>
std::optional<Number> read_number(const std::string& text, Number low, Number high);

/// Checks an option's number, of the type that it becomes; for the same types.
template <class Number>
CLI::Validator number(Number low, Number high = std::numeric_limits<Number>::max());

} // namespace examples
