// Writes safetensors files, byte by byte as the reference implementation does, one tensor in memory at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/io/atomic_file.hpp"
#include "lowrank/io/json.hpp"
#include "lowrank/io/safetensors.hpp"

namespace lowrank {

/// A tensor to write. Its bytes (row-major, little-endian) are either there already, or made when their turn comes.
struct TensorSource {
    using Bytes = std::span<const std::byte>;

    std::string name;
    DType dtype;
    std::vector<std::int64_t> shape;
    /// Called once; what it returns must stay valid until `release` is called.
    std::function<Bytes()> bytes;
    std::function<void()> release = [] {}; ///< called when the bytes are written

    TensorSource(std::string name_, DType dtype_, std::vector<std::int64_t> shape_, std::function<Bytes()> bytes_)
        : name(std::move(name_)),
          dtype(dtype_),
          shape(std::move(shape_)),
          bytes(std::move(bytes_)) {}
    TensorSource(std::string name_, DType dtype_, std::vector<std::int64_t> shape_, Bytes bytes_)
        : TensorSource(std::move(name_), dtype_, std::move(shape_), [bytes_] { return bytes_; }) {}
};

namespace detail {

/// The place of a type in the reference's order (its enum Dtype): the file begins with the last, for alignment.
inline std::size_t safetensors_rank(DType type) {
    constexpr std::array order{DType::boolean, DType::u8,  DType::i8,  DType::i16, DType::f16,
                               DType::bf16,    DType::i32, DType::f32, DType::f64, DType::i64};
    return static_cast<std::size_t>(std::find(order.begin(), order.end(), type) - order.begin());
}

/// The header for tensors in the order of the file; checks names and shapes. `where` is the file's name in messages.
inline std::string safetensors_header(const std::string& where, const std::vector<const TensorSource*>& tensors,
                                      const std::map<std::string, std::string>& metadata) {
    std::string header = "{";
    if (!metadata.empty()) {
        header += "\"__metadata__\":" + json(metadata).dump() + ",";
    }
    std::map<std::string_view, std::size_t> seen;
    std::size_t offset = 0;
    for (const TensorSource* tensor : tensors) {
        const auto bytes = tensor_bytes(tensor->dtype, tensor->shape);
        std::size_t end = 0;
        if (!bytes || __builtin_add_overflow(offset, *bytes, &end)) {
            throw FileError(concat(where, ": cannot write tensor ", in_quotes(tensor->name), ": found shape ",
                                   json(tensor->shape).dump(), ", expected sizes >= 0 whose product fits 64 bits"));
        }
        if (tensor->name == "__metadata__" || !seen.emplace(tensor->name, 0).second) {
            throw FileError(concat(where, ": cannot write tensor ", in_quotes(tensor->name),
                                   ": the name is reserved or given twice"));
        }
        header += json(tensor->name).dump() + ":{\"dtype\":\"" + std::string(name_of(tensor->dtype)) +
                  "\",\"shape\":" + json(tensor->shape).dump() + ",\"data_offsets\":" + json({offset, end}).dump() +
                  "},";
        offset = end;
    }
    if (header.back() == ',') {
        header.pop_back();
    }
    header += '}';
    header.append((8 - header.size() % 8) % 8, ' ');
    return header;
}

} // namespace detail

/// Writes `tensors` and `metadata` as the safetensors file `path`, complete or not at all (AtomicFile), laid out as the
/// reference does: types by falling size, then names, the header padded to 8 bytes. Throws FileError for a name given
/// twice or not UTF-8, a shape that does not fit its bytes, and whatever the system refuses.
inline void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSource>& tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
    std::vector<const TensorSource*> order;
    for (const TensorSource& tensor : tensors) {
        order.push_back(&tensor);
    }
    std::sort(order.begin(), order.end(), [](const TensorSource* left, const TensorSource* right) {
        const std::size_t left_rank = detail::safetensors_rank(left->dtype);
        const std::size_t right_rank = detail::safetensors_rank(right->dtype);
        return left_rank != right_rank ? left_rank > right_rank : left->name < right->name;
    });
    std::string header;
    try {
        header = detail::safetensors_header(path.string(), order, metadata);
    } catch (const json::exception& error) {
        throw FileError(concat(path.string(), ": cannot write a name or metadata: ", error.what()));
    }
    if (header.size() > max_safetensors_header) {
        throw FileError(concat(path.string(), ": cannot write a header of ", header.size(), " bytes, at most ",
                               max_safetensors_header, " are read"));
    }
    write_atomically(path, [&](AtomicFile& file) {
        const std::uint64_t length = header.size();
        file.write(std::as_bytes(std::span(&length, 1)));
        file.write(header);
        for (const TensorSource* tensor : order) {
            const TensorSource::Bytes bytes = tensor->bytes();
            const auto expected = tensor_bytes(tensor->dtype, tensor->shape);
            if (bytes.size() != expected) {
                throw FileError(concat(path.string(), ": cannot write tensor ", in_quotes(tensor->name), ": found ",
                                       bytes.size(), " bytes, expected ", *expected, " for ", name_of(tensor->dtype),
                                       " of shape ", json(tensor->shape).dump()));
            }
            file.write(bytes);
            tensor->release();
        }
    });
}

} // namespace lowrank
