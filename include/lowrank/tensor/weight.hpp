// The Weight seam: a frozen matrix of any storage (dense, 16-bit, mapped, quantized), read block by block.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lowrank/core/parallel.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/shape.hpp"
#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/tensor/copy_block.hpp"
#include "lowrank/tensor/tensor.hpp"

namespace lowrank {

/// How the matrix of a weight lies in memory: torch's Linear stores [out, in], GPT-2's Conv1D stores [in, out].
enum class Orientation { out_in, in_out };

/// What a weight is, on any device. Logically it is a matrix W of shape [out, in], and y = x·Wᵀ.
class WeightInfo {
  public:
    WeightInfo(std::int64_t out, std::int64_t in, Orientation orientation, std::string storage)
        : out_(out),
          in_(in),
          orientation_(orientation),
          storage_(std::move(storage)) {}
    virtual ~WeightInfo() = default;

    std::int64_t out() const { return out_; }
    std::int64_t in() const { return in_; }
    Orientation orientation() const { return orientation_; }
    /// The order in which its numbers lie in memory: a storage may have another one than that in which it is saved.
    virtual Orientation layout() const { return orientation_; }
    /// The shape as it is stored and saved: [out, in] or [in, out].
    Shape stored_shape() const { return orientation_ == Orientation::out_in ? Shape{out_, in_} : Shape{in_, out_}; }
    /// How it is stored ("F32", "BF16", "NF4"), for messages and tables.
    const std::string& storage() const { return storage_; }
    /// Bytes that the weight occupies.
    virtual std::size_t bytes() const = 0;
    /// Its numbers in the stored orientation, where they lie in the device's memory as this type; else null.
    virtual const void* dense_values(DType) const { return nullptr; }

  private:
    std::int64_t out_, in_;
    Orientation orientation_;
    std::string storage_;
};

/// A block of W: `out_count` × `in_count` elements from row `out` and column `in`, and where they go:
/// element (o, i) of the block is written at destination[o · out_stride + i · in_stride].
struct WeightBlock {
    std::int64_t out, out_count, in, in_count;
    std::int64_t out_stride, in_stride;
};

namespace detail {

/// sums[o] += block[k, o]² for the rows k of a block, one after the other.
struct AddSquares {
    template <int Width>
    LOWRANK_INLINE static void run(std::int64_t rows, std::int64_t columns, const double* block, double* sums) {
        using V = simd::Vec<double, Width / 2>;
        for (std::int64_t o = 0; o < columns; o += V::size) {
            V sum = simd::load<V>(sums + o);
            for (std::int64_t k = 0; k < rows; ++k) {
                const V value = simd::load<V>(block + k * columns + o);
                sum = sum + value * value;
            }
            simd::store(sum, sums + o);
        }
    }
};

} // namespace detail

/// A frozen matrix on a device. Each device that has matrix kernels specializes this interface with what its kernels
/// read; see Weight<Cpu>.
template <DeviceTag D>
class Weight;

/// A frozen matrix on the host. A storage implements one function, `read` into float; the others have defaults built
/// on it and are overridden where a storage can do better. Called per panel or per tensor, never per element.
template <>
class Weight<Cpu> : public WeightInfo {
  public:
    using WeightInfo::WeightInfo;

    /// Decodes a block.
    virtual void read(const WeightBlock& block, float* destination) const = 0;

    /// Decodes a block into bf16: by default rounded from float.
    virtual void read(const WeightBlock& block, bf16* destination) const { read_through_float(block, destination); }

    /// Decodes a block into double: by default widened from float.
    virtual void read(const WeightBlock& block, double* destination) const { read_through_float(block, destination); }

    /// A hint that the block will be read soon: strides and destination do not matter. By default nothing happens.
    virtual void prefetch(const WeightBlock&) const {}

    /// Up to how many rows of x the storage is faster by `multiply_rows` than by the blocks that it is read in.
    virtual std::int64_t most_rows() const { return 0; }
    /// y[r · out + o] = x[r, :] · W[o, :] for x [rows, in], of at most `most_rows()` rows.
    virtual void multiply_rows(const float* /*x*/, std::int64_t /*rows*/, float* /*y*/) const {}

    /// ‖W[o, :]‖² for every output o, summed in double. Shape [out].
    std::vector<double> row_norms_squared() const {
        return norms_squared(out(), in(), [](std::int64_t o, std::int64_t outs, std::int64_t i, std::int64_t ins) {
            return WeightBlock{o, outs, i, ins, 1, lanes};
        });
    }

    /// ‖W[:, i]‖² for every input i, summed in double. Shape [in].
    std::vector<double> column_norms_squared() const {
        return norms_squared(in(), out(), [](std::int64_t i, std::int64_t ins, std::int64_t o, std::int64_t outs) {
            return WeightBlock{o, outs, i, ins, lanes, 1};
        });
    }

