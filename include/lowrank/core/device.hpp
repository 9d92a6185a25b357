// Devices: tags that say where memory lies, with the little that storage needs of each.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

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

/// Freed blocks of memory kept for the next request of the same size class: a training step asks for the same sizes
/// again and again, and returning them to the system each time costs a page fault per 4 KiB.
class BlockCache {
  public:
    static constexpr std::size_t alignment = 64;

    static BlockCache& instance() {
        static BlockCache* cache = new BlockCache; // never destroyed: tensors may outlive every other static
        return *cache;
    }

    static std::size_t rounded(std::size_t bytes) {
        if (bytes <= 256) {
            return 256;
        }
        const std::size_t step = std::bit_floor(bytes - 1) / 4; // four classes for each power of two
        return (bytes + step - 1) / step * step;
    }

    void* allocate(std::size_t bytes) {
        bytes = rounded(bytes);
        {
            std::scoped_lock lock(mutex_);
            auto& list = free_[index(bytes)];
            if (!list.empty()) {
                void* block = list.back();
                list.pop_back();
                return block;
            }
        }
        return ::operator new(bytes, std::align_val_t(alignment));
    }

    void deallocate(void* block, std::size_t bytes) noexcept {
        bytes = rounded(bytes);
        try {
            std::scoped_lock lock(mutex_);
            free_[index(bytes)].push_back(block);
        } catch (...) {
            ::operator delete(block, std::align_val_t(alignment));
        }
    }

    void clear() {
        std::scoped_lock lock(mutex_);
        for (auto& list : free_) {
            for (void* block : list) {
                ::operator delete(block, std::align_val_t(alignment));
            }
            list.clear();
        }
    }

  private:
    static std::size_t index(std::size_t rounded_bytes) {
        const auto power = static_cast<std::size_t>(std::bit_width(rounded_bytes - 1));
        const std::size_t quarter = (rounded_bytes - 1) >> (power - 3) & 3;
        return power * 4 + quarter;
    }

    std::mutex mutex_;
    std::array<std::vector<void*>, 65 * 4> free_;
};

} // namespace detail

/// The host: its memory, its cores.
struct Cpu {
    static constexpr const char* name() { return "cpu"; }
    static void* allocate(std::size_t bytes) { return detail::BlockCache::instance().allocate(bytes); }
    static void deallocate(void* p, std::size_t bytes) noexcept { detail::BlockCache::instance().deallocate(p, bytes); }
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
