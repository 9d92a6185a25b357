// What a method of training adds to the trainer's steps: a penalty on the loss, and work after the optimizer's update.
#pragma once

#include <cstdint>
#include <filesystem>

#include "lowrank/autograd/node.hpp"
#include "lowrank/io/json_reader.hpp"

namespace lowrank {

/// Takes part in Trainer::step, where a callback sees only what came of it. C is the type of parameters.
template <class C, DeviceTag D>
class TrainingMethod {
  public:
    virtual ~TrainingMethod() = default;

    /// What a step adds to its mean loss, as a scalar computed from parameters; undefined for nothing. Called once a
    /// step, whatever the number of its micro-batches.
    virtual Tensor<C, D> penalty() { return {}; }

    /// After the optimizer's update, while the gradients are there: those of loss and penalty, which the update
    /// multiplied by `clip_factor`. `step` counts from 0. A step that updates nothing is passed over.
    virtual void after_update(std::int64_t /*step*/, const Gradients& /*gradients*/, double /*clip_factor*/) {}

    /// While a checkpoint is written. `directory` has its name only later. What goes into `kept` comes back in resume.
    virtual void save(const std::filesystem::path& /*directory*/, json& /*kept*/) {}
    /// When a run continues from a checkpoint, or ends with the best one, after the parameters were read.
    virtual void resume(const std::filesystem::path& /*directory*/, JsonReader& /*kept*/) {}
};

} // namespace lowrank
