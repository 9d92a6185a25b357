#include "trials.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <set>
#include <unistd.h>
#include <utility>

#include <fmt/core.h>

#include "adapter_options.hpp"
#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/train/trainer.hpp"
#include "lowrank/train/watchdog.hpp"
#include "say.hpp"

namespace examples {

using namespace lowrank;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The options of finetune that stand for these settings.
AdapterOptions adapter_options(const TrialSettings& settings, const SearchOptions& options) {
    AdapterOptions adapter;
    adapter.lora.r = settings.r;
    adapter.lora.lora_alpha = settings.lora_alpha;
    adapter.lora.lora_dropout = settings.lora_dropout;
    adapter.lora.use_rslora = options.use_rslora;
    adapter.target_modules = settings.target_modules;
    return adapter;
}

/// Ends a part of a run at its step, with an evaluation; and shows each step where somebody watches.
class Pace : public TrainerCallback {
  public:
    Pace(std::string name, std::int64_t until) : name_(std::move(name)), until_(until) {}
    ~Pace() override { say(stderr, "{}", live_ ? "\r\033[K" : ""); }

    void on_step_end(const StepMetrics& metrics, TrainerState& state) override {
        if (metrics.step == until_) {
            state.should_evaluate = state.should_stop = true;
        }
        if (live_) {
            say(stderr, "\r\033[K{}: step {}/{}  loss {:.4f}", name_, metrics.step, until_, metrics.loss);
            std::fflush(stderr);
        }
    }

  private:
    std::string name_;
    std::int64_t until_;
    bool live_ = isatty(STDERR_FILENO) != 0;
};

} // namespace

class Session {
  public:
    AdapterConfig config;
    Model model;
    LossWatchdog watchdog{[](const std::string& message) { throw NumericError(message); }};

    Session(const Model& base, const TrialSettings& settings, const SearchOptions& options, const DatasetSplit& data,
            const CLI::App& app)
        : model(base),
          loader_(data.train, options.loader) {
        config = prepare(model, adapter_options(settings, options), base_model_name(options.model), options.loader.seed,
                         app);
        const double rate = settings.learning_rate;
        optimizer_ =
            std::make_unique<AdamW<float>>(parameter_groups(model, rate, settings.loraplus_lr_ratio),
                                           AdamWOptions{.learning_rate = rate, .weight_decay = options.weight_decay});
        TrainerOptions training;
        training.max_steps = options.max_steps;
        // The rate must not depend on where a run will end: a trial that stops early is to be the beginning of a longer
        // one.
        training.schedule = {ScheduleKind::constant_with_warmup, options.warmup_steps, options.max_steps};
        training.max_grad_norm = options.max_grad_norm;
        training.seed = options.loader.seed;
        training.eval_data = &data.eval;
        training.eval_batch_size = options.eval_batch_size;
        training.evaluate = {options.eval_steps, false};
        trainer_ = std::make_unique<Trainer<float, Cpu, Model>>(model, loader_, *optimizer_, training);
    }
    Session(const Session&) = delete; // the trainer refers to the others
    Session& operator=(const Session&) = delete;

    /// Goes on, to the last step or until a callback asks for an end.
    void train(const std::vector<TrainerCallback*>& callbacks) { trainer_->train(callbacks); }

  private:
    DataLoader loader_;
    std::unique_ptr<AdamW<float>> optimizer_;
    std::unique_ptr<Trainer<float, Cpu, Model>> trainer_;
};

Trials::Trials(const Model& base, const SearchOptions& options, const DatasetSplit& data, const CLI::App& app)
    : base_(base),
      options_(options),
      data_(data),
      app_(app) {
    const SearchSpace space(options, app);
    std::set<std::vector<std::string>> checked;
    for (TrialSettings& settings : space.draw(options.trials, options.loader.seed)) {
        if (checked.insert(settings.target_modules).second) {
            Model model = base;
            prepare(model, adapter_options(settings, options), "", 0, app);
        }
        records_.emplace_back(std::int64_t(records_.size()) + 1, std::move(settings));
    }
    const auto count = std::int64_t(records_.size());
    if (count < options.trials) {
        say(stderr, "the space has {} different settings, not {}\n", count, options.trials);
    }
    rungs_ = options.method == "random"
                 ? std::vector{SearchRung{count, options.max_steps}}
                 : halving_rungs(count, options.max_steps, options.reduction_factor, options.min_steps);
    sessions_.resize(records_.size());
}

Trials::~Trials() = default;

double Trials::base_loss() const {
    return evaluate<Cpu>(base_, data_.eval, options_.eval_batch_size);
}

