// GPT-2: token and position embeddings, blocks, a final norm and a head that may be tied to the embedding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/autograd/checkpoint.hpp"
#include "lowrank/models/gpt2_block.hpp"
#include "lowrank/nn/embedding.hpp"
#include "lowrank/nn/positions.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/cross_entropy.hpp"
#include "lowrank/ops/lm_head.hpp"

namespace lowrank {

/// The caches of all layers for one text.
template <class T, DeviceTag D>
using KeyValueCaches = std::vector<KeyValueCache<T, D>>;

/// What Transformers calls GPT2Model: everything below the head.
template <class T, DeviceTag D>
struct Gpt2Transformer {
    Embedding<T, D> wte, wpe;
    std::vector<Gpt2Block<T, D>> h;
    LayerNorm<T, D> ln_f;

    template <class Visit>
    void fields(Visit&& visit) {
        visit("wte", wte);
        visit("wpe", wpe);
        visit("h", h);
        visit("ln_f", ln_f);
    }
};

/// GPT-2 with its language-model head (GPT2LMHeadModel). Paths of its fields are the keys of a checkpoint.
template <class T, DeviceTag D = Cpu>
struct Gpt2 {
    Gpt2Config config;
    Gpt2Transformer<T, D> transformer;
    Linear<T, D> lm_head; ///< without a weight when the head is tied to transformer.wte

    /// The structure of a model, without weights.
    explicit Gpt2(const Gpt2Config& settings) : config(settings) {
        transformer.h.resize(static_cast<std::size_t>(config.n_layer));
        transformer.ln_f.epsilon = config.layer_norm_epsilon;
        for (std::size_t i = 0; i < transformer.h.size(); ++i) {
            Gpt2Block<T, D>& block = transformer.h[i];
            const std::string path = "transformer.h." + std::to_string(i);
            block.ln_1.epsilon = block.ln_2.epsilon = config.layer_norm_epsilon;
            block.attn.heads = config.n_head;
            block.attn.scale =
                config.scale_attn_weights ? 1 / std::sqrt(static_cast<double>(config.n_embd / config.n_head)) : 1;
            if (config.scale_attn_by_inverse_layer_idx) {
                block.attn.scale /= static_cast<double>(i + 1);
            }
            block.attn.attn_site = dropout_site(path + ".attn.attn_dropout");
            block.attn.resid_site = dropout_site(path + ".attn.resid_dropout");
            block.mlp.activation = config.activation_function;
            block.mlp.resid_site = dropout_site(path + ".mlp.dropout");
        }
        set_base_dropout(config.embd_pdrop, config.attn_pdrop, config.resid_pdrop);
    }

    template <class Visit>
    void fields(Visit&& visit) {
        visit("transformer", transformer);
        if (!config.tie_word_embeddings) {
            visit("lm_head", lm_head);
        }
    }

    /// The layers that LoRA adapts unless told otherwise (PEFT's default for gpt2).
    static std::vector<std::string> default_target_modules() { return {"c_attn"}; }
    /// Those that IA3 adapts, and which of them are its feed-forward layers (PEFT's defaults for gpt2).
    static std::pair<std::vector<std::string>, std::vector<std::string>> default_ia3_modules() {
        return {{"c_attn", "mlp.c_proj"}, {"mlp.c_proj"}};
    }
    /// Whether a path is the output head, which "all-linear" leaves out.
    static bool is_head(const std::string& path) { return path == "lm_head"; }

    /// Whether the head reads the table at this path.
    bool is_tied_table(const std::string& path) const {
        return config.tie_word_embeddings && path == "transformer.wte";
    }
    /// Gives the head a matrix of its own; and takes it away again.
    void untie_head(const WeightSlot<compute_t<T>, D>& matrix) { set_tied(false, matrix); }
    void tie_head() { set_tied(true, {}); }

    /// Sets the dropout of the base model in training; zeros turn it off.
    void set_base_dropout(double embd, double attn, double resid) {
        embd_pdrop_ = embd;
        for (Gpt2Block<T, D>& block : transformer.h) {
            block.attn.attn_pdrop = attn;
            block.attn.resid_pdrop = block.mlp.resid_pdrop = resid;
        }
    }

    /// Keep only the blocks' inputs in training, and compute the blocks again in backward.
    bool gradient_checkpointing = false;

    /// The matrix of the head, [vocab_size, n_embd].
    const WeightSlot<compute_t<T>, D>& head() const {
        return config.tie_word_embeddings ? transformer.wte.weight : lm_head.weight;
    }

    /// New caches for a text of at most `capacity` tokens.
    KeyValueCaches<T, D> make_caches(std::int64_t capacity) const {
        KeyValueCaches<T, D> caches;
        for (std::size_t i = 0; i < transformer.h.size(); ++i) { // each its own: copies would share memory
            caches.emplace_back(capacity, config.n_head, config.n_embd / config.n_head);
        }
        return caches;
    }

