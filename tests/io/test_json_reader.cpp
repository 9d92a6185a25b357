#include <cstdint>
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "io/temporary_directory.hpp"
#include "lowrank/io/json_reader.hpp"

using namespace lowrank;

namespace {

JsonReader reader(std::string_view text) {
    return {parse_json(text, "config.json"), "config.json"};
}

template <class Body>
std::string refusal(const Body& body) {
    return message_of<FileError>(body);
}

} // namespace

TEST_CASE("typed getters return what is there") {
    JsonReader config = reader(R"({"n": 12, "x": 0.5, "flag": true, "name": "gpt2", "list": ["a", "b"],
                                   "nothing": null, "inner": {"m": -3}, "big": 9223372036854775807})");
    CHECK(config.get_integer("n", 1, 12) == 12);
    CHECK(config.get_integer("big") == INT64_MAX);
    CHECK(config.get_number("x", 0, 1) == 0.5);
    CHECK(config.get_number("n") == 12.0);
    CHECK(config.get_bool("flag"));
    CHECK(config.get_string("name") == "gpt2");
    CHECK(config.get_strings("list") == std::vector<std::string>{"a", "b"});
    CHECK(config.get_object("inner").get_integer("m") == -3);
    CHECK(config.has("n"));
    CHECK_FALSE(config.has("nothing"));
    CHECK_FALSE(config.has("absent"));
    CHECK(config.keys().size() == 8);
}

TEST_CASE("a fallback serves for what is absent or null, not for what is wrong") {
    JsonReader config = reader(R"({"nothing": null, "text": "x"})");
    CHECK(config.get_integer_or("absent", 7) == 7);
    CHECK(config.get_integer_or("nothing", 7) == 7);
    CHECK(config.get_number_or("absent", 0.5) == 0.5);
    CHECK(config.get_bool_or("absent", true));
    CHECK(config.get_string_or("absent", "d") == "d");
    CHECK(config.get_string_or("text", "d") == "x");
    CHECK_THROWS_AS(config.get_integer_or("text", 7), FileError);
    CHECK_THROWS_AS(config.get_bool_or("text", true), FileError);
}

TEST_CASE("errors say file, key, what was found and what was expected") {
    JsonReader config = reader(R"({"n_head": "twelve", "n": 0, "huge": 9223372036854775808, "x": 1.5, "list": ["a", 3],
                                   "none": null, "inner": {"deeper": {"k": true}}})");
    CHECK(refusal([&] { config.get_integer("n_head", 1); }) ==
          R"(config.json: key 'n_head': found "twelve" (string), expected an integer >= 1)");
    CHECK(refusal([&] { config.get_integer("n", 1, 8); }) ==
          "config.json: key 'n': found 0 (number), expected an integer from 1 to 8");
    CHECK(refusal([&] { config.get_integer("huge"); }) ==
          "config.json: key 'huge': found 9223372036854775808 (number), expected an integer");
    CHECK(refusal([&] { config.get_integer("x"); }) == "config.json: key 'x': found 1.5 (number), expected an integer");
    CHECK(refusal([&] { config.get_number("x", 0, 1); }) ==
          "config.json: key 'x': found 1.5 (number), expected a number from 0.0 to 1.0");
    CHECK(refusal([&] { config.get_number("list"); }) == "config.json: key 'list': found a list, expected a number");
    CHECK(refusal([&] { config.get_bool("none"); }) == "config.json: key 'none': found null, expected true or false");
    CHECK(refusal([&] { config.get_string("absent"); }) ==
          "config.json: key 'absent': found no such key, expected a string");
    CHECK(refusal([&] { config.get_strings("list"); }) ==
          "config.json: key 'list': found 3 (number) at position 1, expected a list of strings");
    CHECK(refusal([&] { config.get_object("inner").get_object("deeper").get_string("k"); }) ==
          "config.json: key 'inner.deeper.k': found true (boolean), expected a string");
    CHECK(refusal([] { reader("[1]"); }) == "config.json: found a list, expected a JSON object");
}

TEST_CASE("keys that nobody asked for are known") {
    JsonReader config = reader(R"({"a": 1, "typo": 2, "b": null, "other": {}})");
    config.get_integer("a");
    config.get_integer_or("b", 0);
    CHECK(config.unread_keys() == std::vector<std::string>{"other", "typo"});
}

TEST_CASE("a config.json is read from its file") {
    TemporaryDirectory directory;
    write_file(directory / "config.json", R"({"n_layer": 3})");
    CHECK(JsonReader::open(directory / "config.json").get_integer("n_layer") == 3);
    CHECK_THROWS_AS(JsonReader::open(directory / "missing.json"), FileError);
}
