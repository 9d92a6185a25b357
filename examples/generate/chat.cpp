#include "chat.hpp"

#include <cstdio>
#include <iostream>
#include <string>
#include <unistd.h>

#include "lowrank/train/interrupt.hpp"
#include "say.hpp"

namespace examples {

namespace {

/// Answers one line of the user; returns false where that ends the chat. Ctrl-C ends the answer alone.
bool chat_line(const ChatPartner& partner, const std::string& line) {
    if (line == "/quit") {
        return false;
    }
    if (line == "/reset") {
        partner.reset();
        return true;
    }
    if (line.starts_with('/')) {
        throw lowrank::OptionError("found " + lowrank::in_quotes(line) +
                                   ", expected a message, /reset or /quit (a message with '/' may begin with a space)");
    }
    const lowrank::InterruptGuard interrupt;
    const lowrank::ConversationReply reply = partner.say(line, [&](const std::string& text) {
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
        return !interrupt.requested() && !std::ferror(stdout);
    });
    say(stdout, "\n");
    std::fflush(stdout);
    if (reply.forgotten_turns > 0) {
        say(stderr, "forgot the oldest {} turns: the model has no positions for them\n", reply.forgotten_turns);
    }
    if (reply.reason == lowrank::StopReason::n_positions) {
        say(stderr, "stopped at the model's last position\n");
    }
    return !std::ferror(stdout);
}

} // namespace

int chat(const ChatPartner& partner) {
    const bool is_terminal = isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
    if (is_terminal) {
        say(stderr, "/reset begins anew, /quit or Ctrl-D ends, Ctrl-C ends an answer\n");
    }
    std::string line;
    const auto next = [&] {
        if (is_terminal) {
            say(stdout, "> ");
            std::fflush(stdout);
        }
        return static_cast<bool>(std::getline(std::cin, line));
    };
    for (bool goes_on = true; goes_on && next();) {
        line.erase(line.find_last_not_of('\r') + 1);
        if (line.find_first_not_of(" \t") == line.npos) {
            continue;
        }
        try {
            goes_on = chat_line(partner, line);
        } catch (const lowrank::OptionError& error) {
            if (!is_terminal) {
                throw;
            }
            say(stderr, "{}\n", error.what());
        }
    }
    return 0;
}

} // namespace examples