    /// The final hidden states [batch, length, n_embd] for `ids` [batch, length]. With caches, one set for each row,
    /// the ids of a row follow the tokens that its caches hold, however many these are. Throws ShapeError for a row
    /// longer than n_positions, for an id outside the vocabulary, and for caches or a document_start that do not fit.
    Tensor<T, D> hidden(const Tensor<std::int32_t, D>& ids, const ForwardContext<D>& context = {},
                        std::span<KeyValueCaches<T, D>* const> caches = {}) const {
        if (ids.rank() != 2) {
            throw ShapeError(concat("gpt2: expected ids [batch, length], found ", ids.shape()));
        }
        const std::vector<std::int64_t> past = past_of(caches, ids);
        const std::int64_t longest = past.empty() ? 0 : *std::max_element(past.begin(), past.end());
        if (longest + ids.size(1) > config.n_positions) {
            throw ShapeError(concat("gpt2: a row of ", longest + ids.size(1),
                                    " tokens, expected at most n_positions = ", config.n_positions));
        }
        const Tensor<std::int32_t, D> positions = position_ids("gpt2", ids.shape(), past, context);
        Tensor<T, D> x = transformer.wte.forward(ids, context) + transformer.wpe.forward(positions, context);
        if (context.training && embd_pdrop_ > 0) {
            x = dropout(x, embd_pdrop_, context.seed, dropout_site("transformer.drop"));
        }
        for (std::size_t i = 0; i < transformer.h.size(); ++i) {
            const Gpt2Block<T, D>& block = transformer.h[i];
            if (gradient_checkpointing && context.training) {
                x = checkpoint([&block, context](const Tensor<T, D>& input) { return block.forward(input, context); },
                               x);
            } else {
                std::vector<KeyValueCache<T, D>*> layer;
                for (KeyValueCaches<T, D>* row : caches) {
                    layer.push_back(&(*row)[i]);
                }
                x = block.forward(x, context, layer);
            }
        }
        return transformer.ln_f.forward(x);
    }

    /// Logits [.., vocab_size] of hidden states [.., n_embd].
    Tensor<compute_t<T>, D> logits(const Tensor<T, D>& hidden_states) const {
        return lm_head.adapter ? cast<compute_t<T>>(lm_head.forward(hidden_states, {}))
                               : lm_head_logits(hidden_states, head());
    }

    /// The sum of the negative log-likelihoods of the labels, aligned with the ids and shifted here: position i is
    /// judged by label i + 1, unless another document begins there. Labels [batch, length]; -100 is ignored. Divide by
    /// the number of supervised tokens.
    Tensor<compute_t<T>, D> loss(const Tensor<std::int32_t, D>& ids, const Tensor<std::int32_t, D>& labels,
                                 const ForwardContext<D>& context = {}) const {
        if (labels.shape() != ids.shape()) {
            throw ShapeError(concat("gpt2: labels ", labels.shape(), " for ids ", ids.shape()));
        }
        const Tensor<T, D> states = hidden(ids, context);
        std::vector<std::int32_t> shifted = labels.to_vector();
        const std::vector<std::int32_t> starts = document_starts("gpt2", ids.shape(), context);
        const std::int64_t length = ids.size(1);
        for (std::size_t i = 0; i < shifted.size(); ++i) {
            const std::int64_t next = static_cast<std::int64_t>(i) % length + 1;
            const bool last = next == length || (!starts.empty() && starts[i + 1] == next);
            shifted[i] = last ? ignored_label : shifted[i + 1];
        }
        const Tensor<T, D> rows = reshape(states, {ids.numel(), config.n_embd});
        const auto targets = Tensor<std::int32_t, D>::from(shifted, {ids.numel()});
        return lm_head.adapter ? cross_entropy(cast<compute_t<T>>(lm_head.forward(rows, context)), targets)
                               : lm_head_loss(rows, head(), targets);
    }

  private:
    void set_tied(bool tied, const WeightSlot<compute_t<T>, D>& head) {
        config.tie_word_embeddings = tied;
        config.document["tie_word_embeddings"] = tied;
        lm_head.weight = head;
    }

    /// How many tokens each row's caches hold.
    std::vector<std::int64_t> past_of(std::span<KeyValueCaches<T, D>* const> caches,
                                      const Tensor<std::int32_t, D>& ids) const {
        if (!caches.empty() && static_cast<std::int64_t>(caches.size()) != ids.size(0)) {
            throw ShapeError(concat("gpt2: caches of ", caches.size(), " texts for ids ", ids.shape()));
        }
        std::vector<std::int64_t> past;
        for (const KeyValueCaches<T, D>* row : caches) {
            if (row->size() != transformer.h.size()) {
                throw ShapeError(concat("gpt2: ", row->size(), " caches for ", transformer.h.size(), " layers"));
            }
            past.push_back(row->empty() ? 0 : row->front().length());
        }
        return past;
    }

    double embd_pdrop_ = 0;
};

} // namespace lowrank
