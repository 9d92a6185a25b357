// combine: makes one LoRA adapter out of several for the same model, by PEFT's add_weighted_adapter.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/weighted_adapter.hpp"
#include "lowrank/io/atomic_directory.hpp"
#include "model.hpp"
#include "number.hpp"
#include "output.hpp"
#include "program.hpp"
#include "say.hpp"

using namespace lowrank;

namespace {

struct Options {
    examples::ModelOptions model;
    std::vector<std::string> adapters;
    std::vector<double> weights;
    std::string output, combination_type = "svd", majority_sign_method = "total";
    CombineOptions combine;
    double density = 0;
    bool overwrite = false;
};

/// "name=directory" entries.
std::vector<std::pair<std::string, std::string>> named_directories(const std::vector<std::string>& entries) {
    std::vector<std::pair<std::string, std::string>> named;
    for (const std::string& entry : entries) {
        const std::size_t equals = entry.find('=');
        if (equals == std::string::npos || equals == 0 || equals + 1 == entry.size()) {
            throw OptionError("--adapter: found '" + entry + "', expected name=directory");
        }
        named.emplace_back(entry.substr(0, equals), entry.substr(equals + 1));
    }
    return named;
}

int combine_program(Options& options, const CLI::App& app) {
    const auto adapters = named_directories(options.adapters);
    std::vector<std::pair<std::string, std::string>> used{{"--model", options.model.model}};
    std::vector<std::string> names;
    for (const auto& [name, directory] : adapters) {
        names.push_back(name);
        used.emplace_back("--adapter", directory);
    }
    options.combine.combination_type = combination_from_name(options.combination_type);
    options.combine.majority_sign_method =
        options.majority_sign_method == "total" ? MajoritySign::total : MajoritySign::frequency;
    if (app.count("--density") > 0) {
        options.combine.density = options.density;
    }
    if (options.weights.empty()) {
        options.weights.assign(names.size(), 1.0);
    }
    validate(options.combine, names.size(), options.weights);
    examples::check_output(options.output, options.overwrite, used);

    examples::Model model = examples::load_model(options.model);
    AdapterSet<float, Cpu, examples::Model> set(model);
    for (const auto& [name, directory] : adapters) {
        set.load(name, directory);
    }
    const std::string result = "default"; // it is saved in the directory itself
    add_weighted_adapter(set, names, options.weights, result, options.combine);
    AtomicDirectory output(options.output);
    set.save(result, output.path());
    for (const auto& entry : used) { // the adapters may have added tokens, and a template
        examples::copy_text_files(entry.second, output.path());
    }
    output.commit();
    const auto& config = std::get<LoraConfig>(set.config(result));
    examples::say(stdout, "combined {} adapters by {}, rank {}: {}\n", names.size(), options.combination_type, config.r,
                  options.output);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    examples::Program app(
        "Combines adapters of one GPT-2 into a new LoRA adapter: a weighted sum of their changes (cat "
        "exactly, svd cut to a rank), or by pruning and electing signs (ties, dare, magnitude_prune).");
    Options options;
    examples::add_model_options(app, options.model, false);
    examples::add_quantization_options(app, options.model);
    app.add_option("--adapter", options.adapters, "an adapter as name=directory; once for each of them")->required();
    app.add_option("--weights", options.weights, "a weight for each adapter, separated by commas; 1 for all by default")
        ->delimiter(',');
    app.add_option("--combination-type", options.combination_type,
                   "cat: exactly the sum, of the sum of the ranks; svd: the sum cut to --svd-rank; the others are "
                   "PEFT's")
        ->check(CLI::IsMember(combination_names()));
    app.add_option("--svd-rank", options.combine.svd_rank,
                   "rank of svd and of the types that end in _svd; 0 takes the largest rank of the adapters")
        ->check(examples::number<std::int64_t>(0, 1 << 20));
    app.add_option("--density", options.density, "share of the numbers that ties, dare and magnitude_prune keep")
        ->check(examples::number<double>(0, 1));
    app.add_option("--majority-sign-method", options.majority_sign_method,
                   "sign that ties elects: that of the sum, or that of most numbers")
        ->check(CLI::IsMember({"total", "frequency"}));
    app.add_option("--seed", options.combine.seed, "seed of what dare drops");
    app.add_option("--output", options.output, "directory to write: the adapter, as PEFT saves it")->required();
    app.add_flag("--overwrite-output-dir", options.overwrite, "replace an output directory that is not empty");
    return app.run(argc, argv, [&] { return combine_program(options, app); });
}
