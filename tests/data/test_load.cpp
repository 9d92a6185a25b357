#include <doctest/doctest.h>

#include "data_testing.hpp"
#include "lowrank/data/load.hpp"

using namespace lowrank;

namespace {

const ByteTokenizer bytes;

DataOptions small(std::int64_t length = 1000) {
    DataOptions options;
    options.max_seq_length = length;
    options.vocab_size = 257;
    options.text_template = PromptTemplate("{instruction}|{input}>");
    return options;
}

std::string text_of(const Example& row) {
    return bytes.decode(row.input_ids);
}

std::string supervised_of(const Example& row) {
    std::vector<std::int32_t> ids;
    for (const auto label : row.labels) {
        ids.push_back(label == ignored_label ? '.' : label);
    }
    return bytes.decode(ids);
}

} // namespace

TEST_CASE("instruction records: the prompt is masked, the response and its end are supervised") {
    const TemporaryFolder folder;
    const std::string list = R"([{"instruction": "add", "input": "1 2", "output": "3"},

        {"instruction": "go", "input": "", "output": "[,]}\""}, {"instruction": "hi", "input": null, "output": ""},
  {"output": "é", "instruction": "say", "extra": [[{}]]} ] )";
    const Dataset data = load_dataset(folder.write("a.json", list), small(), bytes);
    REQUIRE(data.size() == 4);
    CHECK(text_of(data.examples[0]) == "add|1 2>3<end>");
    CHECK(supervised_of(data.examples[0]) == "........3<end>");
    CHECK(text_of(data.examples[1]) == "go|>[,]}\"<end>");
    CHECK(text_of(data.examples[2]) == "hi|><end>");
    CHECK(text_of(data.examples[3]) == "say|>é<end>");
    CHECK(data.origins[0].line == 1);
    CHECK(data.origins[1].line == 3);
    CHECK(data.origins[2].line == 3);
    CHECK(data.origins[3].line == 4);
    CHECK(data.where(3) == folder.str() + "/a.json: line 4, record 4");
    CHECK(data.counts.records == 4);
    CHECK(data.counts.truncated == 0);
    CHECK(supervised_tokens(data.examples[0]) == 2);
}

TEST_CASE("a list and JSON Lines with byte order mark, CRLF and blank lines give the same rows") {
    const TemporaryFolder folder;
    const std::string a = R"({"instruction": "a", "output": "b"})", c = R"({"instruction": "c", "output": "d"})";
    const Dataset list = load_dataset(folder.write("a.json", "[" + a + "," + c + "]"), small(), bytes);
    const std::string lines = "\xEF\xBB\xBF\r\n" + a + "\r\n\r\n  " + c + "\r\n\r\n";
    for (const char* name : {"a.jsonl", "b.json", "c.JSONL"}) {
        const Dataset data = load_dataset(folder.write(name, lines), small(), bytes);
        REQUIRE(data.size() == 2);
        CHECK(data.examples[0].input_ids == list.examples[0].input_ids);
        CHECK(data.examples[1].labels == list.examples[1].labels);
        CHECK(data.origins[0].line == 2);
        CHECK(data.origins[1].line == 4);
        CHECK(data.origins[1].record == 2);
    }
}

TEST_CASE("columns by other names") {
    const TemporaryFolder folder;
    const auto file = folder.write("a.jsonl", R"({"question": "1+1", "answer": "2", "hint": "sum", "text": "no"})");
    DataOptions options = small();
    options.columns = Columns::parse("instruction=question,output=answer");
    CHECK(text_of(load_dataset(file, options, bytes).examples[0]) == "1+1|>2<end>");
    options.columns = Columns::parse("instruction=question,output=answer,input=hint");
    CHECK(text_of(load_dataset(file, options, bytes).examples[0]) == "1+1|sum>2<end>");
    options.columns = Columns::parse("prompt=question,completion=answer");
    CHECK(text_of(load_dataset(file, options, bytes).examples[0]) == "1+12<end>");
    options.columns = Columns::parse("text=answer");
    CHECK(text_of(load_dataset(file, options, bytes).examples[0]) == "2<end>");
}

TEST_CASE("prompt and completion stand as they are") {
    const TemporaryFolder folder;
    const auto file = folder.write("a.jsonl", R"({"prompt": "The sky is", "completion": " blue."})");
    const Dataset data = load_dataset(file, small(), bytes);
    CHECK(supervised_of(data.examples[0]) == ".......... blue.<end>");
}

