// Generation: tokens one by one, each from the logits of the last, with the keys and values of the past kept.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/generate/sampler.hpp"
#include "lowrank/models/gpt2.hpp"
#include "lowrank/ops/cast.hpp"

namespace lowrank {

/// Why generation ended.
enum class StopReason { eos, max_new_tokens, n_positions, callback };

/// Continues `prompt` (at least one token) by at most `max_new_tokens` tokens. `on_token(id)` receives each as it is
/// chosen and returns whether to go on; the end-of-sequence token ends generation and is not handed out. Throws
/// ShapeError for an empty prompt, one that leaves no position, or an id outside the vocabulary.
template <class T, DeviceTag D>
StopReason generate(const Gpt2<T, D>& model, std::span<const std::int32_t> prompt, std::int64_t max_new_tokens,
                    std::optional<std::int32_t> eos, Sampler& sampler,
                    const std::function<bool(std::int32_t)>& on_token) {
    const std::int64_t positions = model.config.n_positions;
    if (prompt.empty() || static_cast<std::int64_t>(prompt.size()) > positions) {
        throw ShapeError(
            concat("generate: a prompt of ", prompt.size(), " tokens, expected 1 to n_positions = ", positions));
    }
    const NoGrad no_grad;
    const auto start = static_cast<std::int64_t>(prompt.size());
    const std::int64_t room = std::clamp<std::int64_t>(max_new_tokens, 0, positions - start);
    KeyValueCaches<T, D> caches = model.make_caches(1, start + room);
    std::vector<std::int32_t> past(prompt.begin(), prompt.end()), input = past;
    for (std::int64_t i = 0; i < max_new_tokens; ++i) {
        if (static_cast<std::int64_t>(past.size()) > positions) {
            return StopReason::n_positions;
        }
        const auto length = static_cast<std::int64_t>(input.size());
        const Tensor<T, D> states = model.hidden(Tensor<std::int32_t, D>::from(input, {1, length}), {}, &caches);
        const Tensor<T, D> logits = model.logits(slice(states, 1, length - 1, length));
        const std::int32_t id = sampler.next(cast<float>(logits).to_vector(), past);
        if (eos && id == *eos) {
            return StopReason::eos;
        }
        if (!on_token(id)) {
            return StopReason::callback;
        }
        past.push_back(id);
        input = {id};
    }
    return StopReason::max_new_tokens;
}

} // namespace lowrank
