// The template of a run, by name or from a file: how instruction records and conversations become text.
#pragma once

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/json_reader.hpp"
#include "lowrank/text/chat_template.hpp"
#include "lowrank/text/template.hpp"

namespace lowrank {

/// A prompt template for instruction records, a chat template for conversations, or both. Without a prompt template an
/// instruction and its input become a user's turn, and the output the assistant's. A value, to be stored beside an
/// adapter (to_json) and used again at inference.
class TextTemplate {
  public:
    /// Throws OptionError when both are empty.
    TextTemplate(std::optional<PromptTemplate> prompt, std::optional<ChatTemplate> chat)
        : prompt_(std::move(prompt)),
          chat_(std::move(chat)) {
        if (!prompt_ && !chat_) {
            throw OptionError("template: found no text, expected one for instructions or for the turns of a chat");
        }
    }
    TextTemplate(PromptTemplate prompt) : prompt_(std::move(prompt)) {}
    TextTemplate(ChatTemplate chat) : chat_(std::move(chat)) {}

    /// A template that is known by name:
    /// - alpaca: Stanford Alpaca's, with its headings around the turns of a conversation
    /// - chatml: <|im_start|>role … <|im_end|>, as Qwen and many others write turns
    /// - llama3: Llama 3's headers and <|eot_id|>
    /// - mistral: [INST] … [/INST]; no system turns
    /// - plain: the texts, each on a line of its own
    /// - vicuna: USER: … ASSISTANT: … (v1.1)
    /// - zephyr: <|user|> … <|assistant|> …, each turn with an end-of-sequence token
    ///
    /// No beginning-of-sequence token is put before any. Throws OptionError for another name.
    static TextTemplate named(std::string_view name) {
        if (name == "alpaca") {
            return {PromptTemplate::alpaca(), ChatTemplate("{content}\n\n", "### Instruction:\n{content}\n\n",
                                                           "### Response:\n{content}{eos}\n\n")};
        }
        if (name == "chatml") {
            return roles("<|im_start|>", "\n{content}<|im_end|>\n");
        }
        if (name == "llama3") {
            return roles("<|start_header_id|>", "<|end_header_id|>\n\n{content}<|eot_id|>");
        }
        if (name == "mistral") {
            return ChatTemplate("", "[INST] {content} [/INST]", " {content}{eos}");
        }
        if (name == "plain") {
            return {PromptTemplate("{instruction}\n{input}\n", "{instruction}\n"),
                    ChatTemplate("{content}\n", "{content}\n", "{content}{eos}\n")};
        }
        if (name == "vicuna") {
            return ChatTemplate("{content} ", "USER: {content} ", "ASSISTANT: {content}{eos}");
        }
        if (name == "zephyr") {
            return roles("<|", "|>\n{content}{eos}\n");
        }
        throw OptionError(concat("template: found ", in_quotes(name), ", expected a file or one of ", known_names()));
    }

    /// The names that named() knows.
    static std::vector<std::string> names() {
        return {"alpaca", "chatml", "llama3", "mistral", "plain", "vicuna", "zephyr"};
    }

    /// Reads a template from a file. One that ends in .json is an object with `prompt_no_input` and `prompt_input` (as
    /// in alpaca-lora's files; the second may be missing), and with `system`, `user` and `assistant`, the texts around
    /// turns (`system` may be missing); either group may be missing. Any other file is the text of a prompt template,
    /// with {instruction} and perhaps {input}. Throws FileError naming file and key.
    static TextTemplate load(const std::filesystem::path& path) {
        const auto in_file = [&](const std::string& where, const auto& make) {
            try {
                return make();
            } catch (const OptionError& error) {
                throw FileError(concat(path.string(), where, ": ", error.what()));
            }
        };
        if (path.extension() != ".json") {
            return in_file("", [&] { return TextTemplate(PromptTemplate(read_text(path))); });
        }
        JsonReader file = JsonReader::open(path);
        std::optional<PromptTemplate> prompt;
        std::optional<ChatTemplate> chat;
        if (file.has("prompt_no_input") || file.has("prompt_input")) {
            const std::string without = file.get_string("prompt_no_input");
            const std::string with = file.get_string_or("prompt_input", without);
            prompt = in_file(": key 'prompt_no_input'", [&] { return PromptTemplate(with, without); });
        }
        if (file.has("system") || file.has("user") || file.has("assistant")) {
            const std::string user = file.get_string("user"), assistant = file.get_string("assistant");
            const std::string system = file.get_string_or("system", "");
            chat = in_file("", [&] { return ChatTemplate(system, user, assistant); });
        }
        for (const char* key : {"description", "response_split"}) { // of alpaca-lora's files, for the reader
            file.find(key);
        }
        if (const auto unknown = file.unread_keys(); !unknown.empty()) {
            file.fail(unknown[0], "an unknown key", "prompt_no_input, prompt_input, system, user or assistant");
        }
        return in_file("", [&] { return TextTemplate(prompt, chat); });
    }

    /// The template called `name`, or else the one in the file of that name.
    static TextTemplate find(const std::string& name) {
        const std::vector<std::string> known = names();
        const bool is_name = std::find(known.begin(), known.end(), name) != known.end();
        return !is_name && std::filesystem::exists(name) ? load(name) : named(name);
    }

    /// The content of a file that load() reads this template from.
    std::string to_json() const {
        nlohmann::ordered_json object;
        if (prompt_) {
            object["prompt_no_input"] = prompt_->without_input();
            object["prompt_input"] = prompt_->with_input();
        }
        if (chat_) {
            if (chat_->takes_system()) {
                object["system"] = chat_->texts()[0];
            }
            object["user"] = chat_->texts()[1];
            object["assistant"] = chat_->texts()[2];
        }
        return object.dump(2) + "\n";
    }

    const std::optional<PromptTemplate>& prompt() const { return prompt_; }
    const std::optional<ChatTemplate>& chat() const { return chat_; }

    /// False when there is no place for an instruction's input.
    bool takes_input() const { return !prompt_ || prompt_->takes_input(); }

    /// An instruction record to train on. An empty `input` means that there is none. Throws OptionError as
    /// PromptTemplate::render does.
    std::vector<Segment> training_segments(std::string_view instruction, std::string_view input,
                                           std::string output) const {
        if (!prompt_) {
            return chat_->training_segments(
                std::vector<ChatTurn>{user_turn(instruction, input), {ChatRole::assistant, std::move(output)}});
        }
        return {{prompt_->render(instruction, input)}, {std::move(output), true, true}};
    }

    /// An instruction for the model to answer.
    std::vector<Segment> prompt_segments(std::string_view instruction, std::string_view input) const {
        if (!prompt_) {
            return chat_->prompt_segments(std::vector<ChatTurn>{user_turn(instruction, input)});
        }
        return {{prompt_->render(instruction, input)}};
    }

    friend bool operator==(const TextTemplate&, const TextTemplate&) = default;

  private:
    /// A chat template whose turns differ in the name of the role alone.
    static TextTemplate roles(std::string_view before, std::string_view after) {
        return ChatTemplate(concat(before, "system", after), concat(before, "user", after),
                            concat(before, "assistant", after));
    }

    static std::string known_names() {
        std::string list;
        for (const std::string& name : names()) {
            list += concat(list.empty() ? "" : ", ", name);
        }
        return list;
    }

    static ChatTurn user_turn(std::string_view instruction, std::string_view input) {
        return {ChatRole::user, input.empty() ? std::string(instruction) : concat(instruction, "\n\n", input)};
    }

    std::optional<PromptTemplate> prompt_;
    std::optional<ChatTemplate> chat_;
};

} // namespace lowrank
