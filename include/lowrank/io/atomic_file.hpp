// A file that appears complete or not at all: written beside its place, synced, and renamed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lowrank/core/file_descriptor.hpp"

namespace lowrank {

namespace detail {

/// `<path>.tmp-<process>-<counter>`: a name beside `path` that no one else uses.
inline std::filesystem::path name_beside(const std::filesystem::path& path) {
    static std::atomic<unsigned> counter{0};
    return path.string() + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
}

inline void sync_directory(const std::filesystem::path& directory) {
    FileDescriptor(directory.empty() ? "." : directory.string(), O_RDONLY | O_DIRECTORY).sync();
}

} // namespace detail

/// A new version of the file `path`. What is written goes to a temporary file beside it; `commit` syncs that and
/// renames it to `path`. Without `commit` the destructor removes it, and `path` stays what it was.
class AtomicFile {
  public:
    /// Creates the temporary file; throws FileError where that fails or `path` is a directory or a device.
    explicit AtomicFile(const std::filesystem::path& path)
        : path_(path),
          temporary_(detail::name_beside(refuse_special(path))) {
        file_.emplace(temporary_, O_WRONLY | O_CREAT | O_EXCL);
    }

    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    ~AtomicFile() {
        if (!committed_) {
            ::unlink(temporary_.c_str());
        }
    }

    /// The file that will appear.
    const std::filesystem::path& path() const { return path_; }

    /// Appends bytes; throws FileError that names the file and the reason (a full disk, a quota).
    void write(std::span<const std::byte> bytes) {
        if (buffer_.size() + bytes.size() > buffer_limit) {
            flush();
        }
        if (bytes.size() >= buffer_limit) {
            write_through(bytes);
        } else {
            buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        }
        written_ += bytes.size();
    }
    void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

    /// Bytes written so far.
    std::size_t size() const { return written_; }

    /// Puts the file in its place, on the disk. Call once, last. Throws FileError, and leaves the old file then.
    void commit() {
        flush();
        file_->sync();
        file_->close();
        if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
            throw_file_error(path_, "put the new file in its place", errno);
        }
        committed_ = true;
        detail::sync_directory(path_.parent_path());
    }

  private:
    static constexpr std::size_t buffer_limit = std::size_t(1) << 16;

    /// A rename over /dev/null or a directory's name must not even be tried.
    static const std::filesystem::path& refuse_special(const std::filesystem::path& path) {
        std::error_code missing;
        const auto status = std::filesystem::status(path, missing);
        const bool directory = std::filesystem::is_directory(status);
        if (directory || std::filesystem::is_other(status)) {
            throw FileError(concat(path.string(), ": cannot write: found ",
                                   directory ? "a directory" : "a special file", ", expected a regular file or none"));
        }
        return path;
    }

    void flush() {
        write_through(std::as_bytes(std::span(buffer_)));
        buffer_.clear();
    }

    void write_through(std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            const ssize_t done = ::write(file_->get(), bytes.data(), bytes.size());
            if (done < 0 && errno != EINTR) {
                throw_file_error(path_, "write", errno);
            }
            bytes = bytes.subspan(done > 0 ? static_cast<std::size_t>(done) : 0);
        }
    }

    std::filesystem::path path_;
    std::filesystem::path temporary_;
    std::optional<FileDescriptor> file_;
    std::string buffer_;
    std::size_t written_ = 0;
    bool committed_ = false;
};

/// Writes the file `path` through `body`, and puts it in its place when `body` returns; where `body` throws, or
/// anything fails, `path` stays what it was.
inline void write_atomically(const std::filesystem::path& path, const std::function<void(AtomicFile&)>& body) {
    AtomicFile file(path);
    body(file);
    file.commit();
}

/// Writes `text` as the file `path`, complete or not at all; throws FileError.
inline void write_atomically(const std::filesystem::path& path, std::string_view text) {
    write_atomically(path, [&](AtomicFile& file) { file.write(text); });
}

} // namespace lowrank
