// copy_block against a loop over the elements, for sizes around every vector's, with and without gaps in the target.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "lowrank/tensor/copy_block.hpp"

using namespace lowrank;

namespace {

constexpr float untouched = -7;

template <class From, class To>
std::vector<To> copied(std::int64_t rows, std::int64_t columns, std::int64_t to_row, std::int64_t to_column,
                       bool by_element) {
    const std::int64_t from_row = columns + 3;
    std::vector<From> from;
    for (std::int64_t i = 0; i < rows * from_row; ++i) {
        from.push_back(From(float(i % 97)));
    }
    std::vector<To> to(static_cast<std::size_t>((rows - 1) * to_row + (columns - 1) * to_column + 1 + 16),
                       To(untouched));
    if (by_element) {
        for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t c = 0; c < columns; ++c) {
                to[static_cast<std::size_t>(r * to_row + c * to_column)] =
                    convert<To>(from[static_cast<std::size_t>(r * from_row + c)]);
            }
        }
    } else {
        copy_block(rows, columns, from.data(), from_row, to.data(), to_row, to_column);
    }
    return to;
}

template <class From, class To>
void check_all() {
    for (const std::int64_t rows : {1, 4, 6, 8, 13, 14, 16, 17, 20, 30, 33}) {
        for (const std::int64_t columns : {1, 7, 16, 17, 32, 40, 64}) {
            for (const std::int64_t gap : {0, 1, 5}) {
                CAPTURE(rows);
                CAPTURE(columns);
                CAPTURE(gap);
                CHECK(copied<From, To>(rows, columns, 1, rows + gap, false) ==
                      copied<From, To>(rows, columns, 1, rows + gap, true));
                CHECK(copied<From, To>(rows, columns, columns + gap, 1, false) ==
                      copied<From, To>(rows, columns, columns + gap, 1, true));
            }
        }
    }
}

} // namespace

TEST_CASE("blocks are copied and transposed, and nothing around them is written") {
    check_all<float, float>();
    check_all<bf16, float>();
    check_all<fp16, float>();
    check_all<float, double>();
    check_all<double, double>();
    check_all<std::int32_t, std::int32_t>();
}

TEST_CASE("rows are copied into panels, and the rest of the last panel is left alone") {
    for (const std::int64_t rows : {1, 13, 30}) {
        for (const std::int64_t columns : {1, 15, 16, 17, 40, 64}) {
            for (const std::int64_t panel : {8, 16, 48}) {
                CAPTURE(rows);
                CAPTURE(columns);
                CAPTURE(panel);
                const std::int64_t panels = (columns + panel - 1) / panel, to_panel = rows * panel + 5;
                std::vector<bf16> from;
                for (std::int64_t i = 0; i < rows * (columns + 3); ++i) {
                    from.push_back(bf16(float(i % 97)));
                }
                std::vector<float> to(static_cast<std::size_t>(panels * to_panel), untouched), expected = to;
                for (std::int64_t r = 0; r < rows; ++r) {
                    for (std::int64_t c = 0; c < columns; ++c) {
                        expected[static_cast<std::size_t>(c / panel * to_panel + r * panel + c % panel)] =
                            convert<float>(from[static_cast<std::size_t>(r * (columns + 3) + c)]);
                    }
                }
                copy_panels(rows, columns, from.data(), columns + 3, to.data(), panel, to_panel);
                CHECK(to == expected);
            }
        }
    }
}
