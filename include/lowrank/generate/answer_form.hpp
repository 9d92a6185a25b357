// Where an answer begins and ends in the text that a model writes, by a chat template.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "lowrank/text/chat_template.hpp"

namespace lowrank {

/// What the model writes around its answer.
struct AnswerForm {
    std::string lead; ///< before it: " ", where the template has one that belongs to the first word
    std::string end;  ///< behind it and before the end-of-sequence token: "<|im_end|>"; often empty
};

/// Where the answers of a template begin and end.
inline AnswerForm answer_form(const ChatTemplate& chat) {
    const std::vector<Segment> turn = chat.training_segments(std::vector<ChatTurn>{{ChatRole::assistant}});
    const std::size_t answer = chat.prompt_segments({}).size();
    AnswerForm form{turn[answer].text, {}};
    for (std::size_t i = answer + 1; i < turn.size(); ++i) {
        form.end += turn[i].text;
        if (turn[i].ends) {
            break;
        }
    }
    return form;
}

} // namespace lowrank
