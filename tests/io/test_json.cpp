#include <cstdint>
#include <doctest/doctest.h>
#include <set>
#include <string>

#include "io/temporary_directory.hpp"
#include "lowrank/io/json.hpp"
#include "lowrank/io/python_json.hpp"

using namespace lowrank;

namespace {
std::string refusal(std::string_view text, std::size_t first_line = 1) {
    return message_of<FileError>([&] { parse_json(text, "f.json", first_line); });
}
} // namespace

TEST_CASE("JSONTestSuite: what must be accepted is, what must be refused is") {
    const std::filesystem::path suite = std::filesystem::path(LOWRANK_SHARED_DATA) / "json" / "test_parsing";
    if (!std::filesystem::exists(suite)) {
        MESSAGE("skipped: no JSONTestSuite at ", suite.string());
        return;
    }
    // A key given twice is valid JSON by its grammar, but never meant: refused on purpose.
    const std::set<std::string> refused{"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"};
    int files = 0;
    for (const auto& file : std::filesystem::directory_iterator(suite)) {
        const std::string name = file.path().filename().string();
        CAPTURE(name);
        if (name.starts_with("n_") || refused.contains(name)) {
            CHECK_THROWS_AS(read_json(file.path()), FileError);
        } else if (name.starts_with("y_")) {
            CHECK_NOTHROW(read_json(file.path()));
        } else {
            const std::string message = message_of<FileError>([&] { read_json(file.path()); }); // no other exception
            CHECK((message.empty() || message.starts_with(file.path().string() + ": line ")));
        }
        ++files;
    }
    CHECK(files == 318);
}

TEST_CASE("values arrive as they are") {
    const json value =
        parse_json("\xEF\xBB\xBF {\"a\": [1, -2, 18446744073709551615, 2.5, true, null, \"\\u00e9\\n\"], "
                   "\"b\": {\"c\": {}}, \"d\": []}",
                   "f");
    CHECK(value["a"][0].get<int>() == 1);
    CHECK(value["a"][1].get<int>() == -2);
    CHECK(value["a"][2].get<std::uint64_t>() == UINT64_MAX);
    CHECK(value["a"][3].get<double>() == 2.5);
    CHECK(value["a"][4].get<bool>());
    CHECK(value["a"][5].is_null());
    CHECK(value["a"][6].get<std::string>() == "é\n");
    CHECK(value["b"]["c"] == json::object());
    CHECK(value["d"] == json::array());
    CHECK(parse_json("7", "f") == 7);
}

TEST_CASE("errors say file, line and column") {
    CHECK(refusal("{\n  \"a\": 1,\n  \"a\": 2}") == "f.json: line 3, column 5: key \"a\" appears twice in one object");
    CHECK(refusal("[1,\n 2 3]").starts_with("f.json: line 2, column "));
    CHECK(refusal("[x]", 17).starts_with("f.json: line 17, column 2: "));
    CHECK(refusal("").starts_with("f.json: line 1, column 1: "));
    CHECK(refusal("[1e999]").find("number overflow") != std::string::npos);
    CHECK(refusal("[\"a\nb\"]").starts_with("f.json: line 1, column 4: "));
    CHECK(refusal(std::string("1\0 2", 4)) == "f.json: line 1, column 2: found a zero byte, expected JSON text");
    // The same key in different objects is fine; in an inner one it is not.
    CHECK(refusal(R"({"a": {"a": [{"a": 1}, {"a": 2}]}})") == "");
    CHECK(refusal(R"({"a": {"b": 1, "b": 2}})") != "");
    // A hostile text does not fill the message.
    CHECK(refusal("[" + std::string(100'000, 'x')).size() < 300);
    CHECK(refusal("[1" + std::string(100'000, '9') + "e999999]").size() < 300);
    const std::string key = "\"\\u001b[2J" + std::string(100'000, 'k') + "\": 1";
    const std::string message = refusal("{" + key + ", " + key + "}");
    CHECK(message.size() < 300);
    CHECK(message.find('\x1b') == std::string::npos);
}

TEST_CASE("nesting is bounded") {
    const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
    CHECK(refusal(nested(128)) == "");
    CHECK(refusal(nested(129)) == "f.json: line 1, column 129: found more than 128 nested arrays and objects");
    CHECK(refusal(nested(1'000'000)) != "");
    std::string objects;
    for (int i = 0; i < 200'000; ++i) {
        objects += "{\"a\":";
    }
    CHECK(refusal(objects) != "");
}

TEST_CASE("every truncation of a document is refused") {
    const std::string text = R"({"key": [1.5e3, true, null, {"é\u00e9": "x"}], "n": -1})";
    CHECK(refusal(text) == "");
    for (std::size_t length = 0; length < text.size(); ++length) {
        CAPTURE(length);
        CHECK(refusal(std::string_view(text).substr(0, length)) != "");
    }
}

TEST_CASE("to_python_json writes what Python's json.dumps writes") {
    const std::filesystem::path file = std::filesystem::path(LOWRANK_TEST_FIXTURES) / "io_python.json";
    const std::string text = read_text(file);
    CHECK(to_python_json(parse_json(text, "io_python.json")) == text);
    CHECK(to_python_json(json::object()) == "{}");
    CHECK(to_python_json(1.0) == "1.0");
    CHECK_THROWS_AS(to_python_json(std::numeric_limits<double>::quiet_NaN()), NumericError);
    CHECK_THROWS_AS(to_python_json(std::numeric_limits<double>::infinity()), NumericError);
}
