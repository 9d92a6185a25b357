// A chat on the terminal, or line by line through a pipe.
#pragma once

#include <functional>
#include <string>

#include "lowrank/generate/conversation.hpp"

namespace examples {

/// A conversation with a model of any type.
struct ChatPartner {
    /// Conversation::say and Conversation::reset.
    std::function<lowrank::ConversationReply(const std::string&, const std::function<bool(const std::string&)>&)> say;
    std::function<void()> reset;
};

/// Reads messages from standard input and answers each on standard output, until the input ends; returns the exit code.
/// On a terminal a wrong message is told and the chat goes on; in a pipe it is an error, for what follows it would make
/// no sense.
int chat(const ChatPartner& partner);

} // namespace examples
