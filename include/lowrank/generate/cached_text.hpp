// CachedText: a text with the keys and values of the tokens that a model has seen, so that only new ones cost.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/models/gpt2.hpp"
#include "lowrank/ops/cast.hpp"

namespace lowrank {

/// The tokens of a text that grows at its end, and what a model has computed of them. Movable, not copyable.
template <class T, DeviceTag D = Cpu>
class CachedText {
  public:
    /// Empty, with memory for the keys and values of `capacity` tokens.
    CachedText(const Gpt2<T, D>& model, std::int64_t capacity) : caches_(model.make_caches(capacity)) {}

    std::span<const std::int32_t> ids() const { return ids_; }
    /// How many of the tokens, from the first, the model has seen.
    std::int64_t seen() const { return seen_; }

    void push(std::int32_t id) { ids_.push_back(id); }

    /// Makes `ids` the text. Of what it begins with, the part that the model has seen in the same place is not computed
    /// again; its last token always is, for its logits are wanted.
    void assign(std::vector<std::int32_t> ids) {
        const auto common = std::mismatch(ids_.begin(), ids_.begin() + seen_, ids.begin(), ids.end()).second;
        const auto last = std::max<std::ptrdiff_t>(std::ssize(ids) - 1, 0);
        seen_ = std::min<std::int64_t>(common - ids.begin(), last);
        ids_ = std::move(ids);
        for (KeyValueCache<T, D>& cache : caches_) {
            cache.truncate(seen_);
        }
    }

    /// The logits behind the last token of each text, one text after the other. The texts, which have equally many
    /// tokens that the model has not seen, at least one, go through it together; each gets the bits that it gets
    /// alone. Throws ShapeError for texts that do not fit.
    static std::vector<float> logits(const Gpt2<T, D>& model, std::span<CachedText* const> texts) {
        std::vector<std::int32_t> unseen;
        std::vector<KeyValueCaches<T, D>*> caches;
        for (CachedText* text : texts) {
            unseen.insert(unseen.end(), text->ids_.begin() + text->seen_, text->ids_.end());
            caches.push_back(&text->caches_);
        }
        const std::int64_t rows = std::ssize(texts), length = std::ssize(unseen) / std::max<std::int64_t>(rows, 1);
        for (const CachedText* text : texts) {
            if (length == 0 || std::ssize(text->ids_) - text->seen_ != length) {
                throw ShapeError(concat("generate: texts with ", std::ssize(text->ids_) - text->seen_, " and ", length,
                                        " new tokens, expected equal numbers above 0"));
            }
        }
        const NoGrad no_grad;
        const Tensor<T, D> states = model.hidden(Tensor<std::int32_t, D>::from(unseen, {rows, length}), {}, caches);
        for (CachedText* text : texts) {
            text->seen_ += length;
        }
        return cast<float>(model.logits(slice(states, 1, length - 1, length))).to_vector();
    }

  private:
    std::vector<std::int32_t> ids_;
    KeyValueCaches<T, D> caches_;
    std::int64_t seen_ = 0;
};

} // namespace lowrank
