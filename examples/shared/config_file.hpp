// Options in files: `name = value` a line, read with --config, and written beside an output.
#pragma once

#include <istream>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

namespace examples {

/// Names of options, without dashes, and their values as a file has them.
using NamedValues = std::vector<std::pair<std::string, std::string>>;

/// The lines of a file with these.
std::string config_text(const NamedValues& values);

/// Lines that are valid TOML and INI alike: `r = 8`, `bias = "none"`, `target-modules = ["c_attn", "c_proj"]`. Strings
/// may go without quotes; `#` begins a comment. A name that no option has is refused, and so is one given twice.
class ConfigFile : public CLI::Config {
  public:
    explicit ConfigFile(const CLI::App& app) : app_(app) {}

    /// Throws OptionError or FileError that name file and line.
    std::vector<CLI::ConfigItem> from_config(std::istream& in) const override;
    std::string to_config(const CLI::App*, bool, bool, std::string) const override;

    /// The options as they are in effect, without those of `left_out` and empty ones.
    NamedValues in_effect(const std::vector<std::string>& left_out) const;

  private:
    std::vector<std::string> names() const;

    const CLI::App& app_;
};

} // namespace examples
