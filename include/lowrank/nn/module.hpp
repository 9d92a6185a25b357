// Modules: a struct that names its fields once, and what follows from that: walking, parameters, paths.
#pragma once

#include <cstdint>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/tensor/weight_slot.hpp"

// A module is any struct with
//
//     template <class Visit> void fields(Visit&& visit) { visit("fc1", fc1); visit("fc2", fc2); }
//
// whose fields are WeightSlots (matrices), Tensors (vectors), modules, and std::vectors of modules. Names follow the
// checkpoint's keys: the path of a field, joined by dots, is its key.

namespace lowrank {

namespace detail {
struct AnyVisit {
    template <class Field>
    void operator()(const char*, Field&) const {}
};
} // namespace detail

/// A struct with `fields(visit)`.
template <class M>
concept Module = requires(M& module) {
    module.fields(detail::AnyVisit{});
};

namespace detail {

template <class Field>
inline constexpr bool is_vector = false;
template <class Element>
inline constexpr bool is_vector<std::vector<Element>> = true;

inline std::string join_path(const std::string& prefix, const std::string& name) {
    return prefix.empty() ? name : prefix + "." + name;
}

} // namespace detail

/// A field of a module, its type forgotten, so that whatever walks over a model is compiled once and not for each type
/// of field.
class FieldRef {
  public:
    template <class Field>
    FieldRef(std::string path, Field& field)
        : path_(std::move(path)),
          field_(&field),
          type_(&typeid(Field)),
          is_module_(Module<Field>) {}

    const std::string& path() const { return path_; }
    /// Whether it has fields itself; the others are parameters.
    bool is_module() const { return is_module_; }
    /// The field, or null when it is of another type.
    template <class Field>
    Field* get() const {
        return *type_ == typeid(Field) ? static_cast<Field*>(field_) : nullptr;
    }

  private:
    std::string path_;
    void* field_;
    const std::type_info* type_;
    bool is_module_;
};

namespace detail {

/// What a module's `fields` is called with: adds each field to a list, and the fields of that.
struct FieldCollector {
    std::vector<FieldRef>& list;
    const std::string& path;

    template <class Field>
    void operator()(const char* name, Field& field) const {
        const std::string field_path = join_path(path, name);
        if constexpr (is_vector<Field>) {
            for (std::size_t i = 0; i < field.size(); ++i) {
                add(join_path(field_path, std::to_string(i)), field[i]);
            }
        } else {
            add(field_path, field);
        }
    }

    template <class Field>
    void add(const std::string& field_path, Field& field) const {
        list.emplace_back(field_path, field);
        if constexpr (Module<Field>) {
            field.fields(FieldCollector{list, field_path});
        }
    }
};

} // namespace detail

/// Every module, slot and tensor inside `module`, in the order of the fields, parents first. Valid while the module
/// stays where it is.
template <Module M>
std::vector<FieldRef> fields_of(M& module) {
    std::vector<FieldRef> list;
    module.fields(detail::FieldCollector{list, std::string()});
    return list;
}

/// Calls `visit(path, field)` for every field of type Field inside `module`: every Linear, say.
template <class Field, Module M, class Visit>
void for_each(M& module, const Visit& visit) {
    for (const FieldRef& field : fields_of(module)) {
        if (Field* found = field.get<Field>()) {
            visit(field.path(), *found);
        }
    }
}

/// Calls `visit(path, field)` for every parameter: every WeightSlot<C, D> and every Tensor<C, D>. Throws Error for a
/// parameter of another type.
template <class C = float, DeviceTag D = Cpu, Module M, class Visit>
void for_each_parameter(M& module, const Visit& visit) {
    for (const FieldRef& field : fields_of(module)) {
        if (auto* slot = field.get<WeightSlot<C, D>>()) {
            visit(field.path(), *slot);
        } else if (auto* values = field.get<Tensor<C, D>>()) {
            visit(field.path(), *values);
        } else if (!field.is_module()) {
            throw Error(concat("parameter '", field.path(), "' is not of the type asked for"));
        }
    }
}

template <class C, DeviceTag D>
std::int64_t parameter_count(const WeightSlot<C, D>& slot) {
    return slot.defined() ? slot.out() * slot.in() : 0;
}
template <class C, DeviceTag D>
std::int64_t parameter_count(const Tensor<C, D>& values) {
    return values.defined() ? values.numel() : 0;
}

/// Makes a parameter's values a leaf, so that they are trained, or a constant. A frozen weight becomes trainable as a
/// dense copy in the type of parameters.
template <class C, DeviceTag D>
void set_trainable(Tensor<C, D>& values, bool trainable) {
    if (values.defined() && trainable != (values.node() != nullptr)) {
        values = trainable ? leaf(values) : values.detach();
    }
}
template <class C, DeviceTag D>
void set_trainable(WeightSlot<C, D>& slot, bool trainable) {
    if (slot.defined() && trainable != slot.is_trainable()) {
        const Tensor<C, D> values = dense_values(slot);
        slot = WeightSlot<C, D>(trainable ? leaf(values) : values, slot.orientation());
    }
}

/// The values behind a parameter that is trained; undefined for one that is not.
template <class C, DeviceTag D>
Tensor<C, D> trained_values(const Tensor<C, D>& values) {
    return values.defined() && values.node() ? values : Tensor<C, D>();
}
template <class C, DeviceTag D>
Tensor<C, D> trained_values(const WeightSlot<C, D>& slot) {
    return slot.is_trainable() ? slot.values() : Tensor<C, D>();
}

} // namespace lowrank
