// Generation: tokens one by one, each from the logits of the last; one text, or many side by side.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "lowrank/core/parallel.hpp"
#include "lowrank/generate/cached_text.hpp"
#include "lowrank/generate/sampler.hpp"

namespace lowrank {

/// Why generation ended.
enum class StopReason { eos, max_new_tokens, n_positions, callback };

/// How a batch of texts is continued.
struct BatchOptions {
    std::int64_t max_new_tokens = 100;
    std::optional<std::int32_t> eos{};
    SamplerOptions sampler{}; ///< text i draws from stream i of its seed
    std::size_t batch_size = 8;
};

namespace detail {

/// Throws ShapeError for a prompt that cannot be continued.
inline void check_prompt(std::span<const std::int32_t> prompt, std::int64_t positions) {
    if (prompt.empty() || std::ssize(prompt) > positions) {
        throw ShapeError(
            concat("generate: a prompt of ", prompt.size(), " tokens, expected 1 to n_positions = ", positions));
    }
}

/// New memory that holds a prompt and what may follow it.
template <class T, DeviceTag D>
CachedText<T, D> new_text(const Gpt2<T, D>& model, std::span<const std::int32_t> prompt, std::int64_t max_new_tokens) {
    check_prompt(prompt, model.config.n_positions);
    const std::int64_t room = model.config.n_positions - std::ssize(prompt);
    CachedText<T, D> text(model, std::ssize(prompt) + std::clamp<std::int64_t>(max_new_tokens, 0, room));
    text.assign({prompt.begin(), prompt.end()});
    return text;
}

/// A text that is being continued.
template <class T, DeviceTag D>
struct Continuation {
    CachedText<T, D>& text;
    Sampler& sampler;
    std::int64_t left; ///< tokens that may still come
    std::function<bool(std::int32_t)> on_token;

    std::optional<StopReason> end{};

    /// Takes the token chosen next.
    void take(std::int32_t id, std::int64_t positions, std::optional<std::int32_t> eos) {
        if (eos && id == *eos) {
            end = StopReason::eos;
        } else if (!on_token(id)) {
            end = StopReason::callback;
        } else {
            text.push(id);
            end = --left == 0                          ? std::optional(StopReason::max_new_tokens)
                  : std::ssize(text.ids()) > positions ? std::optional(StopReason::n_positions)
                                                       : std::nullopt;
        }
    }
};

/// A row of a batch. It stays where it is, for its continuation refers to it.
template <class T, DeviceTag D>
struct BatchRow {
    std::size_t number;
    CachedText<T, D> text;
    Sampler sampler;
    Continuation<T, D> continuation;

    BatchRow(std::size_t index, CachedText<T, D> prompt, const BatchOptions& options,
             const std::function<bool(std::size_t, std::int32_t)>& on_token)
        : number(index),
          text(std::move(prompt)),
          sampler(options.sampler, static_cast<std::uint32_t>(index)),
          continuation{text, sampler, options.max_new_tokens,
                       [&on_token, index](std::int32_t id) { return on_token(index, id); }} {}
    BatchRow(const BatchRow&) = delete;
    BatchRow& operator=(const BatchRow&) = delete;
};

/// One token for each text.
template <class T, DeviceTag D>
void extend(const Gpt2<T, D>& model, std::span<Continuation<T, D>* const> rows, std::optional<std::int32_t> eos) {
    std::vector<CachedText<T, D>*> texts;
    for (const Continuation<T, D>* row : rows) {
        texts.push_back(&row->text);
    }
    const std::vector<float> logits = CachedText<T, D>::logits(model, texts);
    const std::size_t vocabulary = logits.size() / rows.size();
    std::vector<std::int32_t> chosen(rows.size());
    parallel_for(std::ssize(rows), [&](std::int64_t task) {
        const auto i = static_cast<std::size_t>(task);
        chosen[i] = rows[i]->sampler.next(std::span(logits).subspan(i * vocabulary, vocabulary), texts[i]->ids());
    });
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i]->take(chosen[i], model.config.n_positions, eos);
    }
}

} // namespace detail

/// Continues `text` by at most `max_new_tokens` tokens. `on_token(id)` receives each as it is chosen and returns
/// whether to go on; a token that it accepts is part of `text` then. The end-of-sequence token ends generation and is
/// not handed out. Throws ShapeError for a text that is empty, leaves no position, or is beyond its own capacity, and
/// for an id outside the vocabulary.
template <class T, DeviceTag D>
StopReason generate(const Gpt2<T, D>& model, CachedText<T, D>& text, std::int64_t max_new_tokens,
                    std::optional<std::int32_t> eos, Sampler& sampler,
                    const std::function<bool(std::int32_t)>& on_token) {
    detail::check_prompt(text.ids(), model.config.n_positions);
    detail::Continuation<T, D> row{text, sampler, max_new_tokens, on_token};
    if (max_new_tokens <= 0) {
        return StopReason::max_new_tokens;
    }
    while (!row.end) {
        detail::extend<T, D>(model, std::array{&row}, eos);
    }
    return *row.end;
}

/// Continues `prompt`, as above.
template <class T, DeviceTag D>
StopReason generate(const Gpt2<T, D>& model, std::span<const std::int32_t> prompt, std::int64_t max_new_tokens,
                    std::optional<std::int32_t> eos, Sampler& sampler,
                    const std::function<bool(std::int32_t)>& on_token) {
    CachedText<T, D> text = detail::new_text(model, prompt, max_new_tokens);
    return generate(model, text, max_new_tokens, eos, sampler, on_token);
}

/// Continues many prompts, `batch_size` of them side by side: a step reads the weights once for all. When a text ends,
/// the next prompt takes its place. `on_token(i, id)` receives the tokens of prompt i as they are chosen and returns
/// whether to go on with it; `on_end(i, reason)` says that it ended, and returns whether to go on at all. What a text
/// becomes depends neither on the others nor on batch_size. Throws ShapeError, before anything is computed, for a
/// prompt that is empty or too long, and OptionError for a batch_size of 0.
template <class T, DeviceTag D>
void generate_batch(const Gpt2<T, D>& model, std::span<const std::vector<std::int32_t>> prompts,
                    const BatchOptions& options, const std::function<bool(std::size_t, std::int32_t)>& on_token,
                    const std::function<bool(std::size_t, StopReason)>& on_end) {
    if (options.batch_size == 0) {
        throw OptionError("batch_size: found 0, expected 1 or more");
    }
    for (const std::vector<std::int32_t>& prompt : prompts) {
        detail::check_prompt(prompt, model.config.n_positions);
    }
    std::list<detail::BatchRow<T, D>> rows;
    for (std::size_t next = 0; next < prompts.size() || !rows.empty();) {
        std::vector<detail::Continuation<T, D>*> step;
        if (next < prompts.size() && rows.size() < options.batch_size) { // a prompt goes through the model by itself
            rows.emplace_back(next, detail::new_text(model, std::span(prompts[next]), options.max_new_tokens), options,
                              on_token);
            step.push_back(&rows.back().continuation);
            ++next;
        } else {
            for (detail::BatchRow<T, D>& row : rows) {
                step.push_back(&row.continuation);
            }
        }
        if (options.max_new_tokens > 0) {
            detail::extend<T, D>(model, step, options.eos);
        } else {
            step.front()->end = StopReason::max_new_tokens;
        }
        for (auto row = rows.begin(); row != rows.end();) {
            const auto end = row->continuation.end;
            const std::size_t number = row->number;
            row = end ? rows.erase(row) : std::next(row);
            if (end && !on_end(number, *end)) {
                return;
            }
        }
    }
}

} // namespace lowrank