TEST_CASE("plain text: one stream in blocks, line ends unified, the end once") {
    const TemporaryFolder folder;
    const Dataset data = load_dataset(folder.write("a.txt", "\xEF\xBB\xBFone\r\ntwo\rthree"), small(5), bytes);
    REQUIRE(data.size() == 3);
    CHECK(text_of(data.examples[0]) == "one\nt");
    CHECK(text_of(data.examples[1]) == "wo\rth");
    CHECK(text_of(data.examples[2]) == "ree<end>");
    CHECK(data.examples[1].labels == data.examples[1].input_ids);
    CHECK(data.where(2) == folder.str() + "/a.txt: block 3");
    CHECK(data.counts.records == 1);

    // A last block of one token supervises nothing.
    const Dataset tail = load_dataset(folder.write("b.txt", "12345"), small(5), bytes);
    CHECK(tail.size() == 1);
    CHECK(tail.counts.dropped == 1);
    CHECK(tail.counts.cut_tokens == 1);
}

TEST_CASE("documents as records, as strings, and longer than a row") {
    const TemporaryFolder folder;
    const Dataset lines =
        load_dataset(folder.write("a.jsonl", "{\"text\": \"abc\"}\n{\"text\": \"defghij\"}\n"), small(5), bytes);
    REQUIRE(lines.size() == 3);
    CHECK(text_of(lines.examples[0]) == "abc<end>");
    CHECK(text_of(lines.examples[1]) == "defgh");
    CHECK(text_of(lines.examples[2]) == "ij<end>");
    CHECK(lines.origins[2].line == 2);
    CHECK(lines.counts.records == 2);
    const Dataset strings = load_dataset(folder.write("a.json", R"(["abc", "defghij"])"), small(5), bytes);
    CHECK(strings.examples[2].labels == lines.examples[2].labels);
}

TEST_CASE("an end that the text has already is not doubled") {
    struct EndsWithMark : ByteTokenizer { // '#' is the end
        std::vector<std::int32_t> encode(std::string_view text) const {
            auto ids = ByteTokenizer::encode(text);
            std::replace(ids.begin(), ids.end(), std::int32_t('#'), eos_id());
            return ids;
        }
    };
    const TemporaryFolder folder;
    const auto file = folder.write("a.jsonl", R"({"prompt": "a#", "completion": "b#"})");
    const Dataset data = load_dataset(file, small(), EndsWithMark{});
    CHECK(supervised_of(data.examples[0]) == "..b<end>");
}

TEST_CASE("truncation cuts the end, and drops rows without supervision") {
    const TemporaryFolder folder;
    const std::string rows = R"({"prompt": "12", "completion": "345"}
{"prompt": "12345", "completion": "6"}
{"prompt": "", "completion": "12"}
{"prompt": "1", "completion": "234"})";
    const Dataset data = load_dataset(folder.write("a.jsonl", rows), small(5), bytes);
    REQUIRE(data.size() == 3);
    CHECK(supervised_of(data.examples[0]) == "..345");
    CHECK(supervised_of(data.examples[1]) == "12<end>");
    CHECK(supervised_of(data.examples[2]) == ".234<end>");
    CHECK(data.origins[1].line == 3);
    CHECK(data.counts.records == 4);
    CHECK(data.counts.truncated == 2);
    CHECK(data.counts.dropped == 1);
    CHECK(data.counts.cut_tokens == 1 + 7);
}

TEST_CASE("pre-tokenized rows are used as they stand and need no tokenizer") {
    const TemporaryFolder folder;
    const auto file = folder.write("a.jsonl", R"({"input_ids": [0, 256, 3], "labels": [-100, 7, -100], "text": "x"}
{"input_ids": [5]}
{"labels": null, "input_ids": [1, 2], "attention_mask": [1, 1]}
{"input_ids": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "labels": [-100, -100, -100, -100, -100, -100, -100, -100, -100, -100]})");
    DataOptions options = small(5); // longer rows are not cut: n_positions decides
    options.n_positions = 10;
    const Dataset data = load_dataset(file, options);
    REQUIRE(data.size() == 4);
    CHECK(data.examples[0].input_ids == std::vector<std::int32_t>{0, 256, 3});
    CHECK(data.examples[0].labels == std::vector<std::int32_t>{-100, 7, -100});
    CHECK(data.examples[1].labels == std::vector<std::int32_t>{5});
    CHECK(data.examples[2].labels == std::vector<std::int32_t>{1, 2});
    CHECK(data.examples[3].input_ids.size() == 10);
    CHECK(data.counts.dropped == 0);
    options.columns = Columns::parse("input_ids=tokens");
    CHECK(load_dataset(folder.write("b.json", R"([{"tokens": [1, 2]}])"), options).size() == 1);
}

TEST_CASE("the tokenizer is asked for only when there is text") {
    const TemporaryFolder folder;
    int asked = 0;
    const EncodeRow encode = [&](std::span<const Segment> segments) {
        ++asked;
        return encode_segments(bytes, segments);
    };
    load_dataset(folder.write("a.jsonl", R"({"input_ids": [1, 2]})"), small(), encode);
    CHECK(asked == 0);
    load_dataset(folder.write("b.jsonl", R"({"text": "ab"})"), small(), encode);
    CHECK(asked == 1);
    CHECK(contains(error_of([&] { load_dataset(folder.write("c.txt", "ab"), small()); }), "no tokenizer"));
}
