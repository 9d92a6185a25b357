// What the data tests share: a tokenizer of bytes, files in a temporary folder, and the message of an error.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/temporary_directory.hpp"
#include "lowrank/core/error.hpp"

/// Every byte is a token; 256 ends a sequence.
struct ByteTokenizer {
    std::vector<std::int32_t> encode(std::string_view text) const {
        std::vector<std::int32_t> ids;
        for (const char c : text) {
            ids.push_back(static_cast<unsigned char>(c));
        }
        return ids;
    }
    std::int32_t eos_id() const { return 256; }
    std::string decode(std::span<const std::int32_t> ids) const {
        std::string text;
        for (const auto id : ids) {
            text += id == 256 ? std::string("<end>") : std::string(1, static_cast<char>(id));
        }
        return text;
    }
};

/// Files that live as long as this object.
struct TemporaryFolder : TemporaryDirectory {
    std::string write(const std::string& name, std::string_view text) const {
        write_file(path() / name, text);
        return (path() / name).string();
    }
    std::string str() const { return path().string(); }
};

/// The message of the lowrank::Error that `action` throws, or "" where it throws none.
template <class Action>
std::string error_of(const Action& action) {
    return message_of<lowrank::Error>(action);
}

inline bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != text.npos;
}
