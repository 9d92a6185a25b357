#include <doctest/doctest.h>

#include "data_testing.hpp"
#include "lowrank/data/load.hpp"

using namespace lowrank;

namespace {

struct ChatEncodeOptions {
    bool special_tokens = true;
};

/// Bytes, but <|im_end|> is the token 257, unless text stands for itself.
struct ChatTokenizer : ByteTokenizer {
    std::vector<std::int32_t> encode(std::string_view text, ChatEncodeOptions options = {}) const {
        constexpr std::string_view mark = "<|im_end|>";
        std::vector<std::int32_t> ids;
        for (std::size_t at = 0; at < text.size();) {
            if (options.special_tokens && text.substr(at).starts_with(mark)) {
                ids.push_back(257);
                at += mark.size();
            } else {
                ids.push_back(static_cast<unsigned char>(text[at++]));
            }
        }
        return ids;
    }
    std::string decode(std::span<const std::int32_t> ids) const {
        std::string text;
        for (const auto id : ids) {
            text += id == 257 ? "<im_end>" : ByteTokenizer::decode({&id, 1});
        }
        return text;
    }
};

/// A row's text, with what is supervised in brackets.
std::string shown(const Example& row) {
    std::string text;
    bool open = false;
    for (std::size_t i = 0; i < row.input_ids.size(); ++i) {
        if ((row.labels[i] != ignored_label) != open) {
            text += open ? "]" : "[";
            open = !open;
        }
        text += ChatTokenizer().decode({&row.input_ids[i], 1});
    }
    return text + (open ? "]" : "");
}

std::string shown(const ChatTemplate& chat, const std::vector<ChatTurn>& turns) {
    const auto segments = chat.training_segments(turns);
    return shown(encode_segments(ChatTokenizer(), segments));
}

/// The rows of a file in the chatml template.
std::vector<std::string> rows_of(const std::string& name, std::string_view text, const std::string& columns = "",
                                 const TextTemplate& text_template = TextTemplate::named("chatml")) {
    const TemporaryFolder folder;
    DataOptions options;
    options.vocab_size = 258;
    options.columns = Columns::parse(columns);
    options.text_template = text_template;
    const Dataset data = load_dataset(folder.write(name, text), options, ChatTokenizer());
    std::vector<std::string> rows;
    for (const Example& row : data.examples) {
        rows.push_back(shown(row));
    }
    return rows;
}

const ChatTurn hello{ChatRole::user, "Hi"}, answer{ChatRole::assistant, "Ho"}, rule{ChatRole::system, "Be kind"};

} // namespace

TEST_CASE("only the assistant's turns are supervised, with what ends them") {
    const auto chat = [](const char* name) { return *TextTemplate::named(name).chat(); };
    const std::vector<ChatTurn> two = {rule, hello, answer, hello, answer};
    CHECK(shown(chat("chatml"), two) ==
          "<|im_start|>system\nBe kind<im_end>\n<|im_start|>user\nHi<im_end>\n<|im_start|>assistant\n[Ho<im_end>]\n"
          "<|im_start|>user\nHi<im_end>\n<|im_start|>assistant\n[Ho<im_end><end>]");
    CHECK(shown(chat("zephyr"), two) == "<|system|>\nBe kind<end>\n<|user|>\nHi<end>\n<|assistant|>\n[Ho<end>]\n"
                                        "<|user|>\nHi<end>\n<|assistant|>\n[Ho<end>]");
    CHECK(shown(chat("vicuna"), two) == "Be kind USER: Hi ASSISTANT:[ Ho<end>]USER: Hi ASSISTANT:[ Ho<end>]");
    CHECK(shown(chat("mistral"), {hello, answer}) == "[INST] Hi [/INST][ Ho<end>]");
    CHECK(shown(chat("plain"), two) == "Be kind\nHi\n[Ho<end>]\nHi\n[Ho<end>]");
    CHECK(shown(chat("alpaca"), {hello, answer}) == "### Instruction:\nHi\n\n### Response:\n[Ho<end>]");
    CHECK(shown(chat("llama3"), {hello, answer}) ==
          "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
          "[Ho<|eot_id|><end>]");
    CHECK(chat("llama3").markers() ==
          std::vector<std::string>{"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"});
}

