// Python's view of the kernels. Tensors come as addresses: converting a tensor costs more than a small kernel.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <utility>

#include "kernels.hpp"
#include "layers.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using Address = uintptr_t;
using Release = nb::call_guard<nb::gil_scoped_release>;

namespace {

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

rackscale::Paged paged(Address rows, Address lengths, Address table, int64_t num_decodes, int64_t table_width,
                       int64_t block_size) {
  return {at<int32_t>(rows), at<int32_t>(lengths), at<int32_t>(table), num_decodes, table_width, block_size};
}

using Column = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void bind_weights(nb::module_& m) {
  nb::class_<rackscale::Matrix>(m, "Matrix")
      .def("__init__",
           [](rackscale::Matrix* self, Address weight, bool is_bf16, int64_t depth, int64_t columns, Address bias) {
             new (self) rackscale::Matrix{at<void>(weight), is_bf16, depth, columns, at<float>(bias), std::nullopt};
           })
      .def("__init__", [](rackscale::Matrix* self, const rackscale::Packed& packed, Address bias) {
        new (self) rackscale::Matrix{nullptr, false, packed.depth, packed.columns, at<float>(bias), packed};
      });
  nb::class_<rackscale::Experts>(m, "Experts")
      .def("__init__",
           [](rackscale::Experts* self, int64_t num_experts, int64_t hidden, int64_t width, Address gate_up,
              Address down, bool is_bf16, Address gate_up_bias, Address down_bias, bool clamped, float alpha,
              float limit) {
             new (self)
                 rackscale::Experts{num_experts,         hidden,  width, at<void>(gate_up), at<void>(down), is_bf16,
                                    at<float>(gate_up_bias), at<float>(down_bias), clamped, alpha, limit};
           });
  nb::class_<rackscale::Router>(m, "Router")
      .def("__init__", [](rackscale::Router* self, int64_t num_experts, int64_t top_k, int64_t num_groups,
                          int64_t topk_groups, int scoring, bool renormalise, float scale) {
        new (self) rackscale::Router{num_experts, top_k, num_groups, topk_groups, scoring, renormalise, scale};
      });
}

void bind_layers(nb::module_& m) {
  using rackscale::Gqa, rackscale::Matrix, rackscale::Mla, rackscale::Mlp, rackscale::Moe;
  nb::class_<Mla>(m, "Mla").def(
      "__init__",
      [](Mla* self, int64_t num_heads, int64_t nope, int64_t rope, int64_t value_width, int64_t rank, float scale,
         float eps, const Matrix& first, Address query_norm, const Matrix& query_up, Address latent_norm,
         const Matrix& key_up, const Matrix& value_up, const Matrix& out) {
        new (self) Mla{num_heads, nope,     rope,   value_width, rank, scale, eps, first, at<float>(query_norm),
                       query_up,  at<float>(latent_norm), key_up, value_up,    out};
      },
      nb::kw_only(), "num_heads"_a, "nope"_a, "rope"_a, "value_width"_a, "rank"_a, "scale"_a, "eps"_a, "first"_a,
      "query_norm"_a, "query_up"_a, "latent_norm"_a, "key_up"_a, "value_up"_a, "out"_a);
  nb::class_<Gqa>(m, "Gqa").def(
      "__init__",
      [](Gqa* self, int64_t num_heads, int64_t num_key_heads, int64_t head_dim, int64_t window, float scale, float eps,
         float clip, int norm, const Matrix& first, Address query_norm, Address key_norm, Address sinks,
         const Matrix& out) {
        new (self) Gqa{num_heads, num_key_heads, head_dim,
                       window,    scale,         eps,
                       clip,      static_cast<rackscale::QkNorm>(norm),
                       first,     at<float>(query_norm), at<float>(key_norm),
                       at<float>(sinks), out};
      },
      nb::kw_only(), "num_heads"_a, "num_key_heads"_a, "head_dim"_a, "window"_a, "scale"_a, "eps"_a, "clip"_a,
      "norm"_a, "first"_a, "query_norm"_a, "key_norm"_a, "sinks"_a, "out"_a);
  nb::class_<Mlp>(m, "Mlp").def(
      "__init__", [](Mlp* self, const Matrix& gate_up, const Matrix& down) { new (self) Mlp{gate_up, down}; });
  nb::class_<Moe>(m, "Moe").def("__init__",
                                [](Moe* self, rackscale::AllToAll* ranks, int64_t number, const Matrix& router, Address correction, const rackscale::Router& routing,
                                   const rackscale::AnyExperts& experts, const Mlp& shared) {
                                  new (self) Moe{ranks, number, router, at<float>(correction), routing, experts, shared};
                                },
                                nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
}

template <typename Attention, typename Ffn>
void add(rackscale::Model& self, Address attention_norm, const Attention& attention, Address ffn_norm,
         const Ffn& ffn) {
  self.layers.push_back({at<float>(attention_norm), attention, at<float>(ffn_norm), ffn});
}

void decode(rackscale::Model& self, const Column& tokens, const Column& rows, const Column& lengths,
            const Table& table, int64_t block_size, const std::vector<Address>& caches, const Column& sampled,
            Address logits, Address loads, int num_threads, const nb::object& after_attention) {
  std::vector<float*> tensors;
  for (const Address cache : caches) tensors.push_back(at<float>(cache));
  const int64_t num_decodes = static_cast<int64_t>(tokens.shape(0)), num_sampled = static_cast<int64_t>(sampled.shape(0));
  const rackscale::Paged paged{rows.data(), lengths.data(), table.data(), num_decodes,
                               static_cast<int64_t>(table.shape(1)), block_size};
  std::function<void(int64_t)> told;
  if (!after_attention.is_none())
    told = [&after_attention](int64_t layer) {
      const nb::gil_scoped_acquire held;
      after_attention(layer);
    };
  const rackscale::Decode step{tokens.data(), paged, tensors.data(), sampled.data(), num_sampled, num_threads, told};
  const nb::gil_scoped_release release;
  rackscale::decode(self, step, at<float>(logits), at<int32_t>(loads));
}

void bind_model(nb::module_& m) {
  using rackscale::Gqa, rackscale::Matrix, rackscale::Mla, rackscale::Mlp, rackscale::Model, rackscale::Moe;
  nb::class_<Model>(m, "Model")
      .def(
          "__init__",
          [](Model* self, int64_t hidden, float eps, const Matrix& embed, Address cos, Address sin, Address final_norm,
             const Matrix& head) {
            new (self) Model{hidden, eps, embed, at<float>(cos), at<float>(sin), {}, at<float>(final_norm), head, {}, {}};
          },
          nb::kw_only(), "hidden"_a, "eps"_a, "embed"_a, "cos"_a, "sin"_a, "final_norm"_a, "head"_a)
      .def(
          "take_times",
          [](Model& self) {
            const rackscale::PartTimes t = std::exchange(self.times, {});
            nb::dict seconds;
            const std::pair<const char*, int64_t> parts[] = {
                {"embed", t.embed},   {"norms", t.norms},     {"projections", t.projections}, {"attention", t.attention},
                {"router", t.router}, {"experts", t.experts}, {"dense", t.dense},             {"head", t.head}};
            for (const auto& [name, ns] : parts) seconds[name] = static_cast<double>(ns) * 1e-9;
            return seconds;
          },
          "Seconds that steps spent in each part since the last call.")
      .def("add", &add<Mla, Mlp>)
      .def("add", &add<Mla, Moe>)
      .def("add", &add<Gqa, Mlp>)
      .def("add", &add<Gqa, Moe>)
      .def("decode", &decode, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg(), nb::arg(), nb::arg().none());
}

void bind_operations(nb::module_& m) {
  m.def(
      "experts",
      [](Address hidden, Address weights, Address expert_ids, int64_t num_tokens, int64_t per_token,
         const rackscale::AnyExperts& any, Address out, int num_threads) {
        const int64_t width = std::visit([](const auto& e) { return e.hidden; }, any);
        std::vector<const float*> rows(num_tokens);
        for (int64_t i = 0; i < num_tokens; ++i) rows[i] = at<float>(hidden) + i * width;
        rackscale::experts({rows.data(), at<float>(weights), at<int32_t>(expert_ids), num_tokens, per_token}, any,
                           at<float>(out), num_threads);
      },
      Release());
  m.def("route", [](Address logits, Address correction, int64_t num_tokens, const rackscale::Router& r,
                    Address weights, Address expert_ids) {
    rackscale::route(at<float>(logits), at<float>(correction), num_tokens, r, at<float>(weights),
                     at<int32_t>(expert_ids));
  });
  m.def("rms_norm", [](Address in, int64_t in_stride, Address weight, int64_t num_rows, int64_t width, float eps,
                       Address out) {
    rackscale::rms_norm(at<float>(in), in_stride, at<float>(weight), num_rows, width, eps, at<float>(out), width);
  });
  m.def("rotate", [](Address x, int64_t token_stride, int64_t head_stride, Address cos, Address sin, Address positions,
                     int64_t num_tokens, int64_t num_heads, int64_t half) {
    rackscale::rotate(at<float>(x), token_stride, head_stride, at<float>(cos), at<float>(sin), at<int64_t>(positions),
                      num_tokens, num_heads, half);
  });
  m.def(
      "linear",
      [](Address in, int64_t in_stride, int64_t num_rows, const rackscale::Matrix& matrix, Address out,
         int num_threads) {
        rackscale::linear(at<float>(in), in_stride, num_rows, matrix, false, at<float>(out), matrix.columns,
                          num_threads);
      },
      Release());
  m.def(
      "copy_rows",
      [](Address from, const Column& from_slots, int64_t row_bytes, Address to, const Column& to_slots) {
        rackscale::copy_rows(at<void>(from), from_slots.data(), static_cast<int64_t>(from_slots.shape(0)), row_bytes,
                             at<void>(to), to_slots.data());
      },
      "Rows of row_bytes each, from the slots of one tensor to those of another.");
  m.def("swiglu", [](Address inner, int64_t num_rows, int64_t width) {
    rackscale::swiglu_rows(at<float>(inner), num_rows, width);
  });
  m.def(
      "mla_decode",
      [](Address query, Address cache, Address rows, Address lengths, Address table, int64_t num_decodes,
         int64_t table_width, int64_t block_size, int64_t num_heads, int64_t width, int64_t rank, float scale,
         Address out, int num_threads) {
        rackscale::mla_decode(at<float>(query), at<float>(cache),
                              paged(rows, lengths, table, num_decodes, table_width, block_size), num_heads, width,
                              rank, scale, at<float>(out), num_threads);
      },
      Release());
  m.def(
      "gqa_decode",
      [](Address query, Address keys, Address values, Address rows, Address lengths, Address table,
         int64_t num_decodes, int64_t table_width, int64_t block_size, int64_t num_heads, int64_t num_key_heads,
         int64_t head_dim, float scale, int64_t window, Address sinks, Address out, int num_threads) {
        rackscale::gqa_decode(at<float>(query), at<float>(keys), at<float>(values),
                              paged(rows, lengths, table, num_decodes, table_width, block_size), num_heads,
                              num_key_heads, head_dim, scale, window, at<float>(sinks), at<float>(out), num_threads);
      },
      Release());
}

}  // namespace

void bind_packed(nb::module_& m);
void bind_ranks(nb::module_& m);
void bind_team(nb::module_& m);

NB_MODULE(_native, m) {
  m.doc() = "C++ kernels; see rackscale.runtime.kernels.native for what each takes.";
  bind_weights(m);
  bind_packed(m);
  bind_ranks(m);
  bind_team(m);
  bind_layers(m);
  bind_model(m);
  bind_operations(m);
}
