// Real data files against what Hugging Face tokenizers make of them (scripts/data_fixtures.py).
#include <doctest/doctest.h>
#include <filesystem>
#include <set>

#include "data_testing.hpp"
#include "lowrank/data/describe.hpp"
#include "lowrank/data/load.hpp"
#include "lowrank/text/load_tokenizer.hpp"

using namespace lowrank;

namespace {

const std::string shared = LOWRANK_SHARED_DATA;

std::string fnv1a(const Dataset& data) {
    std::uint64_t value = 0xCBF29CE484222325u;
    for (const Example& row : data.examples) {
        for (const auto* ids : {&row.input_ids, &row.labels}) {
            for (const std::int32_t id : *ids) {
                for (int shift = 0; shift < 32; shift += 8) {
                    value = (value ^ ((static_cast<std::uint32_t>(id) >> shift) & 0xff)) * 0x100000001B3u;
                }
            }
        }
    }
    std::string hex;
    for (int shift = 60; shift >= 0; shift -= 4) {
        hex += "0123456789abcdef"[(value >> shift) & 15];
    }
    return hex;
}

} // namespace

TEST_CASE("real files give the tokens and labels of Hugging Face tokenizers") {
    if (!std::filesystem::exists(shared + "/gpt2/vocab.json")) {
        MESSAGE("skipped: no data in ", shared);
        return;
    }
    const Tokenizer tokenizer = Tokenizer::load(shared + "/gpt2");
    for (const json& expected : read_json(LOWRANK_TEST_FIXTURES "/data_tokenized.json")) {
        const std::string file = expected["file"];
        CAPTURE(file);
        DataOptions options;
        options.columns = Columns::parse(expected["columns"].get<std::string>());
        options.text_template = TextTemplate::named(expected["template"].get<std::string>());
        options.separator = expected["separator"];
        options.max_seq_length = expected["max_seq_length"];
        options.n_positions = 1024;
        options.vocab_size = tokenizer.vocab_size();
        const Dataset data = load_dataset(shared + "/" + file, options, tokenizer);
        std::size_t tokens = 0;
        std::int64_t supervised = 0;
        for (const Example& row : data.examples) {
            tokens += row.input_ids.size();
            supervised += supervised_tokens(row);
        }
        CHECK(data.size() == expected["rows"]);
        CHECK(tokens == expected["tokens"]);
        CHECK(supervised == expected["supervised"]);
        CHECK(fnv1a(data) == expected["fnv1a"]);
    }
}

TEST_CASE("a prompt has the ids in training that it has at inference") {
    if (!std::filesystem::exists(shared + "/gpt2/vocab.json")) {
        MESSAGE("skipped: no data in ", shared);
        return;
    }
    const Tokenizer tokenizer = Tokenizer::load(shared + "/gpt2");
    const TemporaryFolder folder; // tokenized together, "\n" and "\n" merge
    const auto file = folder.write("a.jsonl", R"({"instruction": "Begin.", "output": "\n\nhello"})");
    const Dataset data = load_dataset(file, DataOptions{}, tokenizer);
    const auto prompt = tokenizer.encode(PromptTemplate::alpaca().render("Begin."));
    const auto& row = data.examples[0];
    REQUIRE(row.input_ids.size() > prompt.size());
    for (std::size_t i = 0; i < row.labels.size(); ++i) {
        CHECK((row.labels[i] == ignored_label) == (i < prompt.size()));
        CHECK((i >= prompt.size() || row.input_ids[i] == prompt[i]));
    }
    const std::string shown =
        describe_sample(data, 0, [&](std::span<const std::int32_t> ids) { return tokenizer.decode(ids); });
    CHECK(contains(shown, "### Response:\n--- supervised"));
    CHECK(contains(shown, "\n\nhello<|endoftext|>\n"));
}

