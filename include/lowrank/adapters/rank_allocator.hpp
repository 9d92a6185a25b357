// Which triplets of AdaLoRA matter: their importance, smoothed over steps, and a budget that falls to the target rank.
// Zhang et al., "Adaptive budget allocation for parameter-efficient fine-tuning", 2023, section 3; PEFT's
// RankAllocator.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapters/adalora.hpp"
#include "lowrank/autograd/node.hpp"

namespace lowrank {

/// Allocates ranks while adapters are trained: `update_and_allocate` after each update. A run has three phases: tinit
/// steps in which all triplets stay; steps in which the budget falls with the cube of what is left of them, and every
/// deltaT steps the least important triplets lose their values, which they may win back; and tfinal steps in which only
/// those that were kept at step total_step - tfinal are trained.
template <class T, DeviceTag D>
class RankAllocator {
  public:
    using C = compute_t<T>;

    /// What is known of a tensor: its |w·∂w| smoothed over the steps, and how far that is from the step's.
    struct Importance {
        Tensor<C, D> parameter, sensitivity, uncertainty;

        explicit Importance(const Tensor<C, D>& parameter) : parameter(parameter) { forget(); }
        void forget() { sensitivity = uncertainty = Tensor<C, D>::zeros(parameter.shape()); }
    };
    /// The triplets of an adapted layer.
    struct Triplets {
        std::string path;
        std::shared_ptr<AdaLora<T, D>> adapter;
        Importance a, b, e;
    };

    /// Throws OptionError as require_allocation does.
    RankAllocator(const std::vector<AdaLoraAt<T, D>>& adapters, const AdaLoraConfig& config) : config_(config) {
        require_allocation(config_, "AdaLoRA settings");
        for (const auto& [path, adapter] : adapters) {
            triplets_.push_back(
                {path, adapter, Importance(adapter->a()), Importance(adapter->b()), Importance(adapter->e())});
            initial_budget_ += adapter->e().numel();
        }
        // Adapters that were trained before may have fewer triplets than the target already.
        target_budget_ = std::min(initial_budget_, config_.target_r * static_cast<std::int64_t>(adapters.size()));
    }

    /// How many triplets may have values after a step, which counts from 0.
    std::int64_t budget(std::int64_t step) const {
        if (step <= config_.tinit) {
            return initial_budget_;
        }
        if (step >= last_allocation()) {
            return target_budget_;
        }
        const double left =
            1 - static_cast<double>(step - config_.tinit) / static_cast<double>(last_allocation() - config_.tinit);
        return static_cast<std::int64_t>(static_cast<double>(initial_budget_ - target_budget_) * std::pow(left, 3) +
                                         static_cast<double>(target_budget_));
    }

    /// What follows an update, in PEFT's order: the importance of the updated parameters with the gradients that were
    /// multiplied by `factor` for it, and the values of triplets set to 0 where the step's turn has come.
    void update_and_allocate(std::int64_t step, const Gradients& gradients, double factor = 1) {
        const NoGrad no_grad;
        if (step < last_allocation()) {
            for (Triplets& t : triplets_) {
                for (Importance* importance : {&t.a, &t.b, &t.e}) {
                    update(*importance, gradients, factor);
                }
            }
            is_known_ = true;
            if (step > config_.tinit && step % config_.delta_t == 0) {
                keep_most_important(budget(step));
            }
        } else if (is_known_) { // the last allocation; later than it should be where that step was skipped
            keep_most_important(target_budget_);
            forget();
        } else {
            mask();
        }
    }

    const std::vector<Triplets>& triplets() const { return triplets_; }

    /// Whether importance is known: from the first update to the last allocation.
    bool is_known() const { return is_known_; }
    /// Makes what `importance_tensors` was given the state that counts, or forgets it.
    void set_known(bool known) {
        if (!known) {
            forget();
        }
        is_known_ = known;
    }

    /// Calls `visit(name, tensor)` for all that must be kept to go on later beside the adapters, in memory of this
    /// allocator: "sensitivity.….c_attn.lora_A" and the like.
    template <class Visit>
    void importance_tensors(const Visit& visit) {
        for (Triplets& t : triplets_) {
            for (const auto& [name, importance] :
                 {std::pair(".lora_A", &t.a), std::pair(".lora_B", &t.b), std::pair(".lora_E", &t.e)}) {
                visit("sensitivity." + t.path + name, importance->sensitivity);
                visit("uncertainty." + t.path + name, importance->uncertainty);
            }
        }
    }

  private:
    std::int64_t last_allocation() const { return config_.total_step - config_.tfinal; }

    /// Sensitivity ← β1·sensitivity + (1 - β1)·|w·∂w|; uncertainty likewise, of |w·∂w| - sensitivity.
    void update(Importance& importance, const Gradients& gradients, double factor) const {
        const Tensor<C, D>* gradient = gradients.find(importance.parameter);
        if (gradient == nullptr) {
            return;
        }
        const Tensor<C, D> now = abs(importance.parameter.detach() * (*gradient * factor));
        importance.sensitivity = importance.sensitivity * config_.beta1 + now * (1 - config_.beta1);
        importance.uncertainty =
            importance.uncertainty * config_.beta2 + abs(now - importance.sensitivity) * (1 - config_.beta2);
    }

    /// The score of each triplet of a layer: that of its value, plus the means of those of its two vectors.
    static std::vector<C> scores(const Triplets& t) {
        const Tensor<C, D> a = mean(t.a.sensitivity * t.a.uncertainty, {1});
        const Tensor<C, D> b = mean(t.b.sensitivity * t.b.uncertainty, {0});
        return (reshape(t.e.sensitivity * t.e.uncertainty, a.shape()) + (a + b)).to_vector();
    }

    /// Keeps the triplets with the highest scores of all layers: those above the highest score that is too much.
    void keep_most_important(std::int64_t budget) {
        std::vector<std::vector<C>> of_layers;
        std::vector<C> all;
        for (const Triplets& t : triplets_) {
            of_layers.push_back(scores(t));
            all.insert(all.end(), of_layers.back().begin(), of_layers.back().end());
        }
        const std::int64_t surplus = initial_budget_ - budget;
        if (surplus > 0) {
            std::nth_element(all.begin(), all.begin() + (surplus - 1), all.end());
        }
        for (std::size_t i = 0; i < triplets_.size(); ++i) {
            std::vector<bool> kept;
            for (const C score : of_layers[i]) {
                kept.push_back(surplus <= 0 || score > all[static_cast<std::size_t>(surplus - 1)]);
            }
            triplets_[i].adapter->keep(kept);
        }
        mask();
    }

    void mask() const {
        for (const Triplets& t : triplets_) {
            t.adapter->mask();
        }
    }

    void forget() {
        for (Triplets& t : triplets_) {
            for (Importance* importance : {&t.a, &t.b, &t.e}) {
                importance->forget();
            }
        }
        is_known_ = false;
    }

    AdaLoraConfig config_;
    std::vector<Triplets> triplets_;
    std::int64_t initial_budget_ = 0, target_budget_ = 0;
    bool is_known_ = false;
};

} // namespace lowrank
