// AdaLoRA's part in training: the orthogonal penalty, the allocation of ranks, and both through checkpoints.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "lowrank/adapters/peft_adalora.hpp"
#include "lowrank/adapters/rank_allocator.hpp"
#include "lowrank/io/safetensors_writer.hpp"
#include "lowrank/io/tensor_file.hpp"
#include "lowrank/io/tensor_source.hpp"
#include "lowrank/train/training_method.hpp"

namespace lowrank {

/// For the Trainer of a model with AdaLoRA adapters; the settings' total_step is the run's max_steps. The first step
/// has the number 0 for the allocator, as in PEFT's documentation, which calls update_and_allocate before it counts.
template <class T, DeviceTag D>
class AdaLoraTraining final : public TrainingMethod<compute_t<T>, D> {
  public:
    using C = compute_t<T>;

    /// Throws OptionError as require_allocation does.
    template <Module M>
    AdaLoraTraining(M& model, const AdaLoraConfig& config)
        : adapters_(adalora_adapters<T, D>(model)),
          allocator_(adapters_, config),
          orth_reg_weight_(config.orth_reg_weight) {}

    Tensor<C, D> penalty() override {
        const bool counts = orth_reg_weight_ > 0 && !adapters_.empty();
        return counts ? orthogonality(adapters_) * orth_reg_weight_ : Tensor<C, D>();
    }

    void after_update(std::int64_t step, const Gradients& gradients, double clip_factor) override {
        allocator_.update_and_allocate(step, gradients, clip_factor);
    }

    void save(const std::filesystem::path& directory, json& kept) override {
        kept["importance_is_known"] = allocator_.is_known();
        kept["kept_triplets"] = json::object();
        for (const auto& [path, adapter] : adapters_) {
            kept["kept_triplets"][path] = adapter->kept();
        }
        std::vector<TensorSource> sources;
        allocator_.importance_tensors([&](const std::string& name, const Tensor<C, D>& values) {
            sources.push_back(
                detail::computed_source<C>(name, values.shape(), [values] { return values.to_vector(); }));
        });
        write_safetensors(directory / importance_file, sources);
    }

    /// Throws FileError where the checkpoint is not whole or is one of other adapters.
    void resume(const std::filesystem::path& directory, JsonReader& kept) override {
        JsonReader triplets = kept.get_object("kept_triplets");
        for (const auto& [path, adapter] : adapters_) {
            const std::vector<bool> marks = detail::read_marks(triplets, path);
            if (marks.size() != adapter->kept().size()) {
                triplets.fail(path, concat(marks.size(), " marks"), concat(adapter->kept().size()));
            }
            adapter->keep(marks);
        }
        const SafetensorsFile file = SafetensorsFile::open((directory / importance_file).string());
        allocator_.importance_tensors([&](const std::string& name, Tensor<C, D>& values) {
            values = load_values<C, D>(file.at(name), values.shape());
        });
        allocator_.set_known(kept.get_bool("importance_is_known"));
    }

  private:
    static constexpr const char* importance_file = "importance.safetensors";

    std::vector<AdaLoraAt<T, D>> adapters_;
    RankAllocator<T, D> allocator_;
    double orth_reg_weight_;
};

} // namespace lowrank
