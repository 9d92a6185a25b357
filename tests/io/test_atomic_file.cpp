#include <csignal>
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <vector>

#include "io/temporary_directory.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "lowrank/io/atomic_file.hpp"
#include "lowrank/io/read_text.hpp"

using namespace lowrank;

namespace {

/// As on a full disk: no file of this process grows beyond `bytes`.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        ::getrlimit(RLIMIT_FSIZE, &old_);
        const rlimit limit{bytes, old_.rlim_max};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    FileSizeLimit(const FileSizeLimit&) = delete;
    FileSizeLimit& operator=(const FileSizeLimit&) = delete;
    ~FileSizeLimit() {
        ::setrlimit(RLIMIT_FSIZE, &old_);
        std::signal(SIGXFSZ, old_handler_);
    }

  private:
    rlimit old_{};
    void (*old_handler_)(int);
};

} // namespace

TEST_CASE("a file is written whole, by small and large writes") {
    TemporaryDirectory directory;
    std::string expected;
    write_atomically(directory / "file", [&](AtomicFile& file) {
        for (std::size_t i = 0; i < 200; ++i) {
            const std::string piece(i % 50 == 0 ? 100'000 : i * 31, static_cast<char>('a' + i % 26));
            file.write(piece);
            expected += piece;
            REQUIRE(file.size() == expected.size());
        }
        CHECK_FALSE(std::filesystem::exists(directory / "file"));
    });
    CHECK(file_bytes(directory / "file") == expected);
    CHECK(directory.entries() == 1);
    write_atomically(directory / "file", "new");
    CHECK(file_bytes(directory / "file") == "new");
    CHECK(directory.entries() == 1);
}

TEST_CASE("a write that fails leaves the old file and nothing beside it") {
    TemporaryDirectory directory;
    write_file(directory / "file", "old");
    SUBCASE("because its body throws") {
        CHECK_THROWS_AS(write_atomically(directory / "file",
                                         [](AtomicFile& file) {
                                             file.write("half");
                                             throw 1;
                                         }),
                        int);
    }
    SUBCASE("because the disk is full while a large piece is written") {
        const FileSizeLimit limit(100'000);
        const std::string message =
            message_of<FileError>([&] { write_atomically(directory / "file", std::string(300'000, 'x')); });
        CHECK(message == (directory / "file").string() + ": cannot write: File too large");
    }
    SUBCASE("because the disk is full when the rest is flushed") {
        const FileSizeLimit limit(10);
        CHECK_THROWS_AS(write_atomically(directory / "file", "more than ten bytes"), FileError);
    }
    CHECK(file_bytes(directory / "file") == "old");
    CHECK(directory.entries() == 1);
}

TEST_CASE("a place where no file can be is refused") {
    TemporaryDirectory directory;
    std::filesystem::create_directory(directory / "directory");
    CHECK_THROWS_WITH_AS(
        AtomicFile(directory / "directory"),
        ((directory / "directory").string() + ": cannot write: found a directory, expected a regular file or none")
            .c_str(),
        FileError);
    CHECK_THROWS_AS(AtomicFile(directory / "missing" / "file"), FileError);
    CHECK_THROWS_AS(AtomicFile("/dev/null"), FileError);
    CHECK(std::filesystem::is_character_file("/dev/null"));
    CHECK(directory.entries() == 1);
}

TEST_CASE("a directory appears whole, and replaces an old one with all it held") {
    TemporaryDirectory directory;
    const auto target = directory / "out";
    {
        AtomicDirectory fresh(directory.path() / "out/"); // a trailing slash changes nothing
        CHECK(fresh.target() == std::filesystem::canonical(directory.path()) / "out");
        write_atomically(fresh.path() / "a", "1");
        std::filesystem::create_directory(fresh.path() / "sub");
        write_file(fresh.path() / "sub" / "b", "2");
        CHECK_FALSE(std::filesystem::exists(target));
        fresh.commit();
    }
    CHECK(file_bytes(target / "a") == "1");
    CHECK(file_bytes(target / "sub" / "b") == "2");
    CHECK(directory.entries() == 1);
    {
        AtomicDirectory abandoned(target);
        write_file(abandoned.path() / "a", "3");
    }
    CHECK(file_bytes(target / "a") == "1");
    CHECK(directory.entries() == 1);
    std::filesystem::create_directory_symlink("out", directory / "link");
    {
        AtomicDirectory next(directory / "link");
        write_file(next.path() / "c", "4");
        next.commit();
    }
    CHECK(std::filesystem::is_symlink(directory / "link"));
    CHECK(file_bytes(target / "c") == "4");
    CHECK_FALSE(std::filesystem::exists(target / "a"));
    CHECK(directory.entries() == 2);

    AtomicDirectory deep(directory / "x" / "y" / "z");
    deep.commit();
    CHECK(std::filesystem::is_directory(directory / "x" / "y" / "z"));
}

TEST_CASE("a relative directory appears below the current one") {
    TemporaryDirectory directory;
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(directory.path());
    {
        AtomicDirectory fresh("new");
        write_file(fresh.path() / "a", "1");
        fresh.commit();
    }
    std::filesystem::current_path(before);
    CHECK(file_bytes(directory / "new" / "a") == "1");
    CHECK(directory.entries() == 1);
}

TEST_CASE("a directory is not put over a file or over the current directory") {
    TemporaryDirectory directory;
    write_file(directory / "file", "");
    CHECK_THROWS_AS(AtomicDirectory(directory / "file"), FileError);
    CHECK_THROWS_AS(AtomicDirectory(directory / "file" / "below"), FileError);
    CHECK_THROWS_AS(AtomicDirectory("."), FileError);
    CHECK_THROWS_AS(AtomicDirectory("/"), FileError);
    CHECK_THROWS_AS(AtomicDirectory(""), FileError);
    CHECK(directory.entries() == 1);
}

TEST_CASE("text is read whole up to the limit") {
    TemporaryDirectory directory;
    const std::string text(100'000, 'y');
    write_file(directory / "text", text);
    CHECK(read_text(directory / "text") == text);
    CHECK(read_text(directory / "text", text.size()) == text);
    CHECK_THROWS_AS(read_text(directory / "text", text.size() - 1), FileError);
    write_file(directory / "empty", "");
    CHECK(read_text(directory / "empty", 0) == "");
    CHECK_THROWS_AS(read_text(directory / "missing"), FileError);
    CHECK_THROWS_AS(read_text(directory.path()), FileError);
    CHECK_THROWS_AS(read_text("/dev/zero", 1 << 20), FileError); // announces no size, and does not end
}