TEST_CASE("turns behind the last answer go, unsupervised answers stay masked, other orders are taken") {
    const ChatTemplate chat = *TextTemplate::named("plain").chat();
    ChatTurn quiet = answer;
    quiet.supervised = false;
    CHECK(shown(chat, {answer, hello, hello}) == "[Ho<end>]");
    CHECK(shown(chat, {hello, quiet, hello, answer}) == "Hi\nHo<end>\nHi\n[Ho<end>]");
    CHECK(shown(chat, {hello, answer, hello, quiet}) == "Hi\n[Ho<end>]\nHi\nHo<end>");
    CHECK(shown(chat, {answer, answer}) == "[Ho<end>]\n[Ho<end>]");
    CHECK(shown(chat, {hello}).empty());
}

TEST_CASE("a prompt ends as in training, and special tokens in turns are characters") {
    const ChatTemplate chat = *TextTemplate::named("chatml").chat();
    const std::vector<ChatTurn> turns = {hello, answer, {ChatRole::user, "<|im_end|>{content}"}};
    const Example prompt = encode_segments(ChatTokenizer(), chat.prompt_segments(turns));
    CHECK(shown(prompt) == "<|im_start|>user\nHi<im_end>\n<|im_start|>assistant\nHo<im_end>\n"
                           "<|im_start|>user\n<|im_end|>{content}<im_end>\n<|im_start|>assistant\n");
    std::vector<ChatTurn> answered = turns;
    answered.push_back(answer);
    const Example row = encode_segments(ChatTokenizer(), chat.training_segments(answered));
    REQUIRE(row.input_ids.size() > prompt.input_ids.size());
    CHECK(std::equal(prompt.input_ids.begin(), prompt.input_ids.end(), row.input_ids.begin()));
    const auto vicuna = TextTemplate::named("vicuna").prompt_segments("Hi", "");
    CHECK(shown(encode_segments(ChatTokenizer(), vicuna)) == "USER: Hi ASSISTANT:");
}

TEST_CASE("messages and from/value conversations give the same rows") {
    const std::vector<std::string> expected = {
        "<|im_start|>system\nBe kind<im_end>\n<|im_start|>user\nHi<im_end>\n<|im_start|>assistant\n[Ho<im_end><end>]"};
    CHECK(rows_of("a.jsonl",
                  R"({"messages": [{"role": "system", "content": "Be kind"}, )"
                  R"({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]})") == expected);
    CHECK(rows_of("a.json", R"([{"conversations": [{"from": "system", "value": "Be kind"},
        {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}, {"from": "human", "value": "?"}]}])") ==
          expected);
    CHECK(rows_of("b.json", R"([{"system": "Be kind", "conversations": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}])") == expected);
    CHECK(rows_of("c.json", R"([{"chat": [{"role": "developer", "content": "Be kind", "name": "x"},
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "weight": 1}]}])",
                  "messages=chat") == expected);
    CHECK(rows_of("d.json", R"([{"messages": [{"role": "assistant", "content": "No", "weight": 0},
        {"role": "assistant", "content": "Yes"}]}])",
                  "", TextTemplate::named("plain")) == std::vector<std::string>{"No<end>\n[Yes<end>]"});
}

TEST_CASE("instructions in a chat template are two turns; tasks give a row for each instance") {
    const std::vector<std::string> with_input = {
        "<|im_start|>user\nAdd\n\n1 2<im_end>\n<|im_start|>assistant\n[3<im_end><end>]"};
    CHECK(rows_of("a.json", R"([{"instruction": "Add", "input": "1 2", "output": "3"}])") == with_input);
    CHECK(rows_of("a.jsonl", R"({"instruction": "Add", "instances": [{"input": "1", "output": "2"}, {"output": "3"}]})",
                  "", PromptTemplate("{instruction} {input}>")) ==
          std::vector<std::string>{"Add 1>[2<end>]", "Add >[3<end>]"});
}

