#include <doctest/doctest.h>

#include "data_testing.hpp"
#include "lowrank/data/load.hpp"

using namespace lowrank;

namespace {

struct Broken {
    std::string text;
    std::vector<std::string> message; ///< what the error must say
};

std::string refusal(const TemporaryFolder& folder, const std::string& name, std::string_view text,
                    const std::string& columns = "") {
    DataOptions options;
    options.max_seq_length = 8;
    options.n_positions = 8;
    options.vocab_size = 257;
    options.text_template = TextTemplate(PromptTemplate("{instruction}>"), TextTemplate::named("plain").chat());
    options.columns = Columns::parse(columns);
    const auto path = folder.write(name, text);
    return error_of([&] { load_dataset(path, options, ByteTokenizer{}); });
}

void check_refused(const std::string& name, const std::vector<Broken>& cases) {
    const TemporaryFolder folder;
    for (const Broken& broken : cases) {
        const std::string message = refusal(folder, name, broken.text);
        CAPTURE(broken.text);
        CAPTURE(message);
        CHECK(contains(message, folder.str() + "/" + name + ": "));
        for (const auto& part : broken.message) {
            CAPTURE(part);
            CHECK(contains(message, part));
        }
    }
}

const std::string good = R"({"instruction": "a", "output": "b"})";
const std::string tokens = R"({"input_ids": [1, 2]})";

} // namespace

TEST_CASE("broken instruction lists are refused with file, line, record and key") {
    const std::string first = "[\n" + good + ",\n";
    check_refused(
        "a.json",
        {
            {first + "{\"instruction\": \"a\"}]",
             {"line 3, record 2", "'output'", "no such key", "\"instruction\"", "expected the output"}},
            {first + "{\"instruction\": \"a\",\n\"output\": 3}]",
             {"line 3, record 2", "'output'", "found 3", "expected a string"}},
            {first + "{\"instruction\": null, \"output\": \"\"}]",
             {"line 3, record 2", "'instruction'", "found null", "expected a string"}},
            {first + "{\"instruction\": \"a\", \"input\": {}, \"output\": \"\"}]",
             {"line 3, record 2", "'input'", "found an object"}},
            {first + "{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"\"}]",
             {"line 3, record 2", "'input'", "no {input}"}},
            {first + "{\"instruction\": \"a\"\n\"output\": \"b\"}]", {"line 4", "unexpected string"}},
            {first + "{\"instruction\": \"a\nb\", \"output\": \"b\"}]", {"line 3", "control character"}},
            {first + "{\"instruction\": \"a\", \"output\": \"b}]\n\n", {"line 3"}},
            {first + "[]]", {"line 3, record 2", "found a list", "expected an object"}},
            {first + "null]", {"line 3, record 2", "found null"}},
            {first + "]", {"line 3"}},
            {first + ", " + good + "]", {"line 3"}},
            {first + good + "\n", {"line 4", "end of the file", "record 2"}},
            {first + good + "}", {"line 3", "'}'", "record 2"}},
            {first + good + "]\n[]", {"line 4", "after the list"}},
            {"[]", {"empty list"}},
            {"[", {"line 1"}},
            {"[\n{\"question\": \"a\"}]", {"line 2, record 1", "\"question\"", "'instruction' and 'output'", "'text'"}},
            {"[[1, 2]]", {"line 1, record 1", "found a list"}},
            {"{\n\"instruction\": \"a\"}", {"line 1", "one record a line"}},
        });
}

