#include "number.hpp"

#include <charconv>
#include <cstdint>
#include <type_traits>

#include <fmt/core.h>

namespace examples {

template <class Number>
std::optional<Number> read_number(const std::string& text, Number low, Number high) {
    Number value{};
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool fits = read.ec == std::errc() && read.ptr == text.data() + text.size() && value >= low && value <= high;
    return fits ? std::optional(value) : std::nullopt;
}

template <class Number>
CLI::Validator number(Number low, Number high) {
    const auto check = [low, high](std::string& text) -> std::string {
        if (read_number(text, low, high)) {
            return "";
        }
        const char* kind = std::is_integral_v<Number> ? "an integer" : "a number";
        return high < std::numeric_limits<Number>::max()
                   ? fmt::format("found '{}', expected {} from {} to {}", text, kind, low, high)
               : low > std::numeric_limits<Number>::lowest()
                   ? fmt::format("found '{}', expected {} of {} or more", text, kind, low)
                   : fmt::format("found '{}', expected {}", text, kind);
    };
    return CLI::Validator(check, "");
}

template std::optional<std::int64_t> read_number(const std::string&, std::int64_t, std::int64_t);
template std::optional<double> read_number(const std::string&, double, double);
template CLI::Validator number(int, int);
template CLI::Validator number(std::int64_t, std::int64_t);
template CLI::Validator number(std::uint64_t, std::uint64_t);
template CLI::Validator number(double, double);

} // namespace examples
