#include <cstdint>
#include <cstring>
#include <doctest/doctest.h>
#include <map>
#include <string>
#include <vector>

#include "io/temporary_directory.hpp"
#include "lowrank/io/safetensors.hpp"

using namespace lowrank;

namespace {

const std::filesystem::path fixtures = LOWRANK_TEST_FIXTURES;

std::string safetensors(std::string_view header, std::string_view data = "") {
    const std::uint64_t length = header.size();
    std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
    return bytes.append(header).append(data);
}

/// The message with which a file of these bytes is refused, or "" where it is accepted.
std::string refusal(std::string_view bytes) {
    static TemporaryDirectory directory;
    write_file(directory / "file", bytes);
    return message_of<FileError>([] {
        const SafetensorsFile file = SafetensorsFile::open(directory / "file");
        for (const std::string& key : file.keys()) {
            file.at(key);
        }
    });
}

template <class T>
std::vector<T> values(const TensorEntry& entry) {
    std::vector<T> result(entry.bytes.size() / sizeof(T));
    if (!result.empty()) { // an empty vector's null must not reach memcpy
        std::memcpy(result.data(), entry.bytes.data(), entry.bytes.size());
    }
    return result;
}

} // namespace

TEST_CASE("a file of the reference implementation is read: every type, scalars, empty tensors, metadata") {
    const SafetensorsFile file = SafetensorsFile::open(fixtures / "io_all_dtypes.safetensors");
    CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
    CHECK(file.tensors().size() == 14);
    CHECK(file.keys().size() == 14);
    CHECK(file.unsupported().empty());
    const auto check = [&]<class T>(const std::string& key, DType dtype, std::vector<std::int64_t> shape,
                                    std::vector<T> expected) {
        CAPTURE(key);
        const TensorEntry& entry = file.at(key);
        CHECK(entry.name == key);
        CHECK(entry.dtype == dtype);
        CHECK(entry.shape == shape);
        CHECK(values<T>(entry) == expected);
        CHECK(entry.file == file.mapping());
    };
    check("f64", DType::f64, {3}, std::vector<double>{0, 1, 2});
    check("f32", DType::f32, {2, 3}, std::vector<float>{0, 1, 2, 3, 4, 5});
    check("bf16", DType::bf16, {5}, std::vector<std::uint16_t>{0, 0x3f80, 0x4000, 0x4040, 0x4080});
    check("f16", DType::f16, {1, 2, 1}, std::vector<std::uint16_t>{0, 0x3c00});
    check("i64", DType::i64, {4}, std::vector<std::int64_t>{0, 1, 2, 3});
    check("i32", DType::i32, {2, 2}, std::vector<std::int32_t>{0, 1, 2, 3});
    check("i16", DType::i16, {3}, std::vector<std::int16_t>{0, 1, 2});
    check("i8", DType::i8, {3}, std::vector<std::int8_t>{0, 1, 2});
    check("u8", DType::u8, {5}, std::vector<std::uint8_t>{0, 1, 2, 3, 4});
    check("bool", DType::boolean, {3}, std::vector<std::uint8_t>{1, 0, 1});
    check("scalar", DType::f32, {}, std::vector<float>{1.5f});
    check("empty", DType::f32, {0}, std::vector<float>{});
    check("empty.middle", DType::i8, {2, 0, 3}, std::vector<std::int8_t>{});
    check("name \"quoted\" \\ \n \x7f é 日本 \U0001f600", DType::f32, {2}, std::vector<float>{0, 1});
}

TEST_CASE("a name that is not there is refused with those that are similar") {
    const SafetensorsFile file = SafetensorsFile::open(fixtures / "io_all_dtypes.safetensors");
    CHECK(file.find("scaler") == nullptr);
    CHECK(file.find("scalar") != nullptr);
    const std::string message = message_of<FileError>([&] { file.at("scaler"); });
    CHECK(message.find("tensor \"scaler\": not in the file; similar: scalar, ") != std::string::npos);
}

