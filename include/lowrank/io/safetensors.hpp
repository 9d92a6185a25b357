// Reads a safetensors file: named tensors that point into the mapped file, everything about them checked.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/mapped_file.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/io/json.hpp"
#include "lowrank/io/near_matches.hpp"

namespace lowrank {

static_assert(std::endian::native == std::endian::little,
              "safetensors files are little-endian, and mapped as they are");

/// A tensor in a file: row-major elements, little-endian. The bytes may be misaligned for the type.
struct TensorEntry {
    std::string name;
    DType dtype = DType::f32;
    std::vector<std::int64_t> shape;
    std::span<const std::byte> bytes;
    std::shared_ptr<const MappedFile> file; ///< what `bytes` points into: a share keeps them valid
};

/// The longest header of a safetensors file, in bytes, that the reference implementation reads.
inline constexpr std::size_t max_safetensors_header = 100'000'000;

/// The element type that safetensors calls `name`, or nothing for one that lowrank has no type for (F8_E4M3, U16, …).
inline std::optional<DType> dtype_named(std::string_view name) {
    for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::i16,
                             DType::i8, DType::u8, DType::boolean}) {
        if (name_of(type) == name) {
            return type;
        }
    }
    return std::nullopt;
}

/// Bytes of a tensor, or nothing where a size is negative or the product overflows.
inline std::optional<std::size_t> tensor_bytes(DType dtype, std::span<const std::int64_t> shape) {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) {
        if (size < 0 || __builtin_mul_overflow(count, size, &count)) {
            return std::nullopt;
        }
    }
    if (__builtin_mul_overflow(count, static_cast<std::int64_t>(size_of(dtype)), &count)) {
        return std::nullopt;
    }
    return static_cast<std::size_t>(count);
}

/// A safetensors file, mapped and checked as the reference implementation does (safetensors 0.8, tensor.rs: offsets
/// within the file, no hole, no overlap, sizes that match shape and type), and as the format's description says:
/// a name given twice is refused, and so is a header that does not begin with '{'.
class SafetensorsFile {
  public:
    /// Opens and checks the file; throws FileError that names it and the tensor. The data itself is not read.
    static SafetensorsFile open(const std::string& path) { return SafetensorsFile(MappedFile::open(path)); }

    /// The tensors by name, without those of unsupported types.
    const std::map<std::string, TensorEntry>& tensors() const { return tensors_; }

    /// Name and type of the tensors whose type lowrank does not have: an error only where one is asked for.
    const std::map<std::string, std::string>& unsupported() const { return unsupported_; }

    /// The free-form text map `__metadata__`.
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

    const std::shared_ptr<const MappedFile>& mapping() const { return file_; }
    const std::string& path() const { return file_->path(); }

    /// The names of all tensors.
    std::vector<std::string> keys() const {
        std::vector<std::string> names;
        for (const auto& tensor : tensors_) {
            names.push_back(tensor.first);
        }
        for (const auto& tensor : unsupported_) {
            names.push_back(tensor.first);
        }
        std::sort(names.begin(), names.end());
        return names;
    }

    /// The tensor of that name, or null where there is none; throws FileError where its type is not supported.
    const TensorEntry* find(const std::string& key) const {
        if (const auto it = unsupported_.find(key); it != unsupported_.end()) {
            fail(key, concat("found type ", in_quotes(it->second), ", which is not supported"));
        }
        const auto it = tensors_.find(key);
        return it == tensors_.end() ? nullptr : &it->second;
    }

    /// The tensor of that name; throws FileError with the most similar names where there is none.
    const TensorEntry& at(const std::string& key) const {
        if (const TensorEntry* entry = find(key)) {
            return *entry;
        }
        fail(key, concat("not in the file", similar_names(key, keys())));
    }

  private:
    explicit SafetensorsFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {
        const std::string_view header = read_header();
        payload_ = file_->bytes().subspan(8 + header.size());
        const json document = parse_json(header, path() + " (header)");
        std::vector<Extent> extents;
        for (auto it = document.begin(); it != document.end(); ++it) {
            if (it.key() == "__metadata__") {
                read_metadata(*it);
            } else {
                extents.push_back(read_tensor(it.key(), *it));
            }
        }
        check_coverage(std::move(extents));
    }

    /// Where a tensor lies in the payload.
    struct Extent {
        std::size_t begin;
        std::size_t end;
        std::string_view name; // in the parsed document

        bool operator<(const Extent& other) const {
            return begin != other.begin ? begin < other.begin : end < other.end;
        }
    };

    [[noreturn]] void fail(std::string_view key, std::string_view what) const {
        throw FileError(concat(path(), ": tensor ", in_quotes(key), ": ", what));
    }