bool Trials::run() {
    StopOnInterrupt interrupt;
    const auto start = Clock::now();
    std::int64_t steps_done = 0;
    std::vector<std::size_t> alive(records_.size());
    std::iota(alive.begin(), alive.end(), std::size_t(0));
    for (std::size_t k = 0; k < rungs_.size(); ++k) {
        for (std::size_t i = 0; i < alive.size(); ++i) {
            TrialRecord& trial = records_[alive[i]];
            const std::int64_t before = trial.steps();
            advance(trial, rungs_[k].steps, interrupt);
            steps_done += trial.steps() - before;
            if (interrupt.interrupted()) {
                settle("interrupted", alive);
                return true;
            }
            release();
            const double pace = seconds_since(start) / double(std::max<std::int64_t>(1, steps_done));
            tell(trial, k, pace * double(steps_left(k, alive.size() - i - 1)));
        }
        if (k + 1 < rungs_.size()) {
            alive = survivors(alive, std::size_t(rungs_[k + 1].trials));
        }
    }
    return false;
}

void Trials::save(const TrialRecord& best, const std::filesystem::path& directory) {
    Session& session = *sessions_[std::size_t(best.number - 1)];
    save_adapter<float, Cpu>(session.model, session.config, directory);
}

/// Trains one trial up to a step. One that diverges has failed, and costs the others nothing.
void Trials::advance(TrialRecord& trial, std::int64_t until, StopOnInterrupt& interrupt) {
    const auto start = Clock::now();
    std::unique_ptr<Session>& session = sessions_[std::size_t(trial.number - 1)];
    try {
        if (!session) {
            session = std::make_unique<Session>(base_, trial.settings, options_, data_, app_);
        }
        Pace pace(fmt::format("trial {}/{}", trial.number, records_.size()), until);
        session->train({&pace, &interrupt, &session->watchdog, &trial.history});
        trial.state = trial.steps() == options_.max_steps ? "complete" : "running";
        if (trial.steps() > 0 && !std::isfinite(trial.loss())) {
            throw NumericError("the evaluation loss is not finite");
        }
    } catch (const NumericError& error) {
        trial.state = "failed";
        trial.error = error.what();
    }
    trial.seconds += seconds_since(start);
}

/// Gives a state to those of the trials that have begun and could still go on.
void Trials::settle(const std::string& state, const std::vector<std::size_t>& of) {
    for (const std::size_t i : of) {
        if (records_[i].state == "running") {
            records_[i].state = state;
        }
    }
}

/// The best `count` of these; the others are stopped.
std::vector<std::size_t> Trials::survivors(const std::vector<std::size_t>& alive, std::size_t count) {
    std::vector<double> losses;
    for (const std::size_t i : alive) {
        losses.push_back(records_[i].loss());
    }
    std::vector<std::size_t> best, rest = alive;
    for (const std::size_t place : lowest_losses(losses, count)) {
        best.push_back(alive[place]);
        std::erase(rest, alive[place]);
    }
    settle("stopped", rest);
    release();
    return best;
}

/// Frees what can neither go on nor be the best any more.
void Trials::release() {
    const auto is_done = [](const TrialRecord& trial) {
        return trial.state == "complete" || trial.state == "stopped" || trial.state == "failed";
    };
    const TrialRecord* best = nullptr;
    for (const TrialRecord& trial : records_) {
        if (is_done(trial) && (best == nullptr || trial.better_than(*best))) {
            best = &trial;
        }
    }
    for (const TrialRecord& trial : records_) {
        if (is_done(trial) && &trial != best) {
            sessions_[std::size_t(trial.number - 1)].reset();
        }
    }
}

/// Steps that are left when so many trials of a rung are.
std::int64_t Trials::steps_left(std::size_t rung, std::size_t trials_left) const {
    std::int64_t steps = 0;
    for (std::size_t k = rung; k < rungs_.size(); ++k) {
        const std::int64_t trials = k == rung ? std::int64_t(trials_left) : rungs_[k].trials;
        steps += trials * (rungs_[k].steps - (k == 0 ? 0 : rungs_[k - 1].steps));
    }
    return steps;
}

void Trials::tell(const TrialRecord& trial, std::size_t rung, double seconds_left) const {
    const auto left = std::int64_t(std::ceil(seconds_left));
    say(stderr, "rung {}/{}  trial {}/{}  {}  {}m{:02}s left  ({})\n", rung + 1, rungs_.size(), trial.number,
        records_.size(),
        trial.state == "failed" ? "failed: " + trial.error
                                : fmt::format("step {}  eval_loss {:.4f}", trial.steps(), trial.loss()),
        left / 60, left % 60, trial.settings.describe());
}

} // namespace examples