TEST_CASE("every instruction and generation file loads") {
    if (!std::filesystem::exists(shared + "/gpt2/vocab.json")) {
        MESSAGE("skipped: no data in ", shared);
        return;
    }
    struct File {
        std::string name, columns, separator, text_template;
        std::size_t rows;
    };
    const std::string qa = "instruction=question,output=answer";
    const std::vector<File> files = {
        {"instruct/alpaca-format-1100.json", "", "", "alpaca", 1100},
        {"instruct/alpaca-format-1100.json", "", "", "chatml", 1100},
        {"instruct/gsm8k-train.jsonl", qa, "", "plain", 7473},
        {"instruct/identity.json", "", "", "zephyr", 91},
        {"instruct/seed_tasks.jsonl", "", "", "alpaca", 175},
        {"instruct/sharegpt-500.json", "", "", "alpaca", 500},
        {"instruct/sharegpt-500.json", "", "", "chatml", 500},
        {"instruct/user_oriented_instructions.jsonl", "", "", "vicuna", 252},
        {"instruct/wikisql-train.jsonl", "", "", "alpaca", 1000},
        {"instruct/wikisql-valid.jsonl", "", "", "alpaca", 100},
        {"nlg/e2e-devset.csv", "prompt=mr,completion=ref", "", "alpaca", 4672},
        {"nlg/e2e-devset.csv", "instruction=mr,output=ref", "", "alpaca", 4672},
        {"nlg/e2e-lora-valid.txt", "", "||", "alpaca", 4672},
        {"nlg/e2e-lora-valid.txt", "", "", "alpaca", 0},
    };
    const Tokenizer tokenizer = Tokenizer::load(shared + "/gpt2");
    std::set<std::string> named;
    for (const File& file : files) {
        CAPTURE(file.name);
        DataOptions options;
        options.columns = Columns::parse(file.columns);
        options.separator = file.separator;
        options.text_template = TextTemplate::named(file.text_template);
        options.n_positions = 1024;
        options.vocab_size = tokenizer.vocab_size();
        const Dataset data = load_dataset(shared + "/" + file.name, options, tokenizer);
        CHECK(data.counts.dropped == (file.name == "instruct/seed_tasks.jsonl" ? 1 : 0)); // a prompt of 1024 tokens
        if (file.rows > 0) { // a document has as many rows as it is long
            CHECK(data.size() + data.counts.dropped == file.rows);
            CHECK(data.counts.records == file.rows);
        }
        for (const Example& row : data.examples) {
            REQUIRE(supervised_tokens(row) > 0);
        }
        named.insert(file.name);
    }
    for (const char* folder : {"instruct", "nlg"}) {
        for (const auto& entry : std::filesystem::directory_iterator(shared + "/" + folder)) {
            CHECK(named.contains(folder + ("/" + entry.path().filename().string())));
        }
    }
}

TEST_CASE("a real conversation: each answer is supervised with its end, and nothing else") {
    if (!std::filesystem::exists(shared + "/gpt2/vocab.json")) {
        MESSAGE("skipped: no data in ", shared);
        return;
    }
    const Tokenizer tokenizer = Tokenizer::load(shared + "/gpt2");
    const std::string file = shared + "/instruct/sharegpt-500.json";
    const Dataset data = load_dataset(file, DataOptions{}, tokenizer);
    const json records = read_json(file);
    for (std::size_t i = 0; i < data.size(); ++i) {
        std::string expected, supervised;
        for (const json& turn : records[i]["conversations"]) {
            expected += turn["from"] == "gpt" ? turn["value"].get<std::string>() + "<|endoftext|>" : "";
        }
        for (const std::int32_t label : data.examples[i].labels) {
            supervised += label == ignored_label ? "" : tokenizer.token_bytes(label);
        }
        CHECK(supervised == expected);
    }
    const std::string shown =
        describe_sample(data, 0, [&](std::span<const std::int32_t> ids) { return tokenizer.decode(ids); });
    CHECK(contains(shown, " tokens:\n### Instruction:\nWho are you?\n\n### Response:\n--- supervised, "));
}

TEST_CASE("no file of JSONTestSuite crashes a reader") {
    const std::string folder = shared + "/json/test_parsing";
    if (!std::filesystem::exists(folder)) {
        MESSAGE("skipped: no data in ", shared);
        return;
    }
    std::size_t files = 0, refused = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        ++files;
        refused += !error_of([&] { load_dataset(entry.path().string(), DataOptions{}, ByteTokenizer{}); }).empty();
    }
    CHECK(files > 300);
    CHECK(refused > files - 60); // lists of strings are documents
}
