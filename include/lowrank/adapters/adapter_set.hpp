// Several adapters on one model: added, loaded, switched, switched off for a while, saved and deleted by name.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "lowrank/adapters/initial_pissa.hpp"
#include "lowrank/adapters/named_embedding_adapters.hpp"
#include "lowrank/adapters/peft_files.hpp"

namespace lowrank {

/// The adapters of a model, by name. The first one is active until others are chosen. The base is frozen, and shared
/// by all: an adapter that trains biases or whole modules of it is refused. The model outlives the set and stays where
/// it is. A ForwardContext may name an adapter for each row of a batch (`adapter_names`).
template <class T, DeviceTag D, Module M>
class AdapterSet {
  public:
    /// Freezes the model. Throws OptionError where it has an adapter already.
    explicit AdapterSet(M& model) : model_(model), names_(std::make_shared<AdapterNames>()) {
        for_each_layer([](const std::string& path, const auto& layer) {
            if (layer.adapter) {
                throw OptionError(lowrank::concat(path, " has an adapter already: load it by its name instead"));
            }
        });
        freeze<T, D>(model);
    }
    AdapterSet(const AdapterSet&) = delete;
    AdapterSet& operator=(const AdapterSet&) = delete;

    /// Adds a new adapter, as attach_adapter does. Throws OptionError as that, for a name that is taken or is no name
    /// of a directory, and for bias and modules_to_save; then nothing has changed.
    void add(const std::string& name, const AdapterConfig& config, std::uint64_t seed) {
        check(targets(config), name);
        add(name, config, make_adapters<T, D>(model_, config, seed, [](const std::string&, const Shape&) {
                return Tensor<compute_t<T>, D>();
            }));
    }

    /// Adds the adapter that a directory holds. Throws as load_adapter and add; then nothing has changed.
    const AdapterConfig& load(const std::string& name, const std::filesystem::path& directory) {
        return add(name, [&](M& model) {
            return load_adapter<T, D>(model, directory, [&](AdapterConfig& read) { check(targets(read), name); });
        });
    }

    /// Adds what `attach(model)` attaches to the bare model and returns the settings of: for starts that look at the
    /// base or at data, such as attach_from_base's and attach_eva's. If it quantizes the base, as attach_loftq does,
    /// that is the base of all. Throws as `attach` and as the other add.
    template <std::invocable<M&> Attach>
    const AdapterConfig& add(const std::string& name, const Attach& attach) {
        check_name(name);
        AdapterConfig config;
        MadeAdapters<T, D> adapters;
        {
            const Alone none(*this, "");
            config = attach(model_);
            for_each_layer([&](const std::string& path, auto& layer) {
                if (layer.adapter) {
                    of(adapters, layer)[path] = std::exchange(layer.adapter, nullptr);
                }
            });
            freeze<T, D>(model_); // of which it may train parts
        }
        check(targets(config), name);
        add(name, config, adapters);
        return configs_.at(name);
    }

    /// Adds adapters that were made already, as make_adapters makes them; `config` says what they are when they are
    /// saved. Throws OptionError for the name.
    void add(const std::string& name, const AdapterConfig& config, const MadeAdapters<T, D>& adapters) {
        check_name(name);
        for_each_layer([&](const std::string& path, auto& layer) {
            const auto& own = of(adapters, layer);
            if (const auto found = own.find(path); found != own.end()) {
                if (!layer.adapter) {
                    layer.adapter = std::make_shared<Named<std::decay_t<decltype(layer)>>>(names_);
                }
                named(layer)->add(name, found->second);
            }
        });
        configs_.insert_or_assign(name, config);
        names_->all.push_back(name);
        if (names_->all.size() == 1) {
            names_->active = {name};
        }
    }

    /// Deletes an adapter. Throws OptionError for a name that is not there.
    void remove(const std::string& name) {
        require(name);
        for_each_layer([&](const std::string&, auto& layer) {
            if (auto* several = named(layer)) {
                several->remove(name);
                if (several->empty()) {
                    layer.adapter = nullptr;
                }
            }
        });
        std::erase(names_->all, name);
        std::erase(names_->active, name);
        configs_.erase(name);
    }

    /// Makes these the active ones; none is the base model. What is active is also what trainable_tensors sees. Throws
    /// OptionError for a name that is not there.
    void set_active(const std::vector<std::string>& names) {
        for (const std::string& name : names) {
            require(name);
        }
        names_->active = names;
    }

