#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/core/scalar.hpp"

using namespace lowrank;

TEST_CASE("every fp16 value survives the way to float and back") {
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        fp16 half;
        half.bits = static_cast<std::uint16_t>(bits);
        const float value = static_cast<float>(half);
        if (std::isnan(value)) {
            CHECK(std::isnan(static_cast<float>(fp16(value))));
        } else {
            REQUIRE(fp16(value).bits == half.bits);
        }
    }
}

TEST_CASE("every bf16 value survives the way to float and back") {
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        bf16 value;
        value.bits = static_cast<std::uint16_t>(bits);
        const float wide = static_cast<float>(value);
        if (std::isnan(wide)) {
            CHECK(std::isnan(static_cast<float>(bf16(wide))));
        } else {
            REQUIRE(bf16(wide).bits == value.bits);
        }
    }
}

TEST_CASE("16-bit types round to nearest, ties to even") {
    CHECK(static_cast<float>(bf16(1.0f + 0x1p-8f)) == 1.0f);
    CHECK(static_cast<float>(bf16(1.0f + 3 * 0x1p-8f)) == 1.0f + 0x1p-6f);
    CHECK(static_cast<float>(fp16(1.0f + 0x1p-11f)) == 1.0f);
    CHECK(static_cast<float>(fp16(1.0f + 3 * 0x1p-11f)) == 1.0f + 0x1p-9f);
    CHECK(static_cast<float>(fp16(65519.0f)) == 65504.0f);
    CHECK(std::isinf(static_cast<float>(fp16(65520.0f))));
    CHECK(static_cast<float>(fp16(0x1p-25f)) == 0.0f);
    CHECK(static_cast<float>(fp16(0x1.8p-25f)) == 0x1p-24f);
}
