// Scalar types: which element types exist, how they are called in files, and how the 16-bit ones convert.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

namespace lowrank {

/// bfloat16: the upper half of an IEEE single. Rounds to nearest, ties to even; NaN stays NaN.
struct bf16 {
    std::uint16_t bits = 0;

    bf16() = default;
    constexpr explicit bf16(float value) : bits(round(value)) {}
    constexpr explicit operator float() const { return std::bit_cast<float>(std::uint32_t(bits) << 16); }

  private:
    static constexpr std::uint16_t round(float value) {
        const auto u = std::bit_cast<std::uint32_t>(value);
        if ((u & 0x7fffffffu) > 0x7f800000u) {
            return static_cast<std::uint16_t>((u >> 16) | 0x40u);
        }
        return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
};

/// IEEE half precision, as a storage format only: files hold it, arithmetic happens in float.
struct fp16 {
    std::uint16_t bits = 0;

    fp16() = default;
    constexpr explicit fp16(float value) : bits(round(value)) {}
    constexpr explicit operator float() const {
        const std::uint32_t sign = std::uint32_t(bits & 0x8000u) << 16;
        const std::uint32_t exponent = (bits >> 10) & 0x1fu;
        const std::uint32_t mantissa = bits & 0x3ffu;
        if (exponent == 0) { // zero or subnormal: mantissa · 2^-24
            const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
            return sign ? -magnitude : magnitude;
        }
        if (exponent == 31) {
            return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
        }
        return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
    }

  private:
    static constexpr std::uint16_t round(float value) {
        const auto u = std::bit_cast<std::uint32_t>(value);
        const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
        const std::uint32_t magnitude = u & 0x7fffffffu;
        if (magnitude > 0x7f800000u) {
            return static_cast<std::uint16_t>(sign | 0x7e00u);
        }
        if (magnitude >= 0x477ff000u) { // rounds to infinity
            return static_cast<std::uint16_t>(sign | 0x7c00u);
        }
        if (magnitude < 0x38800000u) { // subnormal: adding 0.5 aligns the last bit at 2^-24 and rounds to even
            const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
            return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3f000000u));
        }
        const std::uint32_t odd = (magnitude >> 13) & 1u;
        return static_cast<std::uint16_t>(sign | ((magnitude + 0xfffu + odd - 0x38000000u) >> 13));
    }
};

/// The element types a tensor or a file may hold.
enum class DType : std::uint8_t { f64, f32, bf16, f16, i64, i32, i16, i8, u8, boolean };

/// Bytes of one element.
constexpr std::size_t size_of(DType type) {
    switch (type) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16:
    case DType::i16: return 2;
    case DType::i8:
    case DType::u8:
    case DType::boolean: return 1;
    }
    return 0;
}

/// The name of an element type as safetensors writes it ("F32", "BF16", …).
constexpr std::string_view name_of(DType type) {
    switch (type) {
    case DType::f64: return "F64";
    case DType::f32: return "F32";
    case DType::bf16: return "BF16";
    case DType::f16: return "F16";
    case DType::i64: return "I64";
    case DType::i32: return "I32";
    case DType::i16: return "I16";
    case DType::i8: return "I8";
    case DType::u8: return "U8";
    case DType::boolean: return "BOOL";
    }
    return "?";
}

namespace detail {
template <class T>
struct DTypeOf;
template <DType type>
struct DTypeIs {
    static constexpr DType value = type;
};
template <>
struct DTypeOf<double> : DTypeIs<DType::f64> {};
template <>
struct DTypeOf<float> : DTypeIs<DType::f32> {};
template <>
struct DTypeOf<lowrank::bf16> : DTypeIs<DType::bf16> {};
template <>
struct DTypeOf<lowrank::fp16> : DTypeIs<DType::f16> {};
template <>
struct DTypeOf<std::int64_t> : DTypeIs<DType::i64> {};
template <>
struct DTypeOf<std::int32_t> : DTypeIs<DType::i32> {};
template <>
struct DTypeOf<std::int16_t> : DTypeIs<DType::i16> {};
template <>
struct DTypeOf<std::int8_t> : DTypeIs<DType::i8> {};
template <>
struct DTypeOf<std::uint8_t> : DTypeIs<DType::u8> {};
template <>
struct DTypeOf<bool> : DTypeIs<DType::boolean> {};

template <class T>
struct ComputeType {
    using type = T;
};
template <>
struct ComputeType<bf16> {
    using type = float;
};
template <>
struct ComputeType<fp16> {
    using type = float;
};
} // namespace detail

/// The run-time tag of a C++ element type.
template <class T>
inline constexpr DType dtype_of = detail::DTypeOf<T>::value;

/// An element type with a fraction part.
template <class T>
concept Floating = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bf16> || std::same_as<T, fp16>;

/// The type in which values of type T are computed, summed and trained: float for 16-bit types, otherwise T itself.
/// Parameters, their gradients, statistics and optimizer state of a model with activations T have this type.
template <class T>
using compute_t = typename detail::ComputeType<T>::type;

/// Converts between element types; 16-bit ones pass through float.
template <class To, class From>
constexpr To convert(From value) {
    if constexpr (std::same_as<To, From>) {
        return value;
    } else {
        return static_cast<To>(static_cast<compute_t<To>>(static_cast<compute_t<From>>(value)));
    }
}

} // namespace lowrank
