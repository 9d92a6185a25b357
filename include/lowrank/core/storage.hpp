// Storage: a counted handle to a block of a device's memory, owned, mapped from a file or borrowed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "lowrank/core/device.hpp"
#include "lowrank/core/error.hpp"

namespace lowrank {

/// A block of device memory shared by its handles. Each write raises a version, so that autograd notices when a
/// tensor that it saved has changed.
template <DeviceTag Device>
class Storage {
  public:
    Storage() = default;

    /// New memory, uninitialized. Throws std::bad_alloc.
    static Storage allocate(std::size_t bytes) {
        Storage storage;
        storage.block_ = std::make_shared<Block>();
        storage.block_->data = Device::allocate(bytes);
        storage.block_->bytes = bytes;
        storage.block_->owned = true;
        storage.block_->writable = true;
        return storage;
    }

    /// Memory of someone else, kept alive by `owner` (a mapped file, say; null when the caller sees to it).
    static Storage view(void* data, std::size_t bytes, std::shared_ptr<const void> owner, bool writable) {
        Storage storage;
        storage.block_ = std::make_shared<Block>();
        storage.block_->data = data;
        storage.block_->bytes = bytes;
        storage.block_->owner = std::move(owner);
        storage.block_->writable = writable;
        return storage;
    }
    /// Read-only memory of someone else.
    static Storage view(const void* data, std::size_t bytes, std::shared_ptr<const void> owner) {
        return view(const_cast<void*>(data), bytes, std::move(owner), false);
    }

    explicit operator bool() const { return block_ != nullptr; }
    const void* data() const { return block_->data; }
    std::size_t bytes() const { return block_->bytes; }
    std::uint64_t version() const { return block_->version.load(std::memory_order_relaxed); }
    /// Whether this handle is the only one: then nobody else can see a write.
    bool unique() const { return block_.use_count() == 1 && block_->owned; }

    /// For writing: raises the version. Throws Error when the memory is read-only (a mapped file).
    void* mutable_data() {
        if (!block_->writable) {
            throw Error("a write to read-only memory (a tensor mapped from a file)");
        }
        block_->version.fetch_add(1, std::memory_order_relaxed);
        return block_->data;
    }

  private:
    struct Block {
        void* data = nullptr;
        std::size_t bytes = 0;
        std::shared_ptr<const void> owner;
        bool owned = false;
        bool writable = false;
        std::atomic<std::uint64_t> version{0};

        Block() = default;
        Block(const Block&) = delete;
        Block& operator=(const Block&) = delete;
        ~Block() {
            if (owned) {
                Device::deallocate(data, bytes);
            }
        }
    };

    std::shared_ptr<Block> block_;
};

} // namespace lowrank
