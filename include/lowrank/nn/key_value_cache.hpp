// The keys and values of past tokens, kept for generation, and the attention of new tokens to them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "lowrank/ops/attention.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// Keys and values of one layer for one text, [1, capacity, heads, head_dim], filled from the front. Not part of a
/// graph.
template <class T, DeviceTag D>
class KeyValueCache {
  public:
    KeyValueCache(std::int64_t capacity, std::int64_t heads, std::int64_t head_dim)
        : keys_(Tensor<T, D>::empty({1, capacity, heads, head_dim})),
          values_(Tensor<T, D>::empty({1, capacity, heads, head_dim})) {}

    KeyValueCache(const KeyValueCache&) = delete; // a copy would write into the same memory
    KeyValueCache& operator=(const KeyValueCache&) = delete;
    KeyValueCache(KeyValueCache&&) noexcept = default;
    KeyValueCache& operator=(KeyValueCache&&) noexcept = default;

    std::int64_t length() const { return length_; }
    std::int64_t capacity() const { return keys_.size(1); }

    /// Adds the keys and values [1, length, heads, head_dim] of the next tokens. Throws ShapeError when they do not
    /// fit.
    void append(const Tensor<T, D>& keys, const Tensor<T, D>& values) {
        const std::int64_t count = keys.rank() == 4 ? keys.size(1) : 0;
        if (keys.shape() != Shape{1, count, keys_.size(2), keys_.size(3)} || values.shape() != keys.shape() ||
            length_ + count > capacity()) {
            throw ShapeError(concat("key-value cache of shape ", keys_.shape(), " with ", length_,
                                    " positions used: keys ", keys.shape(), " and values ", values.shape(),
                                    " do not fit"));
        }
        write(keys_, keys);
        write(values_, values);
        length_ += count;
    }

    /// The keys and values of all tokens so far, [1, length, heads, head_dim], as views.
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

/// One layer's caches of the texts that are the rows of a batch; none without caches.
template <class T, DeviceTag D>
using RowCaches = std::span<KeyValueCache<T, D>* const>;

/// attention() of the next tokens of several texts: q [batch, length, heads, head_dim] and k, v [batch, length,
/// kv_heads, head_dim] give [batch, length, heads · head_dim]. The keys and values of row b join caches[b], all of
/// which the row sees. The pasts may differ in length; each row gets the bits that it gets alone. Throws ShapeError for
/// another number of caches than of rows, and as append and attention do.
template <class T, DeviceTag D>
Tensor<T, D> cached_attention(const Tensor<T, D>& q, const Tensor<T, D>& k, const Tensor<T, D>& v,
                              RowCaches<T, D> caches, AttentionOptions<D> options) {
    if (static_cast<std::int64_t>(caches.size()) != q.size(0)) {
        throw ShapeError(concat("cached attention: ", caches.size(), " caches for q ", q.shape()));
    }
    const Tensor<std::int32_t, D> document_start = options.document_start;
    std::vector<Tensor<T, D>> rows;
    for (std::int64_t b = 0; b < q.size(0); ++b) {
        KeyValueCache<T, D>& cache = *caches[static_cast<std::size_t>(b)];
        cache.append(slice(k, 0, b, b + 1), slice(v, 0, b, b + 1));
        if (document_start.defined()) {
            options.document_start = slice(document_start, 0, b, b + 1);
        }
        rows.push_back(attention(slice(q, 0, b, b + 1), cache.keys(), cache.values(), options));
    }
    return rows.size() == 1 ? rows.front() : concat(rows, 0);
}

} // namespace lowrank
