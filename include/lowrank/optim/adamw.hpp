// AdamW, step for step equal to torch.optim.AdamW.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "lowrank/autograd/node.hpp"
#include "lowrank/backend/cpu/optimizer.hpp"
#include "lowrank/core/error.hpp"
#include "lowrank/optim/parameter_group.hpp"

namespace lowrank {

/// Settings of AdamW; the defaults are torch's.
struct AdamWOptions {
    double learning_rate = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    double weight_decay = 0.01; ///< decoupled; for every parameter whose group sets no other
};

/// What the optimizer remembers of one parameter.
template <class A, DeviceTag D>
struct AdamWState {
    std::string name;
    std::int64_t steps = 0;  ///< updates of this parameter so far
    Tensor<A, D> exp_avg;    ///< first moment, of the parameter's shape
    Tensor<A, D> exp_avg_sq; ///< second moment
};

/// AdamW with bias correction and decoupled weight decay over groups of parameters. Source: torch.optim.AdamW,
/// Loshchilov and Hutter, arXiv:1711.05101.
template <class A, DeviceTag D = Cpu>
class AdamW {
  public:
    /// Throws OptionError on a setting out of range, a parameter that is no leaf, one that is given twice, or names
    /// that do not fit, and ShapeError on a parameter that is not contiguous.
    explicit AdamW(const std::vector<ParameterGroup<A, D>>& groups, const AdamWOptions& options = {})
        : options_(options) {
        require("learning rate", options.learning_rate, options.learning_rate >= 0, "0 or more");
        require("beta1", options.beta1, options.beta1 >= 0 && options.beta1 < 1, "at least 0 and below 1");
        require("beta2", options.beta2, options.beta2 >= 0 && options.beta2 < 1, "at least 0 and below 1");
        require("epsilon", options.epsilon, options.epsilon >= 0, "0 or more");
        std::unordered_set<const Node*> seen;
        std::unordered_set<std::string> names;
        for (const ParameterGroup<A, D>& group : groups) {
            const double decay = group.weight_decay.value_or(options.weight_decay);
            require("weight decay", decay, decay >= 0, "0 or more");
            require("learning rate scale", group.learning_rate_scale, group.learning_rate_scale >= 0, "0 or more");
            if (!group.names.empty() && group.names.size() != group.parameters.size()) {
                throw OptionError(concat("AdamW: a group has ", group.parameters.size(), " parameters and ",
                                         group.names.size(), " names"));
            }
            for (std::size_t i = 0; i < group.parameters.size(); ++i) {
                const Tensor<A, D>& parameter = group.parameters[i];
                std::string name = group.names.empty() ? std::to_string(states_.size()) : group.names[i];
                if (!parameter.node() || !parameter.node()->leaf) {
                    throw OptionError(concat("AdamW: parameter '", name, "' is no leaf"));
                }
                if (!seen.insert(parameter.node().get()).second || !names.insert(name).second) {
                    throw OptionError(concat("AdamW: parameter or name '", name, "' is given twice"));
                }
                if (!parameter.is_contiguous()) {
                    throw ShapeError(concat("AdamW: parameter '", name, "' of shape ", parameter.shape(),
                                            " is not contiguous: strides ", parameter.strides()));
                }
                parameters_.push_back(parameter);
                settings_.push_back({options.learning_rate * group.learning_rate_scale, decay});
                states_.push_back({std::move(name), 0, Tensor<A, D>::zeros(parameter.shape()),
                                   Tensor<A, D>::zeros(parameter.shape())});
            }
        }
        scalars_ = Tensor<A, D>::zeros({static_cast<std::int64_t>(parameters_.size()), adamw_scalar_count});
    }

    /// The parameters of all groups, in the order given.
    const std::vector<Tensor<A, D>>& parameters() const { return parameters_; }
    /// The name of a parameter; its index when the group gave none.
    const std::string& name(std::size_t index) const { return states_[index].name; }
    const AdamWOptions& options() const { return options_; }

    /// Updates every parameter that has a gradient; the others, and their states, stay as they are. The learning rates
    /// are multiplied by `learning_rate_factor` (Schedule::factor), the gradients by `clip_factor`
    /// (GradientNorm::clip_factor). Throws ShapeError when a gradient has not its parameter's shape.
    void step(const Gradients& gradients, double learning_rate_factor = 1, double clip_factor = 1) {
        advance(gradients, learning_rate_factor, clip_factor);
        update(gradients);
    }

