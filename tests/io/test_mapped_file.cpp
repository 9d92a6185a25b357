#include <cstring>
#include <doctest/doctest.h>
#include <sys/stat.h>

#include "io/temporary_directory.hpp"
#include "lowrank/core/mapped_file.hpp"

using namespace lowrank;

namespace {
std::string refusal(const std::filesystem::path& path) {
    return message_of<FileError>([&] { MappedFile::open(path); });
}
} // namespace

TEST_CASE("a mapped file shows the file's bytes, also after its pages are dropped") {
    TemporaryDirectory directory;
    std::string text(3 * 4096 + 100, 'x');
    for (std::size_t i = 0; i < text.size(); ++i) {
        text[i] = static_cast<char>(i * 7 + i / 256);
    }
    write_file(directory / "file", text);
    const auto file = MappedFile::open(directory / "file");
    std::filesystem::remove(directory / "file"); // the mapping needs no name
    REQUIRE(file->size() == text.size());
    CHECK(file->path() == (directory / "file").string());
    CHECK(std::memcmp(file->data(), text.data(), text.size()) == 0);

    const std::size_t all = text.size();
    for (const std::size_t offset : {std::size_t(0), std::size_t(1), std::size_t(5000), all - 1, all, all + 9000}) {
        for (const std::size_t length : {std::size_t(0), std::size_t(4096), std::size_t(9000), all, ~std::size_t(0)}) {
            file->advise_dontneed(offset, length);
            REQUIRE(std::memcmp(file->data(), text.data(), text.size()) == 0);
        }
    }
}

TEST_CASE("what cannot be mapped is refused with its path and the reason") {
    TemporaryDirectory directory;
    CHECK(refusal(directory / "missing") ==
          (directory / "missing").string() + ": cannot open: No such file or directory");
    CHECK(refusal(directory.path()) == directory.path().string() + ": found a directory, expected a regular file");
    write_file(directory / "empty", "");
    CHECK(refusal(directory / "empty") == (directory / "empty").string() + ": the file is empty");
    REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);
    CHECK(refusal(directory / "pipe").find("found a special file") != std::string::npos);
    CHECK(refusal(directory / "missing" / "deeper") != "");
    CHECK(refusal("") != "");
}
