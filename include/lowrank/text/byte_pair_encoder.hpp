// Byte-level BPE of whole texts: splits them into pieces and encodes each, remembering frequent ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/text/bpe.hpp"
#include "lowrank/text/pre_tokenize.hpp"
#include "lowrank/text/word_cache.hpp"

namespace lowrank {

/// Encodes text without special tokens. Threads may share one; copies share their caches.
class BytePairEncoder {
  public:
    BytePairEncoder(SplitPattern pattern, Bpe bpe) : pattern_(pattern), bpe_(std::move(bpe)) {}

    /// Appends the tokens of `text`, which must be well-formed UTF-8.
    void encode(std::string_view text, std::vector<std::int32_t>& ids) const {
        const detail::WordCachePool::Loan loan(*caches_);
        detail::WordCache& cache = *loan;
        for_each_piece(pattern_, text, [&](std::string_view piece) {
            if (piece.size() > detail::WordKey::longest) {
                bpe_.encode(piece, ids);
                return;
            }
            const auto readable = static_cast<std::size_t>(text.data() + text.size() - piece.data());
            const detail::WordKey key = detail::word_key(piece, readable);
            if (!cache.find(key, ids)) {
                const std::size_t first = ids.size();
                bpe_.encode(piece, ids);
                cache.store(key, ids, first);
            }
        });
    }

    const Bpe& bpe() const { return bpe_; }

  private:
    SplitPattern pattern_;
    Bpe bpe_;
    std::shared_ptr<detail::WordCachePool> caches_ = std::make_shared<detail::WordCachePool>();
};

} // namespace lowrank