    /// The first half of `step`: counts it, and writes what changes from step to step to the device.
    void advance(const Gradients& gradients, double learning_rate_factor = 1, double clip_factor = 1) {
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const Tensor<A, D>* gradient = gradients.find(parameters_[i]);
            if (gradient != nullptr && gradient->shape() != parameters_[i].shape()) {
                throw ShapeError(concat("AdamW: parameter '", name(i), "' has shape ", parameters_[i].shape(),
                                        ", its gradient ", gradient->shape()));
            }
        }
        std::vector<A> host(parameters_.size() * adamw_scalar_count);
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            if (gradients.find(parameters_[i]) == nullptr) {
                continue;
            }
            const auto steps = static_cast<double>(++states_[i].steps);
            const double learning_rate = settings_[i].learning_rate * learning_rate_factor;
            A* row = host.data() + i * adamw_scalar_count;
            row[adamw_clip] = static_cast<A>(clip_factor);
            row[adamw_decay] = static_cast<A>(learning_rate * settings_[i].weight_decay);
            row[adamw_step_size] = static_cast<A>(learning_rate / (1 - std::pow(options_.beta1, steps)));
            row[adamw_correction] = static_cast<A>(std::sqrt(1 - std::pow(options_.beta2, steps)));
        }
        D::copy_from_host(scalars_.mutable_data(), host.data(), host.size() * sizeof(A));
    }

    /// The second half of `step`: kernels alone, which read only device memory at fixed addresses, so that a CUDA graph
    /// can replay them after each `advance` while the same parameters have gradients.
    void update(const Gradients& gradients) {
        const A* scalars = scalars_.data();
        for (std::size_t i = 0; i < parameters_.size(); ++i, scalars += adamw_scalar_count) {
            if (const Tensor<A, D>* gradient = gradients.find(parameters_[i])) {
                adamw_step(D{}, parameters_[i].numel(), parameters_[i].mutable_data(),
                           states_[i].exp_avg.mutable_data(), states_[i].exp_avg_sq.mutable_data(), gradient->data(),
                           scalars, options_.beta1, options_.beta2, options_.epsilon);
            }
        }
    }

    /// The state of every parameter, in the order of `parameters`. The tensors are the live ones.
    const std::vector<AdamWState<A, D>>& state() const { return states_; }

    /// Takes over a state that `state` gave earlier, in any order: copies its values. Throws OptionError when its names
    /// are not those of this optimizer's parameters or a count of steps is negative, and ShapeError when a shape
    /// differs; then nothing has changed.
    void load_state(const std::vector<AdamWState<A, D>>& from) {
        std::unordered_map<std::string, const AdamWState<A, D>*> by_name;
        for (const AdamWState<A, D>& source : from) {
            if (!by_name.emplace(source.name, &source).second) {
                throw OptionError(concat("AdamW state: parameter '", source.name, "' is given twice"));
            }
        }
        for (const AdamWState<A, D>& own : states_) {
            const auto it = by_name.find(own.name);
            if (it == by_name.end()) {
                throw OptionError(concat("AdamW state: parameter '", own.name, "' is missing"));
            }
            const AdamWState<A, D>& source = *it->second;
            if (source.steps < 0) {
                throw OptionError(
                    concat("AdamW state: parameter '", own.name, "' has ", source.steps, " steps, expected 0 or more"));
            }
            for (const Tensor<A, D>* moment : {&source.exp_avg, &source.exp_avg_sq}) {
                if (moment->shape() != own.exp_avg.shape() || !moment->defined()) {
                    throw ShapeError(concat("AdamW state: parameter '", own.name, "' has shape ", own.exp_avg.shape(),
                                            ", its state ", moment->shape()));
                }
            }
        }
        if (from.size() != states_.size()) {
            for (const AdamWState<A, D>& own : states_) {
                by_name.erase(own.name);
            }
            throw OptionError(concat("AdamW state: '", by_name.begin()->first, "' is no parameter of this optimizer"));
        }
        for (AdamWState<A, D>& own : states_) {
            const AdamWState<A, D>& source = *by_name.at(own.name);
            own.steps = source.steps;
            copy(source.exp_avg, own.exp_avg);
            copy(source.exp_avg_sq, own.exp_avg_sq);
        }
    }

  private:
    struct Settings {
        double learning_rate, weight_decay;
    };

    static void require(const char* what, double found, bool allowed, const char* expected) {
        if (!allowed || !std::isfinite(found)) {
            throw OptionError(concat("AdamW: ", what, ": found ", found, ", expected ", expected));
        }
    }

    static void copy(const Tensor<A, D>& from, Tensor<A, D>& to) {
        copy_strided(D{}, from.shape(), from.data(), from.strides(), to.mutable_data());
    }

    AdamWOptions options_;
    std::vector<Tensor<A, D>> parameters_;
    std::vector<Settings> settings_; // of each parameter, as the two below
    std::vector<AdamWState<A, D>> states_;
    Tensor<A, D> scalars_; // [parameters, adamw_scalar_count]
};

} // namespace lowrank
