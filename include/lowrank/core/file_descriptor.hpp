// An open file: closed by its owner, with errors that name the path and the system's reason.
#pragma once

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// Throws FileError "<path>: cannot <action>: <text of the errno value `reason`>".
[[noreturn]] inline void throw_file_error(const std::string& path, std::string_view action, int reason) {
    throw FileError(concat(path, ": cannot ", action, ": ", std::generic_category().message(reason)));
}

/// Owner of a POSIX file descriptor.
class FileDescriptor {
  public:
    /// Opens `path` with the flags and mode of open(2); throws FileError.
    explicit FileDescriptor(const std::string& path, int flags, mode_t mode = 0666) : path_(path) {
        do {
            value_ = ::open(path.c_str(), flags | O_CLOEXEC, mode);
        } while (value_ < 0 && errno == EINTR);
        if (value_ < 0) {
            throw_file_error(path_, flags & O_CREAT ? "create" : "open", errno);
        }
    }

    FileDescriptor(FileDescriptor&& other) noexcept
        : path_(std::move(other.path_)),
          value_(std::exchange(other.value_, -1)) {}
    FileDescriptor& operator=(FileDescriptor&&) = delete;
    ~FileDescriptor() {
        if (value_ >= 0) {
            ::close(value_);
        }
    }

    int get() const { return value_; }
    const std::string& path() const { return path_; }

    /// What fstat(2) says of the open file; throws FileError.
    struct stat status() const {
        struct stat result {};
        if (::fstat(value_, &result) != 0) {
            throw_file_error(path_, "inspect", errno);
        }
        return result;
    }

    /// Waits until the file's content (of a directory: its names) is on the disk; throws FileError.
    void sync() const {
        // EINVAL: a file system or device that knows no fsync.
        if (::fsync(value_) != 0 && errno != EINVAL) {
            throw_file_error(path_, "sync", errno);
        }
    }

    /// Closes now, so that an error that the system reports this late is not lost; throws FileError.
    void close() {
        if (value_ >= 0 && ::close(std::exchange(value_, -1)) != 0 && errno != EINTR) {
            throw_file_error(path_, "close", errno);
        }
    }

  private:
    std::string path_;
    int value_ = -1;
};

} // namespace lowrank
