// A frozen matrix in NF4: half a byte and a share of a scale for each number.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "lowrank/core/parallel.hpp"
#include "lowrank/quant/nf4_decode.hpp"
#include "lowrank/quant/nf4_dot.hpp"
#include "lowrank/quant/nf4_quantize.hpp"
#include "lowrank/tensor/weight.hpp"

namespace lowrank {

/// What an NF4 matrix of n numbers consists of. The numbers lie in the order [out, in].
template <DeviceTag D>
struct Nf4Parts {
    Tensor<std::uint8_t, D> codes;        ///< [nf4_bytes(n), 1]
    Tensor<float, D> absmax;              ///< [nf4_blocks(n)]; undefined where scales are quantized, and then:
    Tensor<std::uint8_t, D> absmax_codes; ///< [nf4_blocks(n)]
    Tensor<float, D> nested_absmax;       ///< [⌈nf4_blocks(n) / nested_block⌉]
    Tensor<float, D> nested_map;          ///< [256]
    float offset = 0;
    DType type = DType::f32;

    bool is_nested() const { return !absmax.defined(); }
};

/// A frozen matrix in NF4.
template <DeviceTag D>
class Nf4Weight;

/// On the host it decodes the blocks that it is asked for; nothing decoded is kept. A template, so that a program which
/// has no NF4 compiles none of it: compilers guess the target of a virtual call.
template <DeviceTag D>
requires std::same_as<D, Cpu>
class Nf4Weight<D> final : public Weight<Cpu> {
  public:
    /// Throws ShapeError where the parts are not those of a matrix [out, in], OptionError for another type.
    Nf4Weight(Nf4Parts<Cpu> parts, std::int64_t out, std::int64_t in, Orientation orientation)
        : Weight<Cpu>(out, in, orientation, "NF4"),
          parts_(std::move(parts)) {
        require_nf4_type(parts_.type);
        const std::int64_t blocks = nf4_blocks(out * in);
        require("codes", parts_.codes, nf4_bytes(out * in));
        if (parts_.is_nested()) {
            require("scales", parts_.absmax_codes, blocks);
            require("scales of scales", parts_.nested_absmax, nested_blocks(blocks));
            require("map of scales", parts_.nested_map, 256);
            view_.scales = {nullptr, parts_.absmax_codes.data(), parts_.nested_absmax.data(), parts_.nested_map.data(),
                            parts_.offset};
        } else {
            require("scales", parts_.absmax, blocks);
            view_.scales.absmax = parts_.absmax.data();
        }
        view_.codes = parts_.codes.data();
        view_.type = parts_.type;
    }

    /// Quantizes a matrix. Only a few of its rows are decoded at a time.
    static std::shared_ptr<const Nf4Weight> quantized(const Weight<Cpu>& from, const Nf4Options& options) {
        const std::int64_t out = from.out(), in = from.in(), blocks = nf4_blocks(out * in);
        Nf4Parts<Cpu> parts;
        parts.type = options.type.value_or(from.storage() == name_of(DType::bf16)  ? DType::bf16
                                           : from.storage() == name_of(DType::f16) ? DType::f16
                                                                                   : DType::f32);
        require_nf4_type(parts.type);
        parts.codes = Tensor<std::uint8_t>::empty({nf4_bytes(out * in), 1});
        parts.absmax = Tensor<float>::empty({blocks});
        std::uint8_t* codes = parts.codes.mutable_data();
        float* scales = parts.absmax.mutable_data();
        parallel_chunks(out, nf4_block, [&](std::int64_t begin, std::int64_t end) { // a whole number of blocks
            std::vector<float> rows(static_cast<std::size_t>((end - begin) * in));
            from.read({begin, end - begin, 0, in, in, 1}, rows.data());
            round(rows, parts.type);
            quantize_nf4(rows.data(), static_cast<std::int64_t>(rows.size()), codes + begin * in / 2,
                         scales + begin * in / nf4_block);
        });
        if (options.double_quantization) {
            const Tensor<float> absmax = std::exchange(parts.absmax, {});
            parts.absmax_codes = Tensor<std::uint8_t>::empty({blocks});
            parts.nested_absmax = Tensor<float>::empty({nested_blocks(blocks)});
            parts.nested_map = Tensor<float>::map(dynamic_map.data(), {256}, nullptr);
            parts.offset = quantize_scales(absmax.data(), blocks, parts.absmax_codes.mutable_data(),
                                           parts.nested_absmax.mutable_data());
        }
        return std::make_shared<Nf4Weight>(std::move(parts), out, in, from.orientation());
    }

