// The keys and values of past tokens, kept for generation.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lowrank/ops/views.hpp"

namespace lowrank {

/// Keys and values of one layer, [batch, capacity, heads, head_dim], filled from the front. Not part of a graph.
template <class T, DeviceTag D>
class KeyValueCache {
  public:
    KeyValueCache(std::int64_t batch, std::int64_t capacity, std::int64_t heads, std::int64_t head_dim)
        : keys_(Tensor<T, D>::empty({batch, capacity, heads, head_dim})),
          values_(Tensor<T, D>::empty({batch, capacity, heads, head_dim})) {}

    KeyValueCache(const KeyValueCache&) = delete; // a copy would write into the same memory
    KeyValueCache& operator=(const KeyValueCache&) = delete;
    KeyValueCache(KeyValueCache&&) noexcept = default;
    KeyValueCache& operator=(KeyValueCache&&) noexcept = default;

    std::int64_t length() const { return length_; }
    std::int64_t capacity() const { return keys_.size(1); }

    /// Adds the keys and values [batch, length, heads, head_dim] of the next tokens. Throws ShapeError when they do not
    /// fit.
    void append(const Tensor<T, D>& keys, const Tensor<T, D>& values) {
        const std::int64_t count = keys.rank() == 4 ? keys.size(1) : 0;
        if (keys.shape() != Shape{keys_.size(0), count, keys_.size(2), keys_.size(3)} ||
            values.shape() != keys.shape() || length_ + count > capacity()) {
            throw ShapeError(concat("key-value cache of shape ", keys_.shape(), " with ", length_,
                                    " positions used: keys ", keys.shape(), " and values ", values.shape(),
                                    " do not fit"));
        }
        write(keys_, keys);
        write(values_, values);
        length_ += count;
    }

    /// The keys and values of all tokens so far, [batch, length, heads, head_dim], as views.
    Tensor<T, D> keys() const { return slice(keys_, 1, 0, length_); }
    Tensor<T, D> values() const { return slice(values_, 1, 0, length_); }

    /// Forgets the tokens from position `length` on.
    void truncate(std::int64_t length) { length_ = std::min(length_, length); }

  private:
    void write(Tensor<T, D>& target, const Tensor<T, D>& source) {
        const Tensor<T, D> rows = contiguous(source.detach());
        scatter_strided(D{}, rows.shape(), rows.data(), target.mutable_data() + length_ * target.strides()[1],
                        target.strides());
    }

    Tensor<T, D> keys_, values_;
    std::int64_t length_ = 0;
};

} // namespace lowrank