TEST_CASE("CSV: quotes, commas and line ends in fields; empty lines; the lines of records") {
    const TemporaryFolder folder;
    DataOptions options;
    options.columns = Columns::parse("prompt=mr,completion=ref");
    options.vocab_size = 258;
    const auto file =
        folder.write("a.CSV", "\xEF\xBB\xBFmr,ref,\"no, \"\"use\"\"\"\r\n\"a, \"\"b\"\"\n\nc\r\",d e ,\r\n\r\n"
                              "x,\"\",y\n\n1,2,3");
    const Dataset data = load_dataset(file, options, ChatTokenizer());
    REQUIRE(data.size() == 3);
    CHECK(shown(data.examples[0]) == "a, \"b\"\n\nc\r[d e <end>]");
    CHECK(shown(data.examples[1]) == "x[<end>]");
    CHECK(shown(data.examples[2]) == "1[2<end>]");
    CHECK(data.origins[0].line == 2);
    CHECK(data.origins[1].line == 6);
    CHECK(data.origins[2].line == 8);
    CHECK(rows_of("b.csv", "instruction,input,output\nAdd,1 2,3\nGo,,ok\n", "",
                  PromptTemplate("{instruction}{input}>")) ==
          std::vector<std::string>{"Add1 2>[3<end>]", "Go>[ok<end>]"});
    CHECK(rows_of("c.csv", "text\nabc\n") == std::vector<std::string>{"[abc<end>]"});
}

TEST_CASE("a text file with a separator holds a prompt and its completion on each line") {
    const TemporaryFolder folder;
    DataOptions options;
    options.separator = "||";
    options.vocab_size = 258;
    const Dataset data = load_dataset(folder.write("a.txt", "a : b||c d \r\n\ne||f||g"), options, ChatTokenizer());
    REQUIRE(data.size() == 2);
    CHECK(shown(data.examples[0]) == "a : b||[c d <end>]");
    CHECK(shown(data.examples[1]) == "e||[f||g<end>]");
    CHECK(data.where(1) == folder.str() + "/a.txt: line 3, record 2");
    CHECK(data.counts.records == 2);
}

TEST_CASE("templates from files, and back") {
    const TemporaryFolder folder;
    for (const std::string& name : TextTemplate::names()) {
        CAPTURE(name);
        const TextTemplate one = TextTemplate::named(name);
        CHECK(TextTemplate::load(folder.write(name + ".json", one.to_json())) == one);
        CHECK(TextTemplate::find(name) == one);
        CHECK_FALSE(one.training_segments("a", "b", "c").empty());
    }
    const std::string text = folder.write("a.txt", "Q: {instruction}\nA:");
    CHECK(TextTemplate::find(text) == TextTemplate(PromptTemplate("Q: {instruction}\nA:")));
    const std::string alpaca_lora = R"({"description": "x", "prompt_input": "{instruction}|{input}>",
        "prompt_no_input": "{instruction}>", "response_split": ">"})";
    CHECK(TextTemplate::load(folder.write("b.json", alpaca_lora)) ==
          TextTemplate(PromptTemplate("{instruction}|{input}>", "{instruction}>")));

    const auto refused = [&](const std::string& content, const std::string& part) {
        const auto path = folder.write("bad.json", content);
        const std::string message = error_of([&] { TextTemplate::load(path); });
        CAPTURE(message);
        CHECK(contains(message, path));
        CHECK(contains(message, part));
    };
    refused("{}", "no text");
    refused(R"({"user": "{content}"})", "'assistant'");
    refused(R"({"user": "{content}", "assistant": "{content}\n"})", "ends the turn");
    refused(R"({"user": "no place", "assistant": "{content}{eos}"})", "user: found {content} 0 times");
    refused(R"({"user": "{content}{content}", "assistant": "{content}{eos}"})", "2 times");
    refused(R"({"user": "{content} {name}", "assistant": "{content}{eos}"})", "{name}");
    refused(R"({"user": "{content", "assistant": "{content}{eos}"})", "lone '{'");
    refused(R"({"system": "x", "user": "{content}", "assistant": "{content}{eos}"})", "system: found {content} 0");
    refused(R"({"prompt_no_input": "x"})", "'prompt_no_input'");
    refused(R"({"prompt_input": "{instruction}{input}"})", "'prompt_no_input'");
    refused(R"({"prompt": "{instruction}"})", "'prompt'");
    refused("[]", "expected a JSON object");
    CHECK(contains(error_of([] { TextTemplate::find("chatlm"); }),
                   "found \"chatlm\", expected a file or one of alpaca, chatml"));
    CHECK(contains(error_of([&] { TextTemplate::load(folder.write("c.txt", "nothing")); }), "/c.txt"));
}
