// A chat on the terminal, or line by line through a pipe.
#pragma once

#include "lowrank/generate/conversation.hpp"
#include "model.hpp"

namespace examples {

/// Reads messages from standard input and answers each on standard output, until the input ends; returns the exit code.
/// On a terminal a wrong message is told and the chat goes on; in a pipe it is an error, for what follows it would make
/// no sense.
int chat(const Model& model, const lowrank::Tokenizer& tokenizer, const lowrank::ChatTemplate& text_template,
         const lowrank::ConversationOptions& options);

} // namespace examples
