// A storage of the tests' own: rows of int8 with a scale each. The library knows nothing of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lowrank/tensor/weight.hpp"

namespace lowrank::testing {

class Int8Weight final : public Weight<Cpu> {
  public:
    /// Each row of `weight` rounded to 255 levels.
    explicit Int8Weight(const Weight<Cpu>& weight)
        : Weight<Cpu>(weight.out(), weight.in(), weight.orientation(), "INT8") {
        std::vector<float> row(static_cast<std::size_t>(in()));
        for (std::int64_t o = 0; o < out(); ++o) {
            weight.read({o, 1, 0, in(), in(), 1}, row.data());
            float largest = 1e-30f;
            for (const float value : row) {
                largest = std::max(largest, std::abs(value));
            }
            scales_.push_back(largest / 127);
            for (const float value : row) {
                values_.push_back(static_cast<std::int8_t>(std::lround(value / scales_.back())));
            }
        }
    }

    std::size_t bytes() const override { return values_.size() + scales_.size() * sizeof(float); }

    using Weight<Cpu>::read;
    void read(const WeightBlock& b, float* destination) const override {
        for (std::int64_t o = 0; o < b.out_count; ++o) {
            for (std::int64_t i = 0; i < b.in_count; ++i) {
                const auto at = static_cast<std::size_t>((b.out + o) * in() + b.in + i);
                destination[o * b.out_stride + i * b.in_stride] =
                    scales_[static_cast<std::size_t>(b.out + o)] * static_cast<float>(values_[at]);
            }
        }
    }

  private:
    std::vector<float> scales_;       // [out]
    std::vector<std::int8_t> values_; // [out, in]
};

} // namespace lowrank::testing
