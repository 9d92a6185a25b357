// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <sys/mman.h>

#include "lowrank/core/file_descriptor.hpp"

namespace lowrank {

/// The bytes of a whole file, mapped privately and read-only. Shared: whoever points into it holds a share.
/// The file must not shrink while it is mapped (the system then raises SIGBUS on access).
class MappedFile {
  public:
    /// Maps the regular file `path`; throws FileError where it is missing, unreadable, empty or not a regular file.
    static std::shared_ptr<const MappedFile> open(const std::string& path) {
        return std::shared_ptr<const MappedFile>(new MappedFile(path));
    }

    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile() { ::munmap(address_, size_); }

    const std::byte* data() const { return static_cast<const std::byte*>(address_); }
    std::size_t size() const { return size_; }
    std::span<const std::byte> bytes() const { return {data(), size_}; }
    const std::string& path() const { return path_; }

    /// Drops the pages that lie entirely in [offset, offset + length) from this process's memory. They are read
    /// again from the file when they are touched again. Bytes outside the file are ignored.
    void advise_dontneed(std::size_t offset, std::size_t length) const {
        const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        if (offset >= size_) {
            return;
        }
        const bool to_the_end = length >= size_ - offset;
        const std::size_t first = (offset + page - 1) / page * page;
        const std::size_t last = to_the_end ? size_ : (offset + length) / page * page;
        if (first < last) {
            ::madvise(static_cast<char*>(address_) + first, last - first, MADV_DONTNEED);
        }
    }

  private:
    explicit MappedFile(const std::string& path) : path_(path) {
        const FileDescriptor file(path, O_RDONLY | O_NONBLOCK); // a FIFO must not block the open
        const struct stat status = file.status();
        if (!S_ISREG(status.st_mode)) {
            throw FileError(concat(path, ": found ", S_ISDIR(status.st_mode) ? "a directory" : "a special file",
                                   ", expected a regular file"));
        }
        if (status.st_size == 0) {
            throw FileError(concat(path, ": the file is empty"));
        }
        size_ = static_cast<std::size_t>(status.st_size);
        address_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
        if (address_ == MAP_FAILED) {
            throw_file_error(path, concat("map its ", size_, " bytes"), errno);
        }
    }

    std::string path_;
    void* address_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace lowrank
