// Several adapters on one layer: by name, one or several of them active, or each row of a batch with its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/nn/linear.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/gather.hpp"

namespace lowrank {

/// The adapters of a model, by name, and which of them are active: one for all of its layers.
struct AdapterNames {
    std::vector<std::string> all, active;

    bool has(const std::string& name) const { return std::find(all.begin(), all.end(), name) != all.end(); }
};

/// Adapters of one layer, by name; Adapter is LinearAdapter<T, D> or EmbeddingAdapter<T, D>.
template <class Adapter>
class NamedEntries {
  public:
    explicit NamedEntries(std::shared_ptr<const AdapterNames> names) : names_(std::move(names)) {}

    /// The adapter of that name; null where this layer has none.
    std::shared_ptr<Adapter> find(const std::string& name) const {
        for (const auto& [own, adapter] : entries_) {
            if (own == name) {
                return adapter;
            }
        }
        return nullptr;
    }
    void add(const std::string& name, std::shared_ptr<Adapter> adapter) {
        entries_.emplace_back(name, std::move(adapter));
    }
    void remove(const std::string& name) {
        std::erase_if(entries_, [&](const auto& entry) { return entry.first == name; });
    }
    bool empty() const { return entries_.empty(); }

    /// Calls `visit(name, adapter)` for the active ones.
    template <class Visit>
    void for_each_active(const Visit& visit) const {
        for (const auto& [name, adapter] : entries_) {
            if (std::find(names_->active.begin(), names_->active.end(), name) != names_->active.end()) {
                visit(name, *adapter);
            }
        }
    }
    std::vector<Adapter*> active() const {
        std::vector<Adapter*> list;
        for_each_active([&](const std::string&, Adapter& adapter) { list.push_back(&adapter); });
        return list;
    }

    /// base + Σ (own(adapter) − base) over the active ones; a single one's own as it is.
    template <class Values, class Own>
    Values summed(const Values& base, const Own& own) const {
        const std::vector<Adapter*> list = active();
        if (list.size() == 1) {
            return own(*list[0]);
        }
        Values sum = base;
        for (Adapter* adapter : list) {
            sum = sum + (own(*adapter) - base);
        }
        return sum;
    }

    /// Calls `visit("<adapter>.<tensor>", values)` for the tensors of the active ones.
    template <class Visit>
    void parameters(const Visit& visit) const {
        for_each_active([&](const std::string& name, Adapter& adapter) {
            adapter.parameters([&](const std::string& own, auto& values) { visit(name + "." + own, values); });
        });
    }

    /// The rows of a batch by the adapter that they name: null for those that have none here. Throws ShapeError unless
    /// `count` rows are named, and OptionError for a name that the model does not have.
    struct Rows {
        std::shared_ptr<Adapter> adapter;
        std::vector<std::int32_t> rows;
    };
    std::vector<Rows> rows_by_adapter(const std::vector<std::string>& names, std::int64_t count) const {
        if (count != static_cast<std::int64_t>(names.size())) {
            throw ShapeError(concat("adapters by row: found ", names.size(), " names for a batch of ", count, " rows"));
        }
        std::vector<Rows> groups;
        for (std::size_t i = 0; i < names.size(); ++i) {
            if (!names[i].empty() && !names_->has(names[i])) {
                throw OptionError(concat("adapters by row: the model has no adapter '", names[i], "'"));
            }
            const std::shared_ptr<Adapter> adapter = find(names[i]);
            auto group =
                std::find_if(groups.begin(), groups.end(), [&](const Rows& other) { return other.adapter == adapter; });
            if (group == groups.end()) {
                group = groups.insert(groups.end(), Rows{adapter, {}});
            }
            group->rows.push_back(static_cast<std::int32_t>(i));
        }
        return groups;
    }

  private:
    std::shared_ptr<const AdapterNames> names_;
    std::vector<std::pair<std::string, std::shared_ptr<Adapter>>> entries_;
};

namespace detail {

template <DeviceTag D>
Tensor<std::int32_t, D> index_of(const std::vector<std::int32_t>& rows) {
    return Tensor<std::int32_t, D>::from(rows, {static_cast<std::int64_t>(rows.size())});
}

/// What one group of rows after the other gave, in the order of the batch. `rows` are the groups' rows in their order.
template <class T, DeviceTag D>
Tensor<T, D> in_order(const std::vector<Tensor<T, D>>& parts, const std::vector<std::int32_t>& rows) {
    std::vector<std::int32_t> place(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        place[static_cast<std::size_t>(rows[i])] = static_cast<std::int32_t>(i);
    }
    return index_select(lowrank::concat(parts, 0), 0, index_of<D>(place));
}

} // namespace detail

/// An adapter that is several. Active together, they add up: the result changes by what each would change alone.
/// Where the context names an adapter for each row, a row gets its own.
template <class T, DeviceTag D>
class NamedAdapters final : public LinearAdapter<T, D>, public NamedEntries<LinearAdapter<T, D>> {
  public:
    using C = compute_t<T>;
    using Adapter = LinearAdapter<T, D>;
    using Entries = NamedEntries<Adapter>;
    using Entries::Entries;

