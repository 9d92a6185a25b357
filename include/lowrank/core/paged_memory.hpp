// Memory backed by a file of its own, which the system may write out when memory is short.
#pragma once

#include <chrono>
#include <cstddef>
#include <fcntl.h>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <utility>

#include "lowrank/core/file_descriptor.hpp"

namespace lowrank {

/// A zeroed block of memory in a file without a name: it is gone with its owner, however the process ends.
class PagedMemory {
  public:
    /// A file in `directory`, all of whose `bytes` are reserved. Throws FileError where it cannot be made, and where
    /// the file system has no room for it.
    static std::shared_ptr<PagedMemory> create(const std::string& directory, std::size_t bytes) {
        return std::shared_ptr<PagedMemory>(new PagedMemory(directory, bytes));
    }

    PagedMemory(const PagedMemory&) = delete;
    PagedMemory& operator=(const PagedMemory&) = delete;
    ~PagedMemory() { ::munmap(address_, size_); }

    std::byte* data() { return static_cast<std::byte*>(address_); }
    std::size_t size() const { return size_; }

  private:
    PagedMemory(const std::string& directory, std::size_t bytes) : size_(bytes == 0 ? 1 : bytes) {
        const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
        const FileDescriptor file(concat(directory, "/lowrank-", ::getpid(), "-", now, ".tmp"),
                                  O_RDWR | O_CREAT | O_EXCL, 0600);
        ::unlink(file.path().c_str());
        // Reserved now: a file system that is full later would end the process at a write (SIGBUS).
        int reason = 0;
        do {
            reason = ::posix_fallocate(file.get(), 0, static_cast<off_t>(size_));
        } while (reason == EINTR);
        if (reason != 0) {
            throw_file_error(file.path(), concat("reserve its ", size_, " bytes"), reason);
        }
        address_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
        if (address_ == MAP_FAILED) {
            throw_file_error(file.path(), concat("map its ", size_, " bytes"), errno);
        }
    }

    void* address_ = nullptr;
    std::size_t size_;
};

} // namespace lowrank