TEST_CASE("a tensor of a type that lowrank lacks is an error only where it is asked for") {
    const SafetensorsFile file = SafetensorsFile::open(fixtures / "io_foreign_dtypes.safetensors");
    CHECK(values<float>(file.at("known")) == std::vector<float>{0, 1});
    CHECK(file.keys() == std::vector<std::string>{"complex", "f8", "known", "u16", "u32", "u64"});
    CHECK(file.unsupported().at("f8") == "F8_E4M3");
    const std::string message = message_of<FileError>([&] { file.find("u16"); });
    CHECK(message.ends_with("tensor \"u16\": found type \"U16\", which is not supported"));
}

TEST_CASE("headers are accepted and refused as by the reference implementation") {
    const json verdicts = read_json(fixtures / "io_header_verdicts.json");
    CHECK(verdicts.size() > 70);
    for (const json& verdict : verdicts) {
        const std::string header = verdict[0];
        CAPTURE(header);
        const std::string message = refusal(safetensors(header, std::string(verdict[1].get<std::size_t>(), 'x')));
        CHECK(message.empty() == verdict[2].get<bool>());
    }
}

TEST_CASE("where the reference is laxer than the format's description, the description holds") {
    const std::string tensor = R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
    CHECK(refusal(safetensors("{" + tensor + "}", "1234")) == "");
    CHECK(refusal(safetensors("{" + tensor + "," + tensor + "}", "1234")).find("appears twice") != std::string::npos);
    CHECK(refusal(safetensors(" {" + tensor + "}", "1234")).find("does not begin with '{'") != std::string::npos);
}

TEST_CASE("every truncation and every extension of a file is refused") {
    const std::string bytes = file_bytes(fixtures / "io_all_dtypes.safetensors");
    REQUIRE(refusal(bytes) == "");
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        CAPTURE(length);
        REQUIRE(refusal(std::string_view(bytes).substr(0, length)) != "");
    }
    CHECK(refusal(bytes + "x") != "");
}

TEST_CASE("a changed byte never leads outside the file") {
    const std::string bytes = file_bytes(fixtures / "io_all_dtypes.safetensors");
    for (std::size_t at = 0; at < bytes.size() && bytes.compare(at, 1, "}") != 0; ++at) {
        for (const char replacement : {'\0', '9', '"', '-', '[', '\xff'}) {
            std::string changed = bytes;
            changed[at] = replacement;
            refusal(changed); // accepted or FileError, nothing else; the sanitizers watch
        }
    }
}

TEST_CASE("lying header lengths are refused before anything is allocated") {
    for (const std::uint64_t length :
         {std::uint64_t(3), std::uint64_t(100'000'000), std::uint64_t(100'000'001), std::uint64_t(1) << 40,
          std::uint64_t(1) << 63, ~std::uint64_t(0), ~std::uint64_t(0) - 7}) {
        std::string bytes = safetensors("{}");
        std::memcpy(bytes.data(), &length, sizeof length);
        CAPTURE(length);
        CHECK(refusal(bytes).find("found a header length of " + std::to_string(length)) != std::string::npos);
    }
    CHECK(refusal("").ends_with("the file is empty"));
    CHECK(refusal("1234567").find("found 7 bytes") != std::string::npos);
    CHECK(refusal(safetensors("")) != "");
}

TEST_CASE("messages name the tensor, what was found and what was expected") {
    const auto one = [](std::string_view shape, std::string_view offsets) {
        return safetensors(concat(R"({"w":{"dtype":"F32","shape":)", shape, R"(,"data_offsets":)", offsets, "}}"),
                           "12345678");
    };
    CHECK(refusal(one("[3]", "[0,8]")).ends_with("tensor \"w\": found 8 bytes, expected 12 for F32 of shape [3]"));
    CHECK(refusal(one("[3]", "[0,12]"))
              .ends_with("tensor \"w\": found data_offsets [0,12], expected [begin, end] within the 8 bytes of data"));
    CHECK(refusal(one("[-2]", "[0,8]")).ends_with("tensor \"w\": expected \"shape\" to be a list of integers >= 0"));
    CHECK(refusal(one("[1]", "[4,8]")).find("tensor \"w\": found data at offset 4, expected 0") != std::string::npos);
    CHECK(refusal(one("[1]", "[0,4]")).ends_with("found 8 bytes of data, expected 4 as the tensors say"));
    CHECK(refusal(one("[9000000000000000000]", "[0,8]")).find("more than exist") != std::string::npos);
    CHECK(refusal(safetensors("{\"w\xff\":{}}")).find("ill-formed UTF-8") != std::string::npos);
}