TEST_CASE("broken JSON Lines are refused with file, line, record and key") {
    check_refused("a.jsonl", {
                                 {good + "\n\n{\"instruction\": \"a\"}", {"line 3, record 2", "'output'"}},
                                 {good + "\n{\"instruction\": \"a\", \"output\": \"b\"", {"line 2"}},
                                 {good + "\n" + good + "," + "\n" + good, {"line 2"}},
                                 {good + "\n" + good + " " + good, {"line 2"}},
                                 {good + "\n[" + good + "]", {"line 2, record 2", "found a list"}},
                                 {good + "\n\"text\"", {"line 2, record 2", "found \"text\" (string)"}},
                                 {good + "\n{\"instruction\": \"\\ud800\", \"output\": \"\"}", {"line 2"}},
                                 {good + "\n{\"instruction\": 1e999, \"output\": \"\"}", {"line 2"}},
                                 {good + "\n{\"output\": \"a\", \"output\": \"\"}", {"line 2", "twice"}},
                                 {good + "\nhello", {"line 2"}},
                                 {" \n\t\r\n", {"only white space"}},
                                 {"", {"empty file"}},
                                 {"42", {"line 1, record 1", "found 42"}},
                             });
}

TEST_CASE("broken text is refused with file, line and byte") {
    check_refused("a.txt", {
                               {"ok\nbad \xFF", {"line 2", "0xff", "byte offset 7", "expected UTF-8"}},
                               {"ok\n\n\xC3", {"line 3", "0xc3", "byte offset 4"}},
                               {"\xED\xA0\x80", {"line 1", "byte offset 0"}},
                               {"\xC0\xAF", {"line 1", "byte offset 0"}},
                               {std::string("\xFF\xFEh\0i\0", 6), {"line 1", "UTF-16"}},
                               {"", {"empty file"}},
                               {"\xEF\xBB\xBF", {"empty file"}},
                           });
    check_refused("b.jsonl",
                  {{good + "\n{\"instruction\": \"\xFF\", \"output\": \"\"}", {"line 2", "0xff", "byte offset 53"}}});
}

TEST_CASE("broken documents are refused") {
    const std::string text = "{\"text\": \"abc\"}\n";
    check_refused("a.jsonl", {
                                 {text + "{\"txt\": \"abc\"}", {"line 2, record 2", "'text'", "\"txt\""}},
                                 {text + "{\"text\": [\"abc\"]}", {"line 2, record 2", "'text'", "found a list"}},
                                 {text + "{\"text\": null}", {"line 2, record 2", "found null"}},
                                 {text + "7", {"line 2, record 2", "found 7"}},
                                 {text + "{\"text\": \"abc}", {"line 2"}},
                                 {"{\"text\": \"\"}", {"all labels are masked", "empty"}},
                             });
}

TEST_CASE("broken pre-tokenized rows are refused with file, line, key and index") {
    const std::string first = tokens + "\n";
    check_refused(
        "a.jsonl",
        {
            {first + R"({"input_ids": []})", {"line 2, record 2", "'input_ids'", "empty list"}},
            {first + R"({"input_ids": [1, 257]})", {"line 2", "found 257", "index 1", "0 to 256"}},
            {first + R"({"input_ids": [1, -1]})", {"line 2", "found -1", "index 1"}},
            {first + R"({"input_ids": [1, -100]})", {"line 2", "found -100"}},
            {first + R"({"input_ids": [1, 2.0]})", {"line 2", "found 2.0"}},
            {first + R"({"input_ids": [1, true]})", {"line 2", "found true"}},
            {first + R"({"input_ids": [1, "2"]})", {"line 2", "string"}},
            {first + R"({"input_ids": [1, null]})", {"line 2", "found null"}},
            {first + R"({"input_ids": [[1, 2]]})", {"line 2", "found a list", "index 0"}},
            {first + R"({"input_ids": [18446744073709551615]})", {"line 2", "18446744073709551615"}},
            {first + R"({"input_ids": [4294967297]})", {"line 2", "4294967297"}},
            {first + R"({"input_ids": [-9223372036854775808]})", {"line 2", "-9223372036854775808"}},
            {first + R"({"input_ids": [99999999999999999999]})", {"line 2"}},
            {first + R"({"input_ids": "1 2"})", {"line 2", "string", "a list of token ids"}},
            {first + R"({"ids": [1]})", {"line 2", "'input_ids'", "no such key"}},
            {first + R"({"input_ids": [1, 2], "labels": [1]})", {"line 2", "'labels'", "1 labels", "expected 2"}},
            {first + R"({"input_ids": [1, 2], "labels": [1, -101]})", {"line 2", "'labels'", "-101", "or -100"}},
            {first + R"({"input_ids": [1, 2], "labels": [1, 257]})", {"line 2", "'labels'", "257"}},
            {first + R"({"input_ids": [1, 2], "labels": 1})", {"line 2", "'labels'", "a list"}},
            {first + R"({"input_ids": [1,2,3,4,5,6,7,8,9]})", {"line 2", "9 tokens", "at most 8", "n_positions"}},
            {first + R"({"input_ids": [1, 2], "attention_mask": [1, 0]})", {"line 2", "'attention_mask'", "padding"}},
            {R"({"input_ids": [1, 2], "labels": [1, -100]})", {"all labels are masked", "-100"}},
        });
}

