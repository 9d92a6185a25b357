// Memory of the host: blocks of the system, and those that wait to be used again.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lowrank::detail {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool is_sanitized = true;
#elif defined(__has_feature)
inline constexpr bool is_sanitized = __has_feature(address_sanitizer);
#else
inline constexpr bool is_sanitized = false;
#endif

/// Blocks of the system. Large ones are mapped one by one, so that the memory of a freed one is no longer the
/// process's: malloc would keep it for its next large block, once it has seen one freed.
struct SystemMemory {
    static constexpr std::size_t alignment = 64, huge = std::size_t(2) << 20, page = 4096;

    /// A block of `bytes`, of which the first `used` are to be written soon. The whole huge pages in those are huge
    /// where the system grants them on request: fewer faults at the first touch, and fewer lookups afterwards. Throws
    /// std::bad_alloc.
    static void* allocate(std::size_t bytes, [[maybe_unused]] std::size_t used) {
#if defined(__linux__)
        if (is_mapped(bytes)) {
            const std::size_t size = rounded(bytes, page);
            void* mapped = mmap(nullptr, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (mapped == MAP_FAILED) {
                throw std::bad_alloc();
            }
            // A block begins with a huge page: what lies before and behind goes back.
            auto* begin = static_cast<std::byte*>(mapped);
            const std::size_t before = -reinterpret_cast<std::uintptr_t>(begin) % huge;
            if (before != 0) {
                munmap(begin, before);
            }
            if (before != huge) {
                munmap(begin + before + size, huge - before);
            }
            madvise(begin + before, used / huge * huge, MADV_HUGEPAGE); // a wish: that it fails is no error
            return begin + before;
        }
#endif
        void* memory = std::aligned_alloc(alignment, rounded(bytes, alignment));
        if (memory == nullptr) {
            throw std::bad_alloc();
        }
        return memory;
    }

    /// Returns a block of as many bytes as were asked for.
    static void free(void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__)
        if (is_mapped(bytes)) {
            munmap(memory, rounded(bytes, page));
            return;
        }
#endif
        std::free(memory);
    }

  private:
    // Mapped memory would hide accesses outside it from the sanitizer.
    static constexpr bool is_mapped(std::size_t bytes) {
        return !is_sanitized && bytes >= huge;
    }
    static constexpr std::size_t rounded(std::size_t bytes, std::size_t unit) {
        return (bytes + unit - 1) / unit * unit;
    }
};

/// Freed blocks of memory kept for later requests: a training step asks for the same sizes again and again, and
/// returning them to the system each time costs a page fault per 4 KiB. Beyond 32 MiB that is little beside the work on
/// a block, and what it holds is missed elsewhere, so those are returned. A request takes a block of its own size
/// class. Where rows differ in length from step to step, blocks of every size would pile up: so once more lies unused
/// than the layers of a step leave to one another, a request also takes a block of a class up to twice as large, and
/// where there is none, as many unused bytes go back as it has itself.
class BlockCache {
  public:
    static constexpr std::size_t alignment = SystemMemory::alignment, most_kept = std::size_t(32) << 20,
                                 most_spare = 2 * most_kept;

    static BlockCache& instance() {
        static BlockCache* cache = new BlockCache; // never destroyed: tensors may outlive every other static
        return *cache;
    }

    /// Throws std::bad_alloc.
    void* allocate(std::size_t bytes) {
        if (bytes > std::size_t(-1) / 2) { // no size class holds it
            throw std::bad_alloc();
        }
        const std::size_t wanted = class_of(bytes);
        if (!is_sanitized) { // which is to see every use after the end
            std::scoped_lock lock(mutex_);
            const std::size_t last = unused_ > most_spare ? wanted + 3 : wanted;
            for (std::size_t size_class = wanted; size_class <= last; ++size_class) {
                if (auto& list = free_[size_class]; !list.empty()) {
                    void* block = list.back();
                    list.pop_back();
                    unused_ -= bytes_of(size_class);
                    return block;
                }
            }
            make_room(bytes_of(wanted));
        }
        void* memory = SystemMemory::allocate(alignment + bytes_of(wanted), alignment + bytes);
        *static_cast<std::size_t*>(memory) = wanted; // the block's class lies in front of it
        return static_cast<std::byte*>(memory) + alignment;
    }

    void deallocate(void* block) noexcept {
        const std::size_t size_class = class_in_front(block), bytes = bytes_of(size_class);
        if (!is_sanitized && bytes <= most_kept) {
            try {
                std::scoped_lock lock(mutex_);
                free_[size_class].push_back(block);
                unused_ += bytes;
                return;
            } catch (...) { // no memory for the list
            }
        }
        give_back(block);
    }

    void clear() {
        std::scoped_lock lock(mutex_);
        for (auto& list : free_) {
            for (void* block : list) {
                give_back(block);
            }
            list.clear();
        }
        unused_ = 0;
    }

    /// Bytes of the blocks that wait to be used again.
    std::size_t unused() {
        std::scoped_lock lock(mutex_);
        return unused_;
    }

    // Size classes: four to each power of two, from 256 bytes on.
    static constexpr std::size_t class_of(std::size_t bytes) {
        const std::size_t last = (bytes < 256 ? 256 : bytes) - 1; // the smallest class holds 256 bytes
        const auto power = static_cast<std::size_t>(std::bit_width(last));
        return power * 4 + (last >> (power - 3) & 3);
    }
    static constexpr std::size_t bytes_of(std::size_t size_class) {
        return (size_class % 4 + 5) << (size_class / 4 - 3);
    }

  private:
    /// Gives back as many bytes of mapped blocks as a new one takes, but none of those that may stay: the smallest
    /// first, which serve the fewest requests. A block that is not kept itself displaces none that the next step would
    /// miss.
    void make_room(std::size_t bytes) {
        if (bytes < SystemMemory::huge || bytes > most_kept) {
            return;
        }
        const std::size_t stays = std::max(most_spare, unused_ - std::min(unused_, bytes));
        for (std::size_t size_class = class_of(SystemMemory::huge); size_class < free_.size(); ++size_class) {
            for (auto& list = free_[size_class]; !list.empty() && unused_ > stays;) {
                give_back(list.back());
                list.pop_back();
                unused_ -= bytes_of(size_class);
            }
        }
    }

    static std::size_t class_in_front(const void* block) {
        return *reinterpret_cast<const std::size_t*>(static_cast<const std::byte*>(block) - alignment);
    }
    static void give_back(void* block) noexcept {
        SystemMemory::free(static_cast<std::byte*>(block) - alignment, alignment + bytes_of(class_in_front(block)));
    }

    std::mutex mutex_;
    std::array<std::vector<void*>, 66 * 4> free_;
    std::size_t unused_ = 0; // bytes in those lists
};

} // namespace lowrank::detail
