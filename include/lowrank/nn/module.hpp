// Modules: a struct that names its fields once, and what follows from that: walking, parameters, paths.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
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

/// Calls `visit(path, field)` for every module, slot and tensor inside `module`, in the order of the fields, parents
/// first. `visit` must accept every type of field; see for_each and for_each_parameter for the common cases.
template <Module M, class Visit>
void walk(M& module, const Visit& visit, const std::string& path = "") {
    module.fields([&]<class Field>(const char* name, Field& field) {
        const std::string field_path = detail::join_path(path, name);
        if constexpr (detail::is_vector<Field>) {
            for (std::size_t i = 0; i < field.size(); ++i) {
                const std::string element_path = detail::join_path(field_path, std::to_string(i));
                visit(element_path, field[i]);
                walk(field[i], visit, element_path);
            }
        } else {
            visit(field_path, field);
            if constexpr (Module<Field>) {
                walk(field, visit, field_path);
            }
        }
    });
}

/// Calls `visit(path, field)` for every field of type Field inside `module`: every Linear, say.
template <class Field, Module M, class Visit>
void for_each(M& module, const Visit& visit) {
    walk(module, [&]<class Found>(const std::string& path, Found& found) {
        if constexpr (std::is_same_v<Found, Field>) {
            visit(path, found);
        }
    });
}

/// Calls `visit(path, field)` for every parameter: every WeightSlot and every Tensor.
template <Module M, class Visit>
void for_each_parameter(M& module, const Visit& visit) {
    walk(module, [&]<class Found>(const std::string& path, Found& found) {
        if constexpr (!Module<Found>) {
            visit(path, found);
        }
    });
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
        const Tensor<C, D> values = slot.frozen() ? slot.frozen()->template dense_copy<C>() : slot.values();
        slot = WeightSlot<C, D>(trainable ? leaf(values) : values.detach(), slot.orientation());
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
