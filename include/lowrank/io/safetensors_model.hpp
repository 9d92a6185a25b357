// The tensors of a model or adapter directory, whether in one safetensors file or in shards with an index.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/json.hpp"
#include "lowrank/io/json_reader.hpp"
#include "lowrank/io/near_matches.hpp"
#include "lowrank/io/safetensors.hpp"

namespace lowrank {

/// One lookup over the safetensors files of a directory. Tensors stay valid as long as this object or their share of
/// the mapping (`TensorEntry::file`) lives.
class SafetensorsModel {
  public:
    /// Opens `<directory>/<stem>.safetensors`, or else the shards that `<stem>.safetensors.index.json` lists. `path`
    /// may also be a safetensors file itself. Throws FileError where neither exists, a shard is missing, a tensor is
    /// not in the shard that the index names, or a tensor is in two shards.
    static SafetensorsModel open(const std::filesystem::path& path, const std::string& stem = "model") {
        SafetensorsModel model;
        std::error_code ignored; // what cannot be looked at is reported as not found
        if (std::filesystem::is_regular_file(path, ignored)) {
            model.add(path);
            return model;
        }
        const std::filesystem::path single = path / (stem + ".safetensors");
        const std::filesystem::path index = path / (stem + ".safetensors.index.json");
        if (std::filesystem::exists(single, ignored)) {
            model.add(single);
        } else if (std::filesystem::exists(index, ignored)) {
            model.add_shards(index);
        } else {
            throw FileError(concat(path.string(), ": found neither ", single.filename().string(), " nor ",
                                   index.filename().string(),
                                   std::filesystem::exists(path, ignored) ? "" : " (there is no such directory)"));
        }
        model.where_ = path.string();
        return model;
    }

    /// The names of all tensors, sorted.
    std::vector<std::string> keys() const {
        std::vector<std::string> names;
        for (const auto& origin : origins_) {
            names.push_back(origin.first);
        }
        return names;
    }

    bool contains(const std::string& key) const { return origins_.contains(key); }

    /// The tensor of that name, or null where there is none; throws FileError where its type is not supported.
    const TensorEntry* find(const std::string& key) const {
        const auto it = origins_.find(key);
        return it == origins_.end() ? nullptr : files_[it->second].find(key);
    }

    /// The tensor of that name; throws FileError with the most similar names where there is none.
    const TensorEntry& at(const std::string& key) const {
        if (const TensorEntry* entry = find(key)) {
            return *entry;
        }
        throw FileError(concat(where_, ": found no tensor ", in_quotes(key), similar_names(key, keys())));
    }

    /// The path of the file that holds the tensor, for messages; throws FileError where there is none.
    const std::string& origin(const std::string& key) const { return at(key).file->path(); }

    /// The files, in the order of their names.
    const std::vector<SafetensorsFile>& files() const { return files_; }

  private:
    void add(const std::filesystem::path& path) {
        files_.push_back(SafetensorsFile::open(path));
        for (const std::string& key : files_.back().keys()) {
            const auto [it, fresh] = origins_.emplace(key, files_.size() - 1);
            if (!fresh) {
                throw FileError(concat(path.string(), ": tensor ", in_quotes(key), " is also in ",
                                       files_[it->second].path(), ", expected it in one of them"));
            }
        }
        where_ = path.string();
    }

    void add_shards(const std::filesystem::path& index) {
        JsonReader reader = JsonReader::open(index);
        JsonReader weight_map = reader.get_object("weight_map");
        std::map<std::string, std::vector<std::string>> shards; // the keys that each shall hold
        for (const std::string& key : weight_map.keys()) {
            const std::string shard = weight_map.get_string(key);
            // The index must not lead out of its directory.
            if (shard.find_first_of("/\\") != std::string::npos || !shard.ends_with(".safetensors")) {
                weight_map.fail(key, in_quotes(shard), "the name of a .safetensors file beside the index");
            }
            shards[shard].push_back(key);
        }
        refuse_missing(index, shards);
        for (const auto& shard : shards) {
            add(index.parent_path() / shard.first);
            for (const std::string& key : shard.second) {
                if (const auto it = origins_.find(key); it == origins_.end() || it->second != files_.size() - 1) {
                    weight_map.fail(key, in_quotes(shard.first), "a shard that holds this tensor");
                }
            }
        }
    }

    static void refuse_missing(const std::filesystem::path& index,
                               const std::map<std::string, std::vector<std::string>>& shards) {
        std::string missing;
        std::error_code ignored;
        for (const auto& shard : shards) {
            if (!std::filesystem::exists(index.parent_path() / shard.first, ignored)) {
                missing += (missing.empty() ? "" : ", ") + shard.first;
            }
        }
        if (!missing.empty()) {
            throw FileError(concat(index.string(), ": found no file ", missing.substr(0, 500), " beside it, of ",
                                   shards.size(), " shards that it lists"));
        }
    }

    std::string where_;
    std::vector<SafetensorsFile> files_;
    std::map<std::string, std::size_t> origins_; // key → position in files_
};

} // namespace lowrank
