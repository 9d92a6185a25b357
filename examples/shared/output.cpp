#include "output.hpp"

#include "lowrank/core/error.hpp"
#include "lowrank/io/atomic_file.hpp"
#include "lowrank/io/read_text.hpp"
#include "stored_template.hpp"

namespace examples {

void check_output(const std::string& output, bool overwrite,
                  const std::vector<std::pair<std::string, std::string>>& used) {
    const auto place = [](const std::string& path) {
        return (std::filesystem::weakly_canonical(std::filesystem::absolute(path)) / "").lexically_normal().string();
    };
    if (output.empty()) {
        throw lowrank::OptionError("--output: found an empty name, expected a directory to write");
    }
    if (!overwrite && std::filesystem::exists(output) &&
        (!std::filesystem::is_directory(output) || !std::filesystem::is_empty(output))) {
        throw lowrank::OptionError("--output: '" + output +
                                   "' exists and is not empty; --overwrite-output-dir replaces it as a whole");
    }
    for (const auto& [option, path] : used) {
        if (!path.empty() && place(path).starts_with(place(output))) {
            throw lowrank::OptionError("--output: '" + output + "' is replaced as a whole, but it holds " + option +
                                       " '" + path + "'");
        }
    }
}

void copy_text_files(const std::filesystem::path& from, const std::filesystem::path& to) {
    for (const char* name : {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                             "special_tokens_map.json", "added_tokens.json", "char_vocab.json", template_file}) {
        if (std::filesystem::exists(from / name)) {
            lowrank::write_atomically(to / name, lowrank::read_text(from / name));
        }
    }
}

} // namespace examples
