// Devices: tags that say where memory lies, with the little that storage needs of each.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>

#include "lowrank/core/block_cache.hpp"

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
