// What every program does around its work: the command line, and errors as exit codes.
#pragma once

#include <functional>
#include <string>

#include <CLI/CLI.hpp>

namespace examples {

/// A command line with --help, that shows defaults, and --config; and what every program does around its work.
class Program : public CLI::App {
  public:
    explicit Program(const std::string& description);
    ~Program() override; // defined in program.cpp, so that App is compiled there alone

    /// Parses the command line and runs `body`. Returns what `body` does, or 1 for an error and 2 for a wrong option,
    /// with one line on standard error.
    int run(int argc, char** argv, const std::function<int()>& body);

  private:
    int guarded(const std::function<int()>& work);
    std::string unknown_options() const;
};

} // namespace examples
