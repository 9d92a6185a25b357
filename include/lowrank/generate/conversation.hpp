// Conversation: turns of a user and of a model, whose keys and values stay from turn to turn.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/data/tokenize.hpp"
#include "lowrank/generate/answer_form.hpp"
#include "lowrank/generate/generate.hpp"
#include "lowrank/generate/text_stream.hpp"
#include "lowrank/text/chat_template.hpp"

namespace lowrank {

/// How a conversation goes on.
struct ConversationOptions {
    std::string system{};              ///< what the model is told first; may be empty
    std::int64_t max_new_tokens = 100; ///< of an answer
    SamplerOptions sampler{};
    std::vector<std::string> stop{}; ///< texts that end an answer, beside the template's end of turn
};

/// An answer.
struct ConversationReply {
    std::string text;
    StopReason reason;                ///< callback also for a stop string
    std::size_t forgotten_turns = 0;  ///< oldest turns that were dropped before it, for want of positions
    std::int64_t computed_tokens = 0; ///< of the prompt: those that the model had not seen in the turns before
};

/// A conversation with a model. Each turn is written as the template says; the model sees only what is new in it.
template <class T, DeviceTag D = Cpu>
class Conversation {
  public:
    /// The model and the tokenizer must outlive the conversation. Throws OptionError for an option out of range and for
    /// a `system` that the template has no place for.
    Conversation(const Gpt2<T, D>& model, const Tokenizer& tokenizer, ChatTemplate chat, ConversationOptions options)
        : model_(&model),
          tokenizer_(&tokenizer),
          chat_(std::move(chat)),
          options_(std::move(options)),
          text_(model, model.config.n_positions),
          sampler_(options_.sampler) {
        if (!options_.system.empty() && !chat_.takes_system()) {
            throw OptionError("system: found a text, expected none, for the chat template has no system turn");
        }
        AnswerForm form = answer_form(chat_);
        lead_ = std::move(form.lead);
        if (!form.end.empty()) {
            options_.stop.push_back(std::move(form.end));
        }
        StopStrings check(options_.stop);
        reset();
    }

    /// Says `message` and hands the answer out as it comes: `on_text` receives the text that each token makes certain,
    /// perhaps none, and returns whether to go on. The answer, or what there is of it, becomes part of the
    /// conversation. Where positions are short, the oldest turns are dropped until there is room for max_new_tokens, or
    /// for half of the positions. Throws OptionError for a message that is too long by itself or that the tokenizer
    /// cannot take; the conversation is as before then.
    ConversationReply say(const std::string& message, const std::function<bool(const std::string&)>& on_text) {
        std::vector<ChatTurn> turns = turns_;
        turns.push_back({ChatRole::user, message});
        ConversationReply reply{};
        std::vector<std::int32_t> ids = encode(turns);
        const std::int64_t positions = model_->config.n_positions;
        const std::int64_t room = std::min(options_.max_new_tokens, positions / 2);
        const std::size_t first = options_.system.empty() ? 0 : 1; // that may be dropped, with its answer
        while (std::ssize(ids) + room > positions && turns.size() > first + 1) {
            const auto oldest = turns.begin() + static_cast<std::ptrdiff_t>(first);
            turns.erase(oldest, oldest + 2);
            reply.forgotten_turns += 2;
            ids = encode(turns);
        }
        if (std::ssize(ids) > positions) {
            throw OptionError(concat("message: found ", ids.size(),
                                     " tokens with the text around it, expected at most ", positions,
                                     ", the positions of the model (n_positions)"));
        }
        text_.assign(std::move(ids));
        reply.computed_tokens = std::ssize(text_.ids()) - text_.seen();

        TextStream stream(*tokenizer_, options_.stop, lead_);
        const auto hand_out = [&](const std::string& text) {
            reply.text += text;
            return on_text(text);
        };
        reply.reason = generate(*model_, text_, options_.max_new_tokens, tokenizer_->eos_id(), sampler_,
                                [&](std::int32_t id) { return hand_out(stream.push(id)) && !stream.stopped(); });
        if (reply.reason != StopReason::callback) {
            hand_out(stream.finish());
        }
        turns.push_back({ChatRole::assistant, reply.text});
        turns_ = std::move(turns);
        return reply;
    }

    /// Forgets all but the system turn, and draws anew from the seed.
    void reset() {
        turns_.clear();
        if (!options_.system.empty()) {
            turns_.push_back({ChatRole::system, options_.system});
        }
        sampler_ = Sampler(options_.sampler);
    }

    const std::vector<ChatTurn>& turns() const { return turns_; }

  private:
    /// The conversation up to the beginning of the next answer.
    std::vector<std::int32_t> encode(const std::vector<ChatTurn>& turns) const {
        return encode_segments(*tokenizer_, std::span<const Segment>(chat_.prompt_segments(turns))).input_ids;
    }

    const Gpt2<T, D>* model_;
    const Tokenizer* tokenizer_;
    ChatTemplate chat_;
    ConversationOptions options_;
    std::string lead_;
    CachedText<T, D> text_;
    Sampler sampler_;
    std::vector<ChatTurn> turns_;
};

} // namespace lowrank
