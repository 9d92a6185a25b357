#include <doctest/doctest.h>

#include "data_testing.hpp"
#include "lowrank/text/template.hpp"

using namespace lowrank;

TEST_CASE("the Alpaca template has its two forms") {
    const auto alpaca = PromptTemplate::alpaca();
    CHECK(alpaca.render("Add.", "1 2") ==
          "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
          "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### "
          "Response:\n");
    CHECK(alpaca.render("Add.") ==
          "Below is an instruction that describes a task. Write a response that appropriately completes the "
          "request.\n\n### Instruction:\nAdd.\n\n### Response:\n");
}

TEST_CASE("placeholders are replaced in one pass, and double braces are braces") {
    const PromptTemplate one("{{{instruction}}} <{input}>\n");
    CHECK(one.render("{input} {{x}} {", "}") == "{{input} {{x}} {} <}>\n");
    CHECK(one.render("a") == "{a} <>\n");
    CHECK(one == PromptTemplate(one.with_input(), one.without_input()));
}

TEST_CASE("a template without a place for the input refuses one") {
    const PromptTemplate plain("Q: {instruction}\nA:");
    CHECK(plain.render("why") == "Q: why\nA:");
    CHECK_THROWS_AS(plain.render("why", "not"), OptionError);
}

TEST_CASE("bad templates are refused") {
    for (const char* text : {"", "no placeholder", "{instruction", "{instruction} }", "{}{instruction}",
                             "{instruction} {output}", "{ instruction }", "{input}", "{instruction{input}}"}) {
        CAPTURE(text);
        CHECK_THROWS_AS(PromptTemplate{std::string(text)}, OptionError);
    }
    CHECK_THROWS_AS(PromptTemplate("{instruction}{input}", "{instruction} and {input}"), OptionError);
    CHECK_THROWS_AS(PromptTemplate("{instruction}", "{instruction} other"), OptionError);
    CHECK(contains(error_of([] { PromptTemplate{std::string("{instruction} {output}")}; }), "{output}"));
}