    Tensor<T, D> forward(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                         const ForwardContext<D>& context) const override {
        if (context.adapter_names) {
            return forward_rows(layer, x, epilogue, context);
        }
        const std::vector<Adapter*> active = this->active();
        if (active.size() == 1) {
            return active[0]->forward(layer, x, epilogue, context);
        }
        std::vector<LowRankTerm<T, D>> terms;
        std::vector<const Adapter*> others;
        for (const Adapter* adapter : active) {
            if (!adapter->low_rank_terms(layer, x, context, terms)) {
                others.push_back(adapter);
            }
        }
        if (others.empty()) {
            return linear(x, layer.weight, epilogue, std::move(terms));
        }
        Epilogue<T, D> plain;
        plain.bias = epilogue.bias;
        const Tensor<T, D> base = linear(x, layer.weight, plain);
        Tensor<T, D> sum = terms.empty() ? base : linear(x, layer.weight, plain, std::move(terms));
        for (const Adapter* adapter : others) {
            sum = sum + (adapter->forward(layer, x, plain, context) - base);
        }
        return apply_rest(sum, epilogue);
    }

    Tensor<C, D> merged(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        return this->summed(dense_values(layer.weight), [&](const Adapter& adapter) { return adapter.merged(layer); });
    }

    Tensor<C, D> merged_bias(const Linear<T, D>& layer) const override {
        const NoGrad no_grad;
        const Tensor<C, D> zero =
            layer.bias.defined() ? layer.bias.detach() : Tensor<C, D>::zeros({layer.weight.out()});
        bool has_bias = layer.bias.defined();
        const Tensor<C, D> bias = this->summed(zero, [&](const Adapter& adapter) {
            const Tensor<C, D> own = adapter.merged_bias(layer);
            has_bias = has_bias || own.defined();
            return own.defined() ? own.detach() : zero;
        });
        return has_bias ? bias : Tensor<C, D>();
    }

    /// Those of the active adapters, as "<adapter>.lora_A.weight".
    void parameters(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        Entries::parameters(visit);
    }
    void shared_tensors(const std::function<void(const std::string&, Tensor<C, D>&)>& visit) override {
        this->for_each_active([&](const std::string&, Adapter& adapter) { adapter.shared_tensors(visit); });
    }

  private:
    /// Rows whose adapter is a low-rank term, or that have none, are one product, with the terms masked by row; those
    /// of every other adapter are gathered and run alone.
    Tensor<T, D> forward_rows(const Linear<T, D>& layer, const Tensor<T, D>& x, const Epilogue<T, D>& epilogue,
                              const ForwardContext<D>& context) const {
        const std::int64_t count = x.rank() > 1 ? x.size(0) : 0;
        ForwardContext<D> inner = context;
        inner.adapter_names = nullptr;
        std::vector<LowRankTerm<T, D>> terms;
        typename Entries::Rows fused;
        std::vector<typename Entries::Rows> groups;
        for (auto& group : this->rows_by_adapter(*context.adapter_names, count)) {
            const std::size_t before = terms.size();
            if (group.adapter && !group.adapter->low_rank_terms(layer, x, inner, terms)) {
                groups.push_back(std::move(group));
                continue;
            }
            fused.rows.insert(fused.rows.end(), group.rows.begin(), group.rows.end());
            std::vector<float> mask(static_cast<std::size_t>(count));
            for (const std::int32_t row : group.rows) {
                mask[static_cast<std::size_t>(row)] = 1;
            }
            for (std::size_t i = before; i < terms.size(); ++i) {
                Shape shape = terms[i].t.shape();
                for (int dim = 1; dim < shape.rank(); ++dim) {
                    shape[dim] = 1;
                }
                terms[i].t = terms[i].t * cast<T>(Tensor<float, D>::from(mask, shape));
            }
        }
        if (groups.empty()) {
            return linear(x, layer.weight, epilogue, std::move(terms));
        }
        if (!fused.rows.empty()) {
            groups.push_back(std::move(fused));
        }
        std::vector<Tensor<T, D>> parts;
        std::vector<std::int32_t> order;
        for (const auto& group : groups) {
            const Tensor<std::int32_t, D> index = detail::index_of<D>(group.rows);
            const auto taken = [&](const Tensor<T, D>& all) {
                return all.defined() ? index_select(all, 0, index) : all;
            };
            Epilogue<T, D> own = epilogue;
            own.residual = taken(epilogue.residual);
            if (group.adapter) {
                parts.push_back(group.adapter->forward(layer, taken(x), own, inner));
            } else {
                for (LowRankTerm<T, D>& term : terms) {
                    term.t = taken(term.t);
                }
                parts.push_back(linear(taken(x), layer.weight, own, terms));
            }
            order.insert(order.end(), group.rows.begin(), group.rows.end());
        }
        return detail::in_order(parts, order);
    }
};

} // namespace lowrank
