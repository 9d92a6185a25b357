// UTF-8 and the byte alphabet.
#include <doctest/doctest.h>

#include <string>

#include "lowrank/text/byte_level.hpp"
#include "lowrank/text/unicode.hpp"

using namespace lowrank;

TEST_CASE("every code point survives encoding and decoding") {
    for (char32_t code = 0; code < 0x110000; ++code) {
        if (code >= 0xd800 && code < 0xe000) {
            continue;
        }
        std::string text;
        append_utf8(text, code);
        const Utf8Step step = utf8_step(text, 0);
        const bool same =
            step.status == Utf8Step::Status::valid && step.code_point == code && step.length == text.size();
        REQUIRE_MESSAGE(same, "U+", static_cast<unsigned>(code));
        for (std::size_t cut = 1; cut < text.size(); ++cut) {
            const Utf8Step part = utf8_step(text.substr(0, cut), 0);
            REQUIRE(part.status == Utf8Step::Status::incomplete);
            REQUIRE(part.length == cut);
        }
    }
}

TEST_CASE("validate_utf8 names the first bad byte") {
    CHECK(!validate_utf8(""));
    CHECK(!validate_utf8("plain text of more than eight bytes"));
    CHECK(!validate_utf8("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"));
    CHECK(validate_utf8("12345678901\xff") == 11);
    CHECK(validate_utf8("a\xc0\x80") == 1);                  // overlong
    CHECK(validate_utf8("ab\xed\xa0\x80") == 2);             // surrogate
    CHECK(validate_utf8("\xf4\x90\x80\x80") == 0);           // above U+10FFFF
    CHECK(validate_utf8("12345678\xe2\x82") == 8);           // truncated
    CHECK(validate_utf8("\x80") == 0);                       // continuation alone
    CHECK(validate_utf8(std::string("ok\0ok\xf8", 6)) == 5); // a zero byte is fine
}

TEST_CASE("malformed parts become one U+FFFD each, as in Unicode 3.9, table 3-8") {
    const auto lossy = [](std::string_view bytes) {
        std::string out;
        CHECK(append_utf8_lossy(out, bytes, true) == bytes.size());
        return out;
    };
    const std::string bad = "\xef\xbf\xbd";
    CHECK(lossy("caf\xc3\xa9") == "caf\xc3\xa9");
    CHECK(lossy("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41") == bad + bad + bad + bad + bad + bad + bad + bad + "A");
    CHECK(lossy("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41") == bad + bad + bad + bad + "A");
    std::string out;
    CHECK(append_utf8_lossy(out, "a\xf0\x9f\x99", false) == 1);
    CHECK(out == "a");
}

TEST_CASE("classes of code points") {
    CHECK(char_class(U'a') == CharClass::letter);
    CHECK(char_class(U'中') == CharClass::letter);
    CHECK(char_class(0x345) == CharClass::other); // a combining mark is \p{M}, though alphabetic
    CHECK(char_class(U'½') == CharClass::number);
    CHECK(char_class(0x3000) == CharClass::space);
    CHECK(char_class(0x85) == CharClass::space);
    CHECK(char_class(0x1c) == CharClass::other); // a space to Python's str.isspace only
    CHECK(char_class(0x200b) == CharClass::other);
    CHECK(char_class(0x10ffff) == CharClass::other);
}

TEST_CASE("the byte alphabet is one-to-one") {
    CHECK(to_byte_alphabet(" the\n") == "ĠtheĊ");
    std::string bytes;
    for (int byte = 0; byte < 256; ++byte) {
        bytes += static_cast<char>(byte);
    }
    CHECK(from_byte_alphabet(to_byte_alphabet(bytes)) == bytes);
    CHECK(!from_byte_alphabet("a b"));
    CHECK(!from_byte_alphabet("\u0144"));
    CHECK(!from_byte_alphabet("\xff"));
}