    /// A dense copy in the stored orientation, of shape `stored_shape()`.
    template <class T>
    Tensor<T, Cpu> dense_copy() const {
        Tensor<T, Cpu> copy = Tensor<T, Cpu>::empty(stored_shape());
        const bool rows_are_out = orientation() == Orientation::out_in;
        const WeightBlock all{0, out(), 0, in(), rows_are_out ? in() : 1, rows_are_out ? 1 : out()};
        if constexpr (std::same_as<T, fp16>) {
            read_through_float(all, copy.mutable_data());
        } else {
            read(all, copy.mutable_data());
        }
        return copy;
    }

  private:
    static constexpr std::int64_t lanes = 192, depth = 8; // of a block of 12 KiB

    /// The squared norms of `lines` rows or columns of W, each of `length` numbers; block_of(line, lines, at, length)
    /// is a part of W that is read with its lines side by side.
    template <class BlockOf>
    std::vector<double> norms_squared(std::int64_t lines, std::int64_t length, const BlockOf& block_of) const {
        std::vector<double> norms(static_cast<std::size_t>(lines));
        parallel_chunks(lines, lanes, [&](std::int64_t begin, std::int64_t end) {
            std::array<double, lanes * depth> block{}; // lines that W does not have stay zero
            std::array<double, lanes> sums{};
            for (std::int64_t at = 0; at < length; at += depth) {
                const std::int64_t count = std::min(depth, length - at), next = std::min(at + 2 * depth, length);
                prefetch(block_of(begin, end - begin, next, std::min(depth, length - next)));
                read(block_of(begin, end - begin, at, count), block.data());
                simd::run_for_isa<detail::AddSquares>(count, lanes, block.data(), sums.data());
            }
            std::copy_n(sums.begin(), end - begin, norms.begin() + begin);
        });
        return norms;
    }

    template <class T>
    void read_through_float(const WeightBlock& block, T* destination) const {
        std::vector<float> row(static_cast<std::size_t>(block.in_count));
        for (std::int64_t o = 0; o < block.out_count; ++o) {
            read({block.out + o, 1, block.in, block.in_count, 0, 1}, row.data());
            for (std::int64_t i = 0; i < block.in_count; ++i) {
                destination[o * block.out_stride + i * block.in_stride] = T(row[static_cast<std::size_t>(i)]);
            }
        }
    }
};

/// A frozen matrix held as a dense tensor of S, owned or mapped from a file.
template <class S, DeviceTag D>
class DenseWeight;

template <class S>
class DenseWeight<S, Cpu> final : public Weight<Cpu> {
  public:
    /// `values` of shape [out, in] or [in, out], by `orientation`; contiguous. Throws ShapeError otherwise.
    DenseWeight(Tensor<S, Cpu> values, Orientation orientation)
        : Weight<Cpu>(extent(values, orientation == Orientation::out_in ? 0 : 1),
                      extent(values, orientation == Orientation::out_in ? 1 : 0), orientation,
                      std::string(name_of(dtype_of<S>))),
          values_(values.detach()) {}

    const Tensor<S, Cpu>& values() const { return values_; }
    std::size_t bytes() const override { return static_cast<std::size_t>(values_.numel()) * sizeof(S); }
    const void* dense_values(DType type) const override { return type == dtype_of<S> ? values_.data() : nullptr; }

    void read(const WeightBlock& block, float* destination) const override { copy(block, destination); }
    void read(const WeightBlock& block, bf16* destination) const override { copy(block, destination); }
    void read(const WeightBlock& block, double* destination) const override { copy(block, destination); }
    void prefetch(const WeightBlock& block) const override {
        if (orientation() == Orientation::out_in && block.in_stride == 1) {
            prefetch_rows(values_.data() + block.out * in() + block.in, block.out_count, block.in_count, in());
        } else if (orientation() == Orientation::in_out && block.out_stride == 1) {
            prefetch_rows(values_.data() + block.in * out() + block.out, block.in_count, block.out_count, out());
        }
    }

  private:
    static std::int64_t extent(const Tensor<S, Cpu>& values, int dim) {
        if (values.rank() != 2 || !values.is_contiguous()) {
            throw ShapeError(concat("weight: expected a contiguous matrix, found shape ", values.shape()));
        }
        return values.size(dim);
    }

    template <class T>
    void copy(const WeightBlock& block, T* destination) const {
        if (orientation() == Orientation::out_in) {
            copy_block(block.out_count, block.in_count, values_.data() + block.out * in() + block.in, in(), destination,
                       block.out_stride, block.in_stride);
        } else {
            copy_block(block.in_count, block.out_count, values_.data() + block.in * out() + block.out, out(),
                       destination, block.in_stride, block.out_stride);
        }
    }

    Tensor<S, Cpu> values_;
};

} // namespace lowrank
