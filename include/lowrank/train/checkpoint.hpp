// Checkpoint folders as Transformers names them: found, limited in number, cleaned of what a killed run left.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/atomic_file.hpp"

namespace lowrank {

/// The file of a checkpoint that says where the run stood; it makes a folder a checkpoint.
inline constexpr const char* trainer_state_file = "trainer_state.json";
/// The file with the trained parameters and the optimizer's moments, in the type in which they are trained.
inline constexpr const char* optimizer_file = "optimizer.safetensors";

/// "checkpoint-<step>" in the output of a run.
inline std::filesystem::path checkpoint_path(const std::filesystem::path& output, std::int64_t step) {
    return output / concat("checkpoint-", step);
}

namespace detail {

/// The step of a folder called "checkpoint-<step>"; nothing for another name.
inline std::optional<std::int64_t> checkpoint_step(const std::filesystem::path& path) {
    constexpr std::string_view prefix = "checkpoint-";
    const std::string name = path.filename().string();
    std::int64_t step = 0;
    if (!name.starts_with(prefix)) {
        return std::nullopt;
    }
    const auto read = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
    return read.ec == std::errc() && read.ptr == name.data() + name.size() && step >= 0 ? std::optional(step)
                                                                                        : std::nullopt;
}

} // namespace detail

/// The steps of the checkpoints in `output`, rising; none where it does not exist.
inline std::vector<std::int64_t> checkpoint_steps(const std::filesystem::path& output) {
    std::vector<std::int64_t> steps;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(output, error)) {
        const auto step = detail::checkpoint_step(entry.path());
        if (step && std::filesystem::exists(entry.path() / trainer_state_file, error)) {
            steps.push_back(*step);
        }
    }
    std::sort(steps.begin(), steps.end());
    return steps;
}

/// The checkpoint of the highest step in `output`, if there is one.
inline std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& output) {
    const std::vector<std::int64_t> steps = checkpoint_steps(output);
    return steps.empty() ? std::nullopt : std::optional(checkpoint_path(output, steps.back()));
}

/// Deletes the oldest checkpoints so that `limit` remain of those up to `step`, the best one beside them. What a run
/// has beyond `step`, from before it was resumed, stays. Throws FileError.
inline void limit_checkpoints(const std::filesystem::path& output, std::int64_t limit, std::int64_t step,
                              std::int64_t best_step) {
    std::vector<std::int64_t> steps = checkpoint_steps(output);
    std::erase_if(steps, [&](std::int64_t other) { return other > step; });
    const std::size_t surplus = steps.size() - std::min(steps.size(), static_cast<std::size_t>(limit));
    for (std::size_t i = 0; i < surplus; ++i) {
        if (steps[i] != best_step) {
            // Under another name first: what is left where this is interrupted is no checkpoint.
            const std::filesystem::path directory = checkpoint_path(output, steps[i]);
            const std::filesystem::path doomed = detail::name_beside(directory);
            std::error_code error;
            std::filesystem::rename(directory, doomed, error);
            if (!error) {
                std::filesystem::remove_all(doomed, error);
            }
            if (error) {
                throw FileError(concat(directory.string(), ": cannot delete: ", error.message()));
            }
        }
    }
}

/// Deletes what a killed run left in `output`: directories half written or half deleted, "<name>.tmp-…" of checkpoints
/// and of `staging`. No run may be writing there.
inline void remove_leftovers(const std::filesystem::path& output, const std::string& staging) {
    std::error_code error;
    std::vector<std::filesystem::path> leftovers;
    for (const auto& entry : std::filesystem::directory_iterator(output, error)) {
        const std::string name = entry.path().filename().string();
        const std::string before = name.substr(0, name.find(".tmp-"));
        if (before != name && (before == staging || detail::checkpoint_step(before))) {
            leftovers.push_back(entry.path());
        }
    }
    for (const std::filesystem::path& path : leftovers) {
        std::filesystem::remove_all(path, error);
    }
}

/// Moves what lies in the directory `from` into `to`, on the same file system, where it takes the place of files of the
/// same names, each in one step. Throws FileError.
inline void move_files(const std::filesystem::path& from, const std::filesystem::path& to) {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
        paths.push_back(entry.path());
    }
    for (const std::filesystem::path& path : paths) {
        std::error_code error;
        std::filesystem::rename(path, to / path.filename(), error);
        if (error) {
            throw FileError(concat(path.string(), ": cannot move to ", to.string(), ": ", error.message()));
        }
    }
    detail::sync_directory(to);
}

/// The settings of a run by their names, as a checkpoint keeps them.
using RunSettings = std::map<std::string, std::string>;

/// Throws OptionError that names every setting in which a run differs from the one that wrote the checkpoint.
inline void require_same_settings(const std::filesystem::path& checkpoint, const RunSettings& before,
                                  const RunSettings& now) {
    std::string differences;
    const auto shown = [](const RunSettings& settings, const std::string& name) {
        const auto it = settings.find(name);
        return it == settings.end() ? std::string("not set") : it->second;
    };
    RunSettings all = before;
    all.insert(now.begin(), now.end());
    for (const auto& [name, value] : all) {
        const std::string was = shown(before, name), is = shown(now, name);
        if (was != is) {
            differences += concat(differences.empty() ? "" : "; ", name, " was ", was, " and is ", is);
        }
    }
    if (!differences.empty()) {
        throw OptionError(
            concat(checkpoint.string(), ": a run resumes with the settings that it began with: ", differences));
    }
}

} // namespace lowrank