TEST_CASE("broken messages are refused with file, line, record, key and turn") {
    const std::string first =
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
        "\n";
    const auto messages = [&](const std::string& list) { return first + "{\"messages\": " + list + "}"; };
    const std::string question = R"({"role": "user", "content": "a"})";
    check_refused(
        "a.jsonl",
        {
            {messages("[]"), {"line 2, record 2", "'messages'", "empty list"}},
            {messages("\"a\""), {"line 2", "'messages'", "string", "a list of turns"}},
            {messages("[\"a\"]"), {"line 2", "turn 1", "role and content"}},
            {messages("[" + question + "]"), {"line 2", "1 turns, none of the assistant"}},
            {messages("[" + question + R"(, {"role": "tool", "content": "b"}])"), {"line 2", "\"tool\"", "turn 2"}},
            {messages("[" + question + R"(, {"role": "assistant"}])"), {"line 2", "turn 2", "'content'"}},
            {messages("[" + question + R"(, {"role": "assistant", "content": null}])"), {"line 2", "null", "turn 2"}},
            {messages("[" + question + R"(, {"role": 1, "content": "b"}])"), {"line 2", "'role'", "found 1"}},
            {messages("[" + question + R"(, {"content": "b"}])"), {"line 2", "'role'", "turn 2"}},
            {messages("[" + question + R"(, {"role": "assistant", "content": "b", "weight": 0.5}])"),
             {"line 2", "weight 0.5", "0 or 1"}},
            {first + R"({"message": []})", {"line 2", "'messages'", "no such key", "\"message\""}},
            {first + R"({"messages": [{"role": "user"])", {"line 2"}},
        });
}

TEST_CASE("broken conversations are refused with file, line, record, key and turn") {
    const std::string first = "[\n"
                              R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})"
                              ",\n";
    check_refused(
        "a.json",
        {
            {first + R"({"conversations": [{"from": "robot", "value": "a"}]}])", {"line 3, record 2", "\"robot\""}},
            {first + R"({"conversations": [{"from": "gpt", "text": "a"}]}])", {"line 3", "'value'", "\"text\""}},
            {first + R"({"conversations": [{"from": "gpt", "value": ["a"]}]}])", {"line 3", "'value'", "a list"}},
            {first + R"({"conversations": {"from": "gpt", "value": "a"}}])", {"line 3", "an object"}},
            {first + R"({"conversations": [{"from": "human", "value": "a"}]}])", {"line 3", "none of the assistant"}},
            {first + R"({"system": 1, "conversations": [{"from": "gpt", "value": "a"}]}])", {"line 3", "'system'"}},
            {first + R"({"conversations": [{"from": "gpt", "value": "a"}])", {"line 3"}},
        });
}

