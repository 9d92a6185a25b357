// Devices: tags that say where memory lies, with the little that storage needs of each.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lowrank {

/// What a device tag provides. Everything else that a device does are kernels: free functions that take the tag as
/// their first argument and are found by argument-dependent lookup (see backend/cpu/).
template <class D>
concept DeviceTag = std::default_initializable<D> && requires(void* p, const void* q, std::size_t n) {
    { D::allocate(n) } -> std::same_as<void*>;
    { D::deallocate(p, n) }
    noexcept;
    D::copy_from_host(p, q, n);
    D::copy_to_host(p, q, n);
    D::copy(p, q, n);
    D::zero(p, n);
    { D::name() } -> std::convertible_to<const char*>;
};

namespace detail {

/// Freed blocks of memory kept for later requests: a training step asks for the same sizes again and again, and
/// returning them to the system each time costs a page fault per 4 KiB. Beyond 32 MiB that is little beside the work on
/// a block, and what it holds is missed elsewhere, so those are returned. A request takes a block of its own size
/// class, or of a class up to twice as large, so that rows of varying length do not pile up blocks of every size.
class BlockCache {
  public:
    static constexpr std::size_t alignment = 64, most_kept = std::size_t(32) << 20;

    static BlockCache& instance() {
        static BlockCache* cache = new BlockCache; // never destroyed: tensors may outlive every other static
        return *cache;
    }

    void* allocate(std::size_t bytes) {
        const std::size_t wanted = class_of(bytes);
        if (keeps_blocks) {
            std::scoped_lock lock(mutex_);
            for (std::size_t size_class = wanted; size_class < wanted + 4; ++size_class) {
                if (auto& list = free_[size_class]; !list.empty()) {
                    void* block = list.back();
                    list.pop_back();
                    return block;
                }
            }
        }
        void* memory = from_system(alignment + bytes_of(wanted));
        *static_cast<std::size_t*>(memory) = wanted; // the block's class lies in front of it
        return static_cast<std::byte*>(memory) + alignment;
    }

    void deallocate(void* block) noexcept {
        void* memory = static_cast<std::byte*>(block) - alignment;
        if (keeps_blocks && bytes_of(*static_cast<std::size_t*>(memory)) <= most_kept) {
            try {
                std::scoped_lock lock(mutex_);
                free_[*static_cast<std::size_t*>(memory)].push_back(block);
                return;
            } catch (...) { // no memory for the list
            }
        }
        std::free(memory);
    }

    void clear() {
        std::scoped_lock lock(mutex_);
        for (auto& list : free_) {
            for (void* block : list) {
                std::free(static_cast<std::byte*>(block) - alignment);
            }
            list.clear();
        }
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
#if defined(__SANITIZE_ADDRESS__)
    static constexpr bool keeps_blocks = false; // so that the sanitizer sees every use after the end
#elif defined(__has_feature)
    static constexpr bool keeps_blocks = !__has_feature(address_sanitizer);
#else
    static constexpr bool keeps_blocks = true;
#endif

    /// New memory. What holds whole huge pages gets them where the system grants them on request: fewer faults at the
    /// first touch, and fewer lookups afterwards.
    static void* from_system(std::size_t bytes) {
        constexpr std::size_t huge = std::size_t(2) << 20, page = 4096;
        if (bytes > std::size_t(-1) - page) {
            throw std::bad_alloc();
        }
        const std::size_t unit = bytes < huge ? alignment : page, whole = (bytes + unit - 1) / unit * unit;
        void* memory = std::aligned_alloc(bytes < huge ? alignment : huge, whole);
        if (memory == nullptr) {
            throw std::bad_alloc();
        }
#if defined(__linux__)
        if (bytes >= huge) {
            madvise(memory, whole, MADV_HUGEPAGE); // a wish: that it fails is no error
        }
#endif
        return memory;
    }

    std::mutex mutex_;
    std::array<std::vector<void*>, 66 * 4> free_;
};

} // namespace detail

/// The host: its memory, its cores.
struct Cpu {
    static constexpr const char* name() { return "cpu"; }
    static void* allocate(std::size_t bytes) { return detail::BlockCache::instance().allocate(bytes); }
    static void deallocate(void* p, std::size_t) noexcept { detail::BlockCache::instance().deallocate(p); }
    static void copy(void* to, const void* from, std::size_t bytes) {
        if (bytes != 0) {
            std::memcpy(to, from, bytes);
        }
    }
    static void copy_from_host(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes); }
    static void copy_to_host(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes); }
    static void zero(void* p, std::size_t bytes) {
        if (bytes != 0) {
            std::memset(p, 0, bytes);
        }
    }
    /// Returns memory kept for reuse to the system.
    static void empty_cache() { detail::BlockCache::instance().clear(); }
};

} // namespace lowrank