    const std::vector<std::string>& active() const { return names_->active; }
    /// All names, in the order in which they were added.
    const std::vector<std::string>& names() const { return names_->all; }
    /// The settings of an adapter. Throws OptionError for a name that is not there.
    const AdapterConfig& config(const std::string& name) const {
        require(name);
        return configs_.at(name);
    }

    /// While it lives, no adapter is active.
    class Disabled {
      public:
        explicit Disabled(std::shared_ptr<AdapterNames> names)
            : names_(std::move(names)),
              before_(std::exchange(names_->active, {})) {}
        Disabled(const Disabled&) = delete;
        Disabled& operator=(const Disabled&) = delete;
        ~Disabled() { names_->active = std::move(before_); }

      private:
        std::shared_ptr<AdapterNames> names_;
        std::vector<std::string> before_;
    };
    [[nodiscard]] Disabled disable() { return Disabled(names_); }

    /// Calls `visit(path, layer, adapter)` for every layer, linear or embedding, that the adapter of this name adapts.
    /// Throws OptionError for a name that is not there.
    template <class Visit>
    void for_each_adapter(const std::string& name, const Visit& visit) {
        require(name);
        for_each_layer([&](const std::string& path, auto& layer) {
            if (auto* several = named(layer)) {
                if (const auto adapter = several->find(name)) {
                    visit(path, layer, *adapter);
                }
            }
        });
    }

    /// Writes an adapter as save_adapter does, into `directory` if its name is "default", and otherwise into the
    /// folder of its name there, as PEFT does; PiSSA and OLoRA as plain LoRA of twice the rank. Returns where. Throws
    /// as save_adapter, and OptionError for a name that is not there.
    std::filesystem::path save(const std::string& name, const std::filesystem::path& directory) {
        require(name);
        const Alone alone(*this, name);
        const std::filesystem::path place = name == "default" ? directory : directory / name;
        save_plain_adapter<T, D>(model_, configs_.at(name), place);
        return place;
    }

  private:
    template <class Layer>
    using Named =
        std::conditional_t<std::same_as<Layer, Linear<T, D>>, NamedAdapters<T, D>, NamedEmbeddingAdapters<T, D>>;

    /// While it lives, the layers have one of their adapters alone, or with an empty name none.
    class Alone {
      public:
        Alone(AdapterSet& set, const std::string& name) {
            set.for_each_layer([&](const std::string&, auto& layer) {
                if (auto* several = named(layer)) {
                    back_.push_back([&layer, before = layer.adapter] { layer.adapter = before; });
                    layer.adapter = several->find(name);
                }
            });
        }
        Alone(const Alone&) = delete;
        Alone& operator=(const Alone&) = delete;
        ~Alone() {
            for (const auto& put_back : back_) {
                put_back();
            }
        }

      private:
        std::vector<std::function<void()>> back_;
    };

    /// Calls `visit(path, layer)` for every layer that may have an adapter.
    template <class Visit>
    void for_each_layer(const Visit& visit) {
        for_each<Linear<T, D>>(model_, visit);
        for_each<Embedding<T, D>>(model_, visit);
    }

    /// The adapters of a layer; null where it has none.
    template <class Layer>
    static Named<Layer>* named(Layer& layer) {
        return dynamic_cast<Named<Layer>*>(layer.adapter.get());
    }

    static auto& of(auto& adapters, const Linear<T, D>&) { return adapters.linears; }
    static auto& of(auto& adapters, const Embedding<T, D>&) { return adapters.embeddings; }

    void require(const std::string& name) const {
        if (!names_->has(name)) {
            std::string known;
            for (const std::string& other : names_->all) {
                known += (known.empty() ? "" : ", ") + other;
            }
            throw OptionError(
                lowrank::concat("the model has no adapter '", name, "'; it has ", known.empty() ? "none" : known));
        }
    }

    void check_name(const std::string& name) const {
        if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos || names_->has(name)) {
            throw OptionError(lowrank::concat("adapter '", name, "': ",
                                              names_->has(name) ? "the model has one of this name already"
                                                                : "expected the name of a directory"));
        }
    }

    static void check(const AdapterTargets& targets, const std::string& name) {
        if (targets.bias != BiasMode::none || !targets.modules_to_save.empty()) {
            throw OptionError(lowrank::concat("adapter '", name,
                                              "': ", targets.bias != BiasMode::none ? "bias" : "modules_to_save",
                                              ": parts of the base itself cannot be trained where several adapters "
                                              "share it"));
        }
    }

    M& model_;
    std::shared_ptr<AdapterNames> names_;
    std::map<std::string, AdapterConfig> configs_;
};

} // namespace lowrank
