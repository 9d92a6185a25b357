// The directory that a program writes.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace examples {

/// Refuses an output directory that exists and is not empty unless it may be replaced, and one that holds a file or
/// directory that is used, for it is replaced as a whole. `used` has the names of options and their paths.
void check_output(const std::string& output, bool overwrite,
                  const std::vector<std::pair<std::string, std::string>>& used);

/// Copies the files that a tokenizer is made of, and the template, as far as they exist, so that the new directory
/// stands by itself.
void copy_text_files(const std::filesystem::path& from, const std::filesystem::path& to);

} // namespace examples