TEST_CASE("broken tasks are refused with file, line, record and key") {
    const std::string first = R"({"instruction": "a", "instances": [{"input": "", "output": "b"}]})"
                              "\n";
    check_refused("a.jsonl",
                  {
                      {first + R"({"instruction": "a", "instances": []})", {"line 2, record 2", "empty list"}},
                      {first + R"({"instruction": "a", "instances": ["b"]})", {"line 2", "instance 1"}},
                      {first + R"({"instruction": "a", "instances": [{"input": ""}]})", {"line 2", "'output'"}},
                      {first + R"({"instruction": "a", "instances": [{"output": 3}]})", {"line 2", "found 3"}},
                      {first + R"({"instances": [{"output": "b"}]})", {"line 2", "'instruction'"}},
                      {first + R"({"instruction": "a", "instances": [{"input": "x", "output": "b"}]})",
                       {"line 2", "'input'", "no {input}"}},
                  });
}

TEST_CASE("broken CSV is refused with file and line") {
    const std::string first = "prompt,completion\na,b\n";
    check_refused("a.csv", {
                               {first + "a\n", {"line 3, record 2", "1 fields", "expected 2"}},
                               {first + "a,b,c\n", {"line 3, record 2", "3 fields", "expected 2"}},
                               {first + "\"a\n\nb,c\n", {"line 3", "not closed"}},
                               {first + "\"a\nb\"c,d\n", {"line 4", "\"c\"", "closing quote"}},
                               {first + "a \"b\",c\n", {"line 3", "a quote inside a field"}},
                               {first + "\"a\" ,c\n", {"line 3", "closing quote"}},
                               {"prompt,prompt\na,b\n", {"line 1", "\"prompt\" twice"}},
                               {"prompt,\na,b\n", {"line 1", "without a name"}},
                               {"prompt,completion\n\n", {"line 1", "no record"}},
                               {"\n\n", {"empty lines"}},
                               {"prompt;completion\na;b\n", {"line 2, record 1", "\"prompt;completion\""}},
                               {first + "a,\xFF\n", {"line 3", "0xff", "UTF-8"}},
                               {"messages\nabc\n", {"line 2", "'messages'", "a list of turns"}},
                               {"input_ids\n\"1, 2\"\n", {"line 2", "'input_ids'", "a list of token ids"}},
                           });
}

TEST_CASE("broken lines with separators, and conversations that a template has no text for, are refused") {
    const TemporaryFolder folder;
    DataOptions options;
    options.separator = "||";
    const auto file = [&](const std::string& name, std::string_view text) {
        const auto path = folder.write(name, text);
        return error_of([&] { load_dataset(path, options, ByteTokenizer{}); });
    };
    CHECK(contains(file("a.txt", "a||b\n\nc|d\n"), "a.txt: line 3, record 2: found no \"||\""));
    CHECK(contains(file("a.jsonl", good), "separator"));
    options.separator.clear();
    options.text_template = PromptTemplate("{instruction}>");
    const std::string chat = R"([{"messages": [{"role": "system", "content": "a"},
        {"role": "assistant", "content": "b"}]}])";
    CHECK(contains(file("a.json", chat), "texts for instructions only"));
    options.text_template = TextTemplate::named("mistral");
    CHECK(contains(file("a.json", chat), "line 1, record 1: key 'messages': found a system turn"));
}

TEST_CASE("data whose prompts fill the row is refused, naming the reason") {
    check_refused("a.json", {{R"([{"prompt": "12345678", "completion": "9"}])",
                              {"all labels are masked", "1 records", "max_seq_length 8"}}});
}