    const Nf4Parts<Cpu>& parts() const { return parts_; }
    Orientation layout() const override { return Orientation::out_in; }
    std::size_t bytes() const override {
        const auto count = static_cast<std::size_t>(parts_.codes.numel());
        return parts_.is_nested()
                   ? count + static_cast<std::size_t>(parts_.absmax_codes.numel() + 4 * parts_.nested_absmax.numel())
                   : count + static_cast<std::size_t>(4 * parts_.absmax.numel());
    }

    using Weight<Cpu>::read; // into double: through float
    void read(const WeightBlock& block, float* destination) const override { decode(block, destination); }
    void read(const WeightBlock& block, bf16* destination) const override { decode(block, destination); }

    /// Four rows: there each of the codes is read once and decoded in registers. More are faster in blocks.
    std::int64_t most_rows() const override { return in() % nf4_block == 0 ? 4 : 0; }
    void multiply_rows(const float* x, std::int64_t rows, float* y) const override {
        const std::vector<float> arranged = arranged_for_nf4(x, rows, in());
        detail::with_nf4_type(parts_.type, [&]<class S>(std::type_identity<S>) {
            parallel_chunks(out(), 64, [&](std::int64_t begin, std::int64_t end) {
                multiply_nf4_rows<S>(view_, in(), begin, end - begin, arranged.data(), rows, y + begin, out());
            });
        });
    }

  private:
    template <class T>
    static void require(const char* what, const Tensor<T>& part, std::int64_t count) {
        if (!part.defined() || part.numel() != count || !part.is_contiguous()) {
            throw ShapeError(concat("NF4 weight: ", what, ": found ", part.defined() ? part.numel() : 0,
                                    " in a row, expected ", count));
        }
    }

    static void round(std::vector<float>& values, DType type) {
        if (type == DType::bf16) {
            std::transform(values.begin(), values.end(), values.begin(), [](float x) { return float(bf16(x)); });
        } else if (type == DType::f16) {
            std::transform(values.begin(), values.end(), values.begin(), [](float x) { return float(fp16(x)); });
        }
    }

    template <class T>
    void decode(const WeightBlock& b, T* destination) const {
        detail::with_nf4_type(parts_.type, [&]<class S>(std::type_identity<S>) {
            if (b.in_stride == 1) {
                decode_nf4_rows<S>(view_, in(), b.out, b.out_count, b.in, b.in_count, destination, b.out_stride);
            } else if (b.out_stride == 1 && in() % 8 == 0 && b.in % 8 == 0) {
                decode_nf4_columns<S>(view_, in(), b.out, b.out_count, b.in, b.in_count, destination, b.in_stride);
            } else {
                std::vector<T> row(static_cast<std::size_t>(b.in_count));
                for (std::int64_t o = 0; o < b.out_count; ++o) {
                    decode<T>({b.out + o, 1, b.in, b.in_count, 0, 1}, row.data());
                    for (std::int64_t i = 0; i < b.in_count; ++i) {
                        destination[o * b.out_stride + i * b.in_stride] = row[static_cast<std::size_t>(i)];
                    }
                }
            }
        });
    }

    Nf4Parts<Cpu> parts_;
    Nf4View view_;
};

} // namespace lowrank
