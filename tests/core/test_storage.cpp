#include <algorithm>
#include <cstdint>
#include <cstring>
#include <doctest/doctest.h>
#include <fstream>
#include <memory>
#include <new>
#include <unistd.h>
#include <vector>

#include "lowrank/core/storage.hpp"

using namespace lowrank;

TEST_CASE("handles share a block, and writes raise its version") {
    auto storage = Storage<Cpu>::allocate(100);
    CHECK(storage.bytes() == 100);
    CHECK(reinterpret_cast<std::uintptr_t>(storage.data()) % 64 == 0);
    CHECK(storage.unique());
    const auto version = storage.version();
    static_cast<char*>(storage.mutable_data())[0] = 7;
    CHECK(storage.version() == version + 1);
    const auto copy = storage;
    CHECK_FALSE(storage.unique());
    CHECK(copy.data() == storage.data());
    CHECK(copy.version() == storage.version());
    CHECK_FALSE(bool(Storage<Cpu>()));
}

TEST_CASE("borrowed memory is read-only unless said, and keeps its owner alive") {
    auto owner = std::make_shared<std::vector<float>>(4, 1.0f);
    const std::weak_ptr<std::vector<float>> watch = owner;
    {
        const float* data = owner->data();
        auto storage = Storage<Cpu>::view(data, 16, std::move(owner));
        CHECK(storage.data() == data);
        CHECK_FALSE(storage.unique());
        CHECK_THROWS_AS(storage.mutable_data(), Error);
        CHECK_FALSE(watch.expired());
    }
    CHECK(watch.expired());
    float own[2] = {};
    auto writable = Storage<Cpu>::view(own, sizeof own, nullptr, true);
    static_cast<float*>(writable.mutable_data())[1] = 3.0f;
    CHECK(own[1] == 3.0f);
}

TEST_CASE("freed blocks are used again, in size classes that fit") {
    using detail::BlockCache;
    for (std::size_t bytes : {0, 1, 256, 257, 300, 320, 321, 4096, 5000, 65537, 1 << 20, (1 << 20) + 1}) {
        const std::size_t holds = BlockCache::bytes_of(BlockCache::class_of(bytes));
        CHECK(holds >= bytes);
        CHECK(holds <= std::max<std::size_t>(256, bytes + bytes / 4 + 1));
        void* block = Cpu::allocate(bytes);
        CHECK(reinterpret_cast<std::uintptr_t>(block) % 64 == 0);
        std::memset(block, 1, bytes);
        Cpu::deallocate(block, bytes);
        void* again = Cpu::allocate(bytes);
        CHECK((again == block || detail::is_sanitized));
        Cpu::deallocate(again, bytes);
    }
    Cpu::empty_cache();
}

TEST_CASE("more memory than there is") {
    CHECK_THROWS_AS(Cpu::allocate(std::size_t(-1)), std::bad_alloc);
    if (!detail::is_sanitized) { // which ends the program
        CHECK_THROWS_AS(Cpu::allocate(std::size_t(-1) / 4), std::bad_alloc);
    }
}

TEST_CASE("a larger block is taken once 64 MiB lie unused, if it is not too large") {
    if (detail::is_sanitized) {
        return;
    }
    constexpr std::size_t mib = std::size_t(1) << 20;
    const auto gives_one_of = [](const std::vector<void*>& freed, std::size_t bytes) {
        void* block = Cpu::allocate(bytes);
        const bool is_one = std::find(freed.begin(), freed.end(), block) != freed.end();
        Cpu::deallocate(block, bytes);
        return is_one;
    };
    Cpu::empty_cache();
    std::vector<void*> blocks;
    for (int i = 0; i < 6; ++i) {
        blocks.push_back(Cpu::allocate(12 * mib));
    }
    for (int i = 0; i < 5; ++i) {
        Cpu::deallocate(blocks[static_cast<std::size_t>(i)], 12 * mib);
    }
    CHECK(gives_one_of(blocks, 12 * mib));
    CHECK_FALSE(gives_one_of(blocks, 10 * mib));
    Cpu::empty_cache(); // of that one and those five
    for (int i = 0; i < 5; ++i) {
        blocks[static_cast<std::size_t>(i)] = Cpu::allocate(12 * mib);
    }
    for (void* block : blocks) {
        Cpu::deallocate(block, 12 * mib);
    }
    CHECK(gives_one_of(blocks, 10 * mib));
    CHECK(gives_one_of(blocks, 8 * mib));
    CHECK_FALSE(gives_one_of(blocks, 6 * mib));
    Cpu::empty_cache();
}

TEST_CASE("blocks of a size that is no longer asked for go back to the system") {
    if (detail::is_sanitized) {
        return;
    }
    constexpr std::size_t mib = std::size_t(1) << 20;
    const auto unused = [] { return detail::BlockCache::instance().unused() / mib; };
    const auto allocate = [](std::size_t count, std::size_t bytes) {
        std::vector<void*> blocks;
        for (std::size_t i = 0; i < count; ++i) {
            blocks.push_back(Cpu::allocate(bytes));
        }
        return blocks;
    };
    const auto deallocate = [](const std::vector<void*>& blocks, std::size_t bytes) {
        for (void* block : blocks) {
            Cpu::deallocate(block, bytes);
        }
    };
    Cpu::empty_cache();
    deallocate(allocate(8, 12 * mib), 12 * mib);
    CHECK(unused() == 96);
    const std::vector<void*> huge = allocate(1, 40 * mib); // which is not kept itself
    CHECK(unused() == 96);
    const std::vector<void*> small = allocate(1, 1 * mib);
    CHECK(unused() == 96);
    const std::vector<void*> larger = allocate(1, 24 * mib);
    CHECK(unused() == 72);
    const std::vector<void*> others = allocate(2, 24 * mib);
    CHECK(unused() == 60); // so much may stay
    deallocate(larger, 24 * mib);
    deallocate(others, 24 * mib);
    deallocate(small, 1 * mib);
    deallocate(huge, 40 * mib);
    Cpu::empty_cache();
    CHECK(unused() == 0);
}

TEST_CASE("a block of more than 32 MiB goes back to the system") {
    if (detail::is_sanitized) {
        return;
    }
    const auto resident = [] { // in bytes, as the system counts
        std::ifstream file("/proc/self/statm");
        std::size_t size = 0, pages = 0;
        file >> size >> pages;
        return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    };
    constexpr std::size_t bytes = std::size_t(48) << 20;
    const std::size_t before = resident();
    void* block = Cpu::allocate(bytes);
    std::memset(block, 1, bytes);
    CHECK(resident() >= before + bytes * 3 / 4);
    Cpu::deallocate(block, bytes);
    CHECK(resident() <= before + bytes / 4);
}
