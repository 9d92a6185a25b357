#include <cstdint>
#include <cstdlib>
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "io/temporary_directory.hpp"
#include "lowrank/io/safetensors.hpp"
#include "lowrank/io/safetensors_writer.hpp"

using namespace lowrank;

namespace {

const std::filesystem::path fixtures = LOWRANK_TEST_FIXTURES;

std::vector<TensorSource> sources_of(const SafetensorsFile& file) {
    std::vector<TensorSource> sources;
    for (const auto& tensor : file.tensors()) {
        const TensorEntry& entry = tensor.second;
        sources.emplace_back(entry.name, entry.dtype, entry.shape, entry.bytes);
    }
    return sources;
}

std::string refusal(const std::vector<TensorSource>& sources, const std::map<std::string, std::string>& metadata = {}) {
    TemporaryDirectory directory;
    const std::string message =
        message_of<FileError>([&] { write_safetensors(directory / "file", sources, metadata); });
    CHECK(directory.entries() == (message.empty() ? 1 : 0));
    return message;
}

const std::vector<std::byte> some_bytes(64);
TensorSource::Bytes bytes(std::size_t count) {
    return TensorSource::Bytes(some_bytes).first(count);
}

} // namespace

TEST_CASE("what the reference wrote is written again byte by byte") {
    TemporaryDirectory directory;
    std::vector<std::filesystem::path> files{fixtures / "io_all_dtypes.safetensors",
                                             fixtures / "io_sharded" / "model-00001-of-00003.safetensors"};
    for (const char* name : {"models/gpt-nano-sort/model.safetensors", "models/stories260K/reference.safetensors"}) {
        const std::filesystem::path file = std::filesystem::path(LOWRANK_SHARED_DATA) / name;
        if (std::filesystem::exists(file)) {
            files.push_back(file);
        } else {
            MESSAGE("skipped: no file at ", file.string());
        }
    }
    for (const std::filesystem::path& path : files) {
        CAPTURE(path.string());
        const SafetensorsFile file = SafetensorsFile::open(path);
        write_safetensors(directory / "again", sources_of(file), file.metadata());
        CHECK((file_bytes(directory / "again") == file_bytes(path)));
    }
}

TEST_CASE("tensors may be made one at a time") {
    const char* kept = std::getenv("LOWRANK_TEST_OUTPUT"); // for tests/scripts/io_check_safetensors.py
    TemporaryDirectory directory;
    const std::filesystem::path path = (kept ? std::filesystem::path(kept) : directory.path()) / "written.safetensors";
    std::vector<float> buffer; // of one tensor
    std::vector<TensorSource> sources;
    for (int i = 0; i < 20; ++i) {
        const std::int64_t size = i * 100;
        sources.emplace_back(concat("layer.", i, ".weight"), DType::f32, std::vector<std::int64_t>{size},
                             [&buffer, size, i] {
                                 buffer.assign(static_cast<std::size_t>(size), static_cast<float>(i));
                                 return std::as_bytes(std::span(buffer));
                             });
    }
    write_safetensors(path, sources, {{"format", "pt"}, {"é", "\n"}});
    const SafetensorsFile file = SafetensorsFile::open(path);
    CHECK(file.metadata().at("é") == "\n");
    for (int i = 0; i < 20; ++i) {
        const TensorEntry& entry = file.at(concat("layer.", i, ".weight"));
        CHECK(entry.shape == std::vector<std::int64_t>{i * 100});
        const auto* values = reinterpret_cast<const float*>(entry.bytes.data()); // aligned, for the header is padded
        CHECK(std::all_of(values, values + i * 100, [&](float value) { return value == static_cast<float>(i); }));
    }
}

TEST_CASE("no tensors, no metadata") {
    TemporaryDirectory directory;
    write_safetensors(directory / "file", {});
    CHECK(SafetensorsFile::open(directory / "file").keys().empty());
    CHECK(file_bytes(directory / "file") == std::string("\x8\0\0\0\0\0\0\0{}      ", 16));
}

TEST_CASE("what cannot be read back is not written, and leaves no file") {
    CHECK(refusal({{"a", DType::u8, {4}, bytes(4)}}) == "");
    CHECK(refusal({{"a", DType::f32, {4}, bytes(4)}})
              .ends_with("cannot write tensor \"a\": found 4 bytes, expected 16 for F32 of shape [4]"));
    CHECK(refusal({{"a", DType::u8, {-4}, bytes(4)}}).find("found shape [-4]") != std::string::npos);
    const std::int64_t huge = std::int64_t(1) << 40;
    CHECK(refusal({{"a", DType::u8, {huge, huge}, bytes(4)}}).find("product fits 64 bits") != std::string::npos);
    CHECK(refusal({{"a", DType::u8, {4}, bytes(4)}, {"a", DType::i8, {4}, bytes(4)}}).find("given twice") !=
          std::string::npos);
    CHECK(refusal({{"__metadata__", DType::u8, {4}, bytes(4)}}).find("reserved") != std::string::npos);
    CHECK(refusal({{"\xff", DType::u8, {4}, bytes(4)}}).find("cannot write a name or metadata") != std::string::npos);
    CHECK(refusal({}, {{"k", "\xff"}}).find("cannot write a name or metadata") != std::string::npos);
}
