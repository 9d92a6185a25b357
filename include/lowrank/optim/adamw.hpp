// AdamW, step for step equal to torch.optim.AdamW; its moments may be in 8 bits, or in a file.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "lowrank/autograd/node.hpp"
#include "lowrank/backend/cpu/adamw_8bit.hpp"
#include "lowrank/core/error.hpp"
#include "lowrank/core/paged_memory.hpp"
#include "lowrank/optim/adamw_state.hpp"
#include "lowrank/optim/parameter_group.hpp"

namespace lowrank {

/// Settings of AdamW; the defaults are torch's.
struct AdamWOptions {
    double learning_rate = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    double weight_decay = 0.01; ///< decoupled; for every parameter whose group sets no other
    /// Moments in 8 bits (adamw_8bit_step), but of tensors of fewer than min_8bit_size elements. Parameters are fp32.
    bool eight_bit = false;
    std::int64_t min_8bit_size = 4096; ///< bitsandbytes'
    /// Moments lie in a file without a name in this directory (PagedMemory); empty: in memory.
    std::string paged_directory = {};

    /// Whether the moments of a parameter with `count` elements are in 8 bits.
    constexpr bool is_8bit(std::int64_t count) const { return eight_bit && count >= min_8bit_size; }
};

/// The bytes of both moments of a parameter with `count` elements of `size` bytes.
constexpr std::int64_t moment_bytes(std::int64_t count, std::size_t size, const AdamWOptions& options) {
    return options.is_8bit(count) ? 2 * (count + dynamic_blocks(count) * std::int64_t(sizeof(float)))
                                  : 2 * count * static_cast<std::int64_t>(size);
}

/// AdamW with bias correction and decoupled weight decay over groups of parameters. Source: torch.optim.AdamW,
/// Loshchilov and Hutter, arXiv:1711.05101.
template <class A, DeviceTag D = Cpu>
class AdamW {
  public:
    /// Throws OptionError on a setting out of range, a parameter that is no leaf, one that is given twice, or names
    /// that do not fit, ShapeError on a parameter that is not contiguous, and FileError where moments find no place.
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
                states_.push_back({std::move(name)});
            }
        }
        make_moments();
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
            const Tensor<A, D>* gradient = gradients.find(parameters_[i]);
            if (gradient == nullptr) {
                continue;
            }
            const std::int64_t count = parameters_[i].numel();
            A* parameter = parameters_[i].mutable_data();
            AdamWState<A, D>& state = states_[i];
            if constexpr (std::same_as<A, float>) {
                if (state.is_8bit()) {
                    adamw_8bit_step(D{}, count, parameter, state.exp_avg_codes.mutable_data(),
                                    state.exp_avg_absmax.mutable_data(), state.exp_avg_sq_codes.mutable_data(),
                                    state.exp_avg_sq_absmax.mutable_data(), gradient->data(), scalars, options_.beta1,
                                    options_.beta2, options_.epsilon);
                    continue;
                }
            }
            adamw_step(D{}, count, parameter, state.exp_avg.mutable_data(), state.exp_avg_sq.mutable_data(),
                       gradient->data(), scalars, options_.beta1, options_.beta2, options_.epsilon);
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
            AdamWState<A, D>::parts([&](const char* what, auto part) {
                const auto &mine = own.*part, &other = source.*part;
                if (mine.defined() != other.defined() || mine.shape() != other.shape()) {
                    const auto shown = [](const auto& tensor) {
                        return tensor.defined() ? concat(tensor.shape()) : std::string("none");
                    };
                    throw ShapeError(concat("AdamW state: parameter '", own.name, "': ", what, ": found shape ",
                                            shown(other), ", expected ", shown(mine)));
                }
            });
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
            AdamWState<A, D>::parts([&](const char*, auto part) {
                auto& mine = own.*part;
                const auto& other = source.*part;
                if (mine.defined()) {
                    copy_strided(D{}, other.shape(), other.data(), other.strides(), mine.mutable_data());
                }
            });
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

    /// Moments of zero for every parameter, in memory or in a file.
    void make_moments() {
        if (options_.eight_bit && !std::same_as<A, float>) {
            throw OptionError("AdamW: moments in 8 bits need parameters in fp32");
        }
        constexpr std::int64_t line = 64; // bytes that a tensor of the file begins at a multiple of
        std::shared_ptr<PagedMemory> file;
        std::int64_t used = 0;
        if (!options_.paged_directory.empty()) {
            if constexpr (!std::same_as<D, Cpu>) {
                throw OptionError(concat("AdamW: moments in a file are for the host, not for ", D::name()));
            }
            for (const Tensor<A, D>& parameter : parameters_) {
                used += moment_bytes(parameter.numel(), sizeof(A), options_) + 4 * line;
            }
            file = PagedMemory::create(options_.paged_directory, static_cast<std::size_t>(used));
            used = 0;
        }
        const auto make = [&]<class T>(Tensor<T, D>& tensor, const Shape& shape) {
            if (!file) {
                tensor = Tensor<T, D>::zeros(shape);
                return;
            }
            tensor = Tensor<T, D>::map_writable(reinterpret_cast<T*>(file->data() + used), shape, file);
            used += (tensor.numel() * std::int64_t(sizeof(T)) + line - 1) / line * line;
        };
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            AdamWState<A, D>& state = states_[i];
            const Shape& shape = parameters_[i].shape();
            if (const std::int64_t count = parameters_[i].numel(); options_.is_8bit(count)) {
                make(state.exp_avg_codes, shape);
                make(state.exp_avg_sq_codes, shape);
                make(state.exp_avg_absmax, {dynamic_blocks(count)});
                make(state.exp_avg_sq_absmax, {dynamic_blocks(count)});
            } else {
                make(state.exp_avg, shape);
                make(state.exp_avg_sq, shape);
            }
        }
    }

    AdamWOptions options_;
    std::vector<Tensor<A, D>> parameters_;
    std::vector<Settings> settings_; // of each parameter, as the two below
    std::vector<AdamWState<A, D>> states_;
    Tensor<A, D> scalars_; // [parameters, adamw_scalar_count]
};

} // namespace lowrank