    std::string_view read_header() const {
        const std::span<const std::byte> bytes = file_->bytes();
        std::uint64_t length = 0;
        if (bytes.size() < sizeof length) {
            throw FileError(
                concat(path(), ": found ", bytes.size(), " bytes, expected a safetensors file (8 or more)"));
        }
        std::memcpy(&length, bytes.data(), sizeof length);
        const std::size_t most = std::min(bytes.size() - sizeof length, max_safetensors_header);
        if (length > most) {
            throw FileError(concat(path(), ": found a header length of ", length, " bytes, expected at most ", most,
                                   " (is this a safetensors file, and is it complete?)"));
        }
        const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof length, length);
        if (!header.starts_with('{')) {
            throw FileError(concat(path(), ": found a header that does not begin with '{', expected a JSON object"));
        }
        return header;
    }

    void read_metadata(const json& map) {
        const auto refuse = [&] {
            throw FileError(concat(path(), ": __metadata__: expected an object whose values are strings"));
        };
        if (!map.is_object() && !map.is_null()) {
            refuse();
        }
        for (auto it = map.begin(); it != map.end(); ++it) {
            if (!it->is_string()) {
                refuse();
            }
            metadata_.emplace(it.key(), it->get<std::string>());
        }
    }

    Extent read_tensor(const std::string& name, const json& info) {
        const auto member = [&](const char* key) -> const json& {
            if (!info.is_object() || !info.contains(key)) {
                fail(name, concat("found no \"", key, "\", expected dtype, shape and data_offsets"));
            }
            return info[key];
        };
        const auto sizes = [&](const char* key) {
            constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
            const json& list = member(key);
            bool valid = list.is_array();
            std::vector<std::int64_t> values;
            for (auto it = list.begin(); valid && it != list.end(); ++it) {
                valid = it->is_number_unsigned() && it->get<std::uint64_t>() <= most;
                values.push_back(valid ? it->get<std::int64_t>() : 0);
            }
            if (!valid) {
                fail(name, concat("expected \"", key, "\" to be a list of integers >= 0"));
            }
            return values;
        };
        const std::vector<std::int64_t> offsets = sizes("data_offsets");
        if (offsets.size() != 2 || offsets[0] > offsets[1] || std::size_t(offsets[1]) > payload_.size()) {
            fail(name, concat("found data_offsets ", member("data_offsets").dump().substr(0, 100),
                              ", expected [begin, end] within the ", payload_.size(), " bytes of data"));
        }
        const Extent extent{std::size_t(offsets[0]), std::size_t(offsets[1]), name};
        std::vector<std::int64_t> shape = sizes("shape");
        const json& type_name = member("dtype");
        if (!type_name.is_string()) {
            fail(name, "expected \"dtype\" to be a string");
        }
        const std::optional<DType> dtype = dtype_named(type_name.get_ref<const std::string&>());
        if (!dtype) {
            unsupported_.emplace(name, type_name.get<std::string>());
            return extent;
        }
        const std::optional<std::size_t> expected = tensor_bytes(*dtype, shape);
        if (expected != extent.end - extent.begin) {
            fail(name, concat("found ", extent.end - extent.begin, " bytes, expected ",
                              expected ? std::to_string(*expected) : "more than exist", " for ", name_of(*dtype),
                              " of shape ", member("shape").dump().substr(0, 100)));
        }
        const auto bytes = payload_.subspan(extent.begin, *expected);
        tensors_.emplace(name, TensorEntry{name, *dtype, std::move(shape), bytes, file_});
        return extent;
    }

    /// In the order of their offsets the tensors cover the payload, each beginning where the one before ends.
    void check_coverage(std::vector<Extent> extents) const {
        std::sort(extents.begin(), extents.end());
        std::size_t covered = 0;
        for (const Extent& extent : extents) {
            if (extent.begin != covered) {
                fail(extent.name, concat("found data at offset ", extent.begin, ", expected ", covered, ", where the ",
                                         extent.begin < covered ? "tensor before it ends (they overlap)"
                                                                : "data before it end (there is a hole)"));
            }
            covered = extent.end;
        }
        if (covered != payload_.size()) {
            throw FileError(concat(path(), ": found ", payload_.size(), " bytes of data, expected ", covered,
                                   " as the tensors say"));
        }
    }

    std::shared_ptr<const MappedFile> file_;
    std::span<const std::byte> payload_;
    std::map<std::string, TensorEntry> tensors_;
    std::map<std::string, std::string> unsupported_;
    std::map<std::string, std::string> metadata_;
};

} // namespace lowrank