TEST_CASE("hostile files are refused without a crash") {
    const TemporaryFolder folder;
    const std::string deep(1'000'000, '['), deep_objects = [] {
        std::string text;
        for (int i = 0; i < 200'000; ++i) {
            text += "{\"a\":";
        }
        return text;
    }();
    for (const std::string& text :
         {deep, "[" + good + "," + deep, deep_objects, "[" + deep_objects, good + "\n" + deep,
          std::string(1'000'000, ']'), "[" + std::string(1'000'000, ','), std::string(1'000'000, '"'),
          "[\"" + std::string(1'000'000, '\\'), std::string(1'000'000, '\0'), "[" + std::string(1'000'000, '9') + "]",
          "[{\"" + std::string(1'000'000, 'k') + "\": 1}]", "[\"" + std::string(1000, 'x') + "\", {}]"}) {
        CAPTURE(text.substr(0, 40));
        const std::string message = refusal(folder, "a.json", text);
        CHECK(contains(message, folder.str() + "/a.json: "));
        CHECK(message.size() < 1000);
    }
    // Every prefix of a good file, and every byte of it replaced by a bracket, either loads or is refused.
    const std::string whole = "[" + good + ",\n {\"instruction\": \"é\\u00e9\", \"output\": \"\\\\\", \"x\": [1, {}]}]";
    for (std::size_t i = 0; i <= whole.size(); ++i) {
        refusal(folder, "b.json", whole.substr(0, i));
        for (const char c : {']', '"', '\\', '\n', ','}) {
            std::string changed = whole;
            changed[std::min(i, whole.size() - 1)] = c;
            refusal(folder, "b.json", changed);
            refusal(folder, "b.jsonl", changed);
        }
    }
    const std::string csv = "instruction,output\n\"a, \"\"b\"\"\n\",c\r\nd,\"\"\n";
    const std::string chat = R"({"messages": [{"role": "user", "content": "a"}, {"from": "gpt", "value": "b"}]})";
    for (std::size_t i = 0; i <= std::max(csv.size(), chat.size()); ++i) {
        refusal(folder, "b.csv", csv.substr(0, i));
        refusal(folder, "b.jsonl", chat.substr(0, i));
        for (const char c : {'"', ',', '\n', '\r', '{', '0'}) {
            std::string table = csv, turns = chat;
            table[std::min(i, csv.size() - 1)] = c;
            turns[std::min(i, chat.size() - 1)] = c;
            refusal(folder, "b.csv", table);
            refusal(folder, "b.jsonl", turns);
        }
    }
    CHECK(refusal(folder, "b.csv", csv).empty());
    CHECK(refusal(folder, "b.jsonl", chat).empty());
}

TEST_CASE("options that do not fit are refused") {
    const TemporaryFolder folder;
    for (const char* columns : {"instruction", "=a", "instruction=", "instruction=a,", "instruction=a,instruction=b",
                                "nonsense=a", "instruction=a,,output=b", ","}) {
        CAPTURE(columns);
        CHECK_THROWS_AS(Columns::parse(columns), OptionError);
    }
    CHECK(contains(refusal(folder, "a.jsonl", good, "instruction=a,text=b"), "different formats"));
    CHECK(contains(refusal(folder, "a.jsonl", good, "input=context"), "'context'"));
    CHECK(contains(refusal(folder, "a.jsonl", good, "output=answer"), "'answer'"));
    CHECK(contains(refusal(folder, "a.txt", "text", "text=a"), "none for a text file"));
    CHECK(contains(refusal(folder, "a.parquet", good), "'.parquet'"));
    CHECK(contains(refusal(folder, "noextension", good), "expected .json, .jsonl, .csv or .txt"));

    DataOptions options;
    options.max_seq_length = 1;
    const auto path = folder.write("a.jsonl", good);
    CHECK_THROWS_AS(load_dataset(path, options, ByteTokenizer{}), OptionError);
    options.max_seq_length = 1024;
    options.n_positions = 1023;
    CHECK(contains(error_of([&] { load_dataset(path, options, ByteTokenizer{}); }), "1023"));
    options.n_positions = 1024;
    options.vocab_size = 256;
    CHECK(contains(error_of([&] { load_dataset(path, options, ByteTokenizer{}); }), "not that of the model"));
    CHECK_THROWS_AS(load_dataset(folder.str() + "/absent.json", options), FileError);
    CHECK_THROWS_AS(load_dataset(folder.str(), options), FileError);
}

TEST_CASE("every role of a format can be renamed") {
    for (const RecordFormat& format : record_formats()) {
        for (const auto* roles : {&format.required, &format.optional}) {
            for (const auto role : *roles) {
                Columns().set(std::string(role), "column");
            }
        }
    }
}
