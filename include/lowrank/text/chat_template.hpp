// Chat templates: how the turns of a conversation become text, and which of it the model learns to write.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/text/placeholders.hpp"
#include "lowrank/text/segment.hpp"

namespace lowrank {

enum class ChatRole { system, user, assistant };

/// What one participant said. `supervised` counts for the assistant's turns only.
struct ChatTurn {
    ChatRole role = ChatRole::user;
    std::string text{};
    bool supervised = true;
};

/// The text around a turn of each role. Each has `{content}` once, and may have `{eos}`, the end-of-sequence token;
/// `{{` and `}}` stand for single braces.
///
/// Supervised is what the assistant says and what ends its turn: the text behind `{content}` up to the last character
/// that is not white space, or `{eos}`. A space directly before its `{content}` belongs to what it says, because BPE
/// joins it to the first word: so a prompt ends as in training. The text of turns is untrusted: special tokens that
/// stand in it are ordinary characters.
class ChatTemplate {
  public:
    /// An empty `system` means that system turns are refused. Throws OptionError for a text without `{content}` or with
    /// two, an unknown placeholder, and an assistant's turn that nothing ends.
    ChatTemplate(std::string system, std::string user, std::string assistant)
        : texts_{std::move(system), std::move(user), std::move(assistant)} {
        for (std::size_t role = texts_[0].empty() ? 1 : 0; role < texts_.size(); ++role) {
            forms_[role] = parse(role);
        }
        supervise(forms_[2]);
    }

    /// Whether there is a text for system turns.
    bool takes_system() const { return !texts_[0].empty(); }

    /// The texts of the three roles, by ChatRole.
    const std::array<std::string, 3>& texts() const { return texts_; }

    /// A conversation to train on. Its turns behind the assistant's last one are left out, for nothing in them is
    /// supervised; behind that one comes the end-of-sequence token, supervised, where the template has not put it
    /// there. Throws OptionError for a system turn that the template has no place for.
    std::vector<Segment> training_segments(std::span<const ChatTurn> turns) const {
        while (!turns.empty() && turns.back().role != ChatRole::assistant) {
            turns = turns.first(turns.size() - 1);
        }
        std::vector<Segment> segments = render(turns);
        while (!segments.empty() && !segments.back().supervised) {
            segments.pop_back(); // the white space behind the last turn
        }
        if (!segments.empty()) {
            segments.back().ends = true;
        }
        for (std::size_t i = 0, turn = 0; i < segments.size(); ++turn) {
            const std::size_t end = std::min(i + form(turns[turn]).size(), segments.size());
            for (; i < end; ++i) {
                segments[i].supervised = segments[i].supervised && turns[turn].supervised;
            }
        }
        return segments;
    }

    /// A conversation for the model to continue: the turns, and the beginning of the assistant's next one.
    std::vector<Segment> prompt_segments(std::span<const ChatTurn> turns) const {
        std::vector<Segment> segments = render(turns);
        for (Segment& segment : segments) {
            segment.supervised = false;
        }
        for (const Piece& piece : forms_[2]) {
            if (piece.content) {
                break;
            }
            segments.push_back(piece.segment);
        }
        return segments;
    }

    /// The pieces of the texts that look like special tokens, "<|…|>", each once: a vocabulary may not have them.
    std::vector<std::string> markers() const {
        std::vector<std::string> found;
        for (const std::string& text : texts_) {
            for (std::size_t at = 0; (at = text.find("<|", at)) != text.npos;) {
                const std::size_t end = text.find("|>", at + 2);
                if (end == text.npos) {
                    break;
                }
                std::string marker = text.substr(at, end + 2 - at);
                if (std::find(found.begin(), found.end(), marker) == found.end()) {
                    found.push_back(std::move(marker));
                }
                at = end + 2;
            }
        }
        return found;
    }

    friend bool operator==(const ChatTemplate& a, const ChatTemplate& b) { return a.texts_ == b.texts_; }

  private:
    /// A piece of a form; where `content` is true the turn's text follows the segment's own.
    struct Piece {
        Segment segment;
        bool content = false;
    };
    using Form = std::vector<Piece>;

    const Form& form(const ChatTurn& turn) const { return forms_[static_cast<std::size_t>(turn.role)]; }

    Form parse(std::size_t role) const {
        static constexpr std::array<const char*, 3> names = {"system", "user", "assistant"};
        Form form;
        scan_placeholders(texts_[role], [&](std::string_view name, std::string_view literal) {
            if (name.empty() && literal.empty()) {
                return;
            }
            const bool joins = name.empty() && !form.empty() && !form.back().content && !form.back().segment.ends;
            if (joins) {
                form.back().segment.text += literal;
            } else if (name.empty()) {
                form.push_back({{std::string(literal)}});
            } else if (name == "content") {
                form.push_back({{}, true});
                form.back().segment.literal = true;
            } else if (name == "eos") {
                form.push_back({});
                form.back().segment.ends = true;
            } else {
                throw OptionError(concat("chat template: ", names[role], ": found the placeholder {", name,
                                         "}, expected {content} or {eos} (write {{ for a brace)"));
            }
        });
        const auto count = std::count_if(form.begin(), form.end(), [](const Piece& piece) { return piece.content; });
        if (count != 1) {
            throw OptionError(
                concat("chat template: ", names[role], ": found {content} ", count, " times, expected it once"));
        }
        return form;
    }

    /// Marks what the assistant learns to write.
    static void supervise(Form& form) {
        auto content = std::find_if(form.begin(), form.end(), [](const Piece& piece) { return piece.content; });
        if (content != form.begin() && (content - 1)->segment.text.ends_with(' ')) {
            (content - 1)->segment.text.pop_back();
            content->segment.text.push_back(' ');
        }
        content->segment.supervised = true;
        constexpr std::string_view white = " \t\r\n";
        auto last = form.end() - 1;
        while (last != content && !last->segment.ends &&
               last->segment.text.find_first_not_of(white) == std::string::npos) {
            --last;
        }
        if (last == content) {
            throw OptionError("chat template: assistant: found nothing behind {content} that ends the turn, expected "
                              "{eos} or a text such as <|im_end|>");
        }
        for (auto piece = content; piece <= last; ++piece) {
            piece->segment.supervised = true;
        }
        const std::size_t end = last->segment.text.find_last_not_of(white) + 1; // 0 for {eos}
        if (end < last->segment.text.size()) {
            Piece rest{{last->segment.text.substr(end)}};
            last->segment.text.resize(end);
            form.insert(last + 1, std::move(rest));
        }
    }

    std::vector<Segment> render(std::span<const ChatTurn> turns) const {
        std::vector<Segment> segments;
        for (const ChatTurn& turn : turns) {
            if (form(turn).empty()) {
                throw OptionError("chat template: found a system turn, expected none: the template has no text for it");
            }
            for (const Piece& piece : form(turn)) {
                segments.push_back(piece.segment);
                if (piece.content) {
                    segments.back().text += turn.text;
                }
            }
        }
        return segments;
    }

    std::array<std::string, 3> texts_;
    std::array<Form, 3> forms_;
};

} // namespace lowrank
