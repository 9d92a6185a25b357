// Fingerprints of data and files, by which a resumed run knows that they are still the same.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>

#include "lowrank/core/mapped_file.hpp"
#include "lowrank/data/example.hpp"

namespace lowrank {

/// A 64-bit hash of bytes, to tell accidents apart and no more: it withstands no attack.
class Fingerprint {
  public:
    void add(std::span<const std::byte> bytes) {
        add(bytes.size());
        for (; bytes.size() >= sizeof(std::uint64_t); bytes = bytes.subspan(sizeof(std::uint64_t))) {
            std::uint64_t word = 0;
            std::memcpy(&word, bytes.data(), sizeof word);
            add(word);
        }
        std::uint64_t rest = 0;
        if (!bytes.empty()) {
            std::memcpy(&rest, bytes.data(), bytes.size());
        }
        add(rest);
    }
    void add(std::uint64_t word) { // the finalizer of splitmix64
        state_ = (state_ ^ word) + 0x9e3779b97f4a7c15u;
        state_ = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9u;
        state_ = (state_ ^ (state_ >> 27)) * 0x94d049bb133111ebu;
        state_ ^= state_ >> 31;
    }
    /// 16 hexadecimal digits.
    std::string str() const {
        char text[17];
        std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(state_));
        return text;
    }

  private:
    std::uint64_t state_ = 0;
};

/// Of the rows: their tokens, labels and documents, in their order.
inline std::string fingerprint(const Dataset& data) {
    Fingerprint result;
    result.add(data.size());
    for (const Example& example : data.examples) {
        result.add(std::as_bytes(std::span(example.input_ids)));
        result.add(std::as_bytes(std::span(example.labels)));
        result.add(std::as_bytes(std::span(example.document_starts)));
    }
    return result.str();
}

/// Of a file, by its size and 256 pieces of 4 KiB spread over it: weights of any size are told apart in milliseconds.
/// Throws FileError where it cannot be read.
inline std::string sampled_fingerprint(const std::filesystem::path& path) {
    constexpr std::size_t pieces = 256, piece = 4096;
    const auto file = MappedFile::open(path.string());
    const std::span<const std::byte> bytes = file->bytes();
    Fingerprint result;
    result.add(bytes.size());
    const std::size_t stride = std::max(piece, bytes.size() / pieces);
    for (std::size_t at = 0; at < bytes.size(); at += stride) {
        result.add(bytes.subspan(at, std::min(piece, bytes.size() - at)));
    }
    return result.str();
}

} // namespace lowrank
