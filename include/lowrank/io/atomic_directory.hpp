// A directory that appears complete or not at all: filled beside its place, synced, and swapped in.
#pragma once

#include <cstdio>
#include <filesystem>
#include <string>

#include "lowrank/core/file_descriptor.hpp"
#include "lowrank/io/atomic_file.hpp"

namespace lowrank {

/// A new version of the directory `target`. Files are written below `path()`; `commit` syncs them and exchanges the
/// two directories in one step, then deletes the old one with all that was in it. Without `commit` the destructor
/// removes the new one, and `target` stays what it was.
class AtomicDirectory {
  public:
    /// Creates the temporary directory, and missing parents; throws FileError where that fails, where `target` is a
    /// file, or where it holds the current directory (which would be deleted).
    explicit AtomicDirectory(const std::filesystem::path& target) : target_(resolve(target)) {
        std::filesystem::create_directories(target_.parent_path(), error_);
        check("create the parent directory");
        path_ = detail::name_beside(target_);
        if (::mkdir(path_.c_str(), 0777) != 0) {
            throw_file_error(path_, "create the directory", errno);
        }
    }

    AtomicDirectory(const AtomicDirectory&) = delete;
    AtomicDirectory& operator=(const AtomicDirectory&) = delete;
    ~AtomicDirectory() {
        if (!committed_) {
            std::filesystem::remove_all(path_, error_);
        }
    }

    /// Where to write the files.
    const std::filesystem::path& path() const { return path_; }

    /// The directory that will appear.
    const std::filesystem::path& target() const { return target_; }

    /// Puts the directory in its place, on the disk. Call once, last. Throws FileError, and keeps the old one then.
    void commit() {
        sync_all();
        if (!std::filesystem::exists(target_, error_)) {
            rename(path_, target_);
            committed_ = true;
        } else {
            const std::filesystem::path old = exchange();
            committed_ = true;
            detail::sync_directory(target_.parent_path());
            std::filesystem::remove_all(old, error_);
            check(concat("delete the replaced version ", old.string()));
        }
        detail::sync_directory(target_.parent_path());
    }

  private:
    /// The absolute target, links followed, so that a link to a directory stays a link.
    static std::filesystem::path resolve(const std::filesystem::path& target) {
        std::error_code error;
        std::filesystem::path result = std::filesystem::absolute(target, error);
        if (!error) {
            result = std::filesystem::weakly_canonical(result, error);
        }
        if (error) {
            throw FileError(concat(target.string(), ": cannot find the place of this directory: ", error.message()));
        }
        if (!result.has_filename()) { // "new/" is "new"
            result = result.parent_path();
        }
        if (std::filesystem::exists(result, error) && !std::filesystem::is_directory(result, error)) {
            throw FileError(concat(target.string(), ": found a file, expected a directory or none"));
        }
        const std::string inside = (std::filesystem::current_path(error) / "").string();
        if (inside.starts_with((result / "").string())) {
            throw FileError(concat(target.string(), ": cannot replace a directory that holds the current one"));
        }
        return result;
    }

    void sync_all() {
        detail::sync_directory(path_);
        for (std::filesystem::recursive_directory_iterator it(path_, error_), end; it != end; it.increment(error_)) {
            check("list the files");
            const auto kind = it->symlink_status(error_).type();
            check("inspect the files");
            if (kind == std::filesystem::file_type::directory || kind == std::filesystem::file_type::regular) {
                FileDescriptor(it->path(), O_RDONLY).sync();
            }
        }
        check("list the files");
    }

    /// Swaps the new directory with the old one and returns where the old one is now.
    std::filesystem::path exchange() {
#ifdef RENAME_EXCHANGE
        if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
            return path_;
        }
        if (errno != EINVAL && errno != ENOSYS) {
            throw_file_error(target_, "replace the directory", errno);
        }
#endif
        return exchange_by_renames();
    }

    /// For file systems that cannot exchange (NFS, some FUSE): between two renames the old version is under another
    /// name.
    std::filesystem::path exchange_by_renames() {
        const std::filesystem::path old = detail::name_beside(target_);
        rename(target_, old);
        try {
            rename(path_, target_);
        } catch (const FileError&) {
            rename(old, target_);
            throw;
        }
        return old;
    }

    static void rename(const std::filesystem::path& from, const std::filesystem::path& to) {
        if (std::rename(from.c_str(), to.c_str()) != 0) {
            throw_file_error(from, concat("rename to ", to.string()), errno);
        }
    }

    void check(const std::string& action) const {
        if (error_) {
            throw FileError(concat(target_.string(), ": cannot ", action, ": ", error_.message()));
        }
    }

    std::filesystem::path target_;
    std::filesystem::path path_;
    std::error_code error_;
    bool committed_ = false;
};

} // namespace lowrank
