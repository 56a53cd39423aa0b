// Python's view of the kernels. Tensors come as addresses: converting a tensor costs more than a small kernel.
#include <nanobind/nanobind.h>

#include "kernels.hpp"

namespace nb = nanobind;
using Address = uintptr_t;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

NB_MODULE(_native, m) {
  m.doc() = "C++ kernels; see rackscale.runtime.kernels.native for what each takes.";
  nb::class_<rackscale::Experts>(m, "Experts")
      .def("__init__",
           [](rackscale::Experts* self, int64_t num_experts, int64_t hidden, int64_t width, Address gate_up,
              Address down, bool is_bf16, Address gate_up_bias, Address down_bias, bool clamped, float alpha,
              float limit) {
             new (self) rackscale::Experts{num_experts,         hidden,  width, at<void>(gate_up), at<void>(down), is_bf16,
                                           at<float>(gate_up_bias), at<float>(down_bias), clamped, alpha, limit};
           });
  nb::class_<rackscale::Router>(m, "Router")
      .def("__init__", [](rackscale::Router* self, int64_t num_experts, int64_t top_k, int64_t num_groups,
                          int64_t topk_groups, int scoring, bool renormalise, float scale) {
        new (self) rackscale::Router{num_experts, top_k, num_groups, topk_groups, scoring, renormalise, scale};
      });
  m.def("experts", [](Address hidden, Address weights, Address expert_ids, int64_t num_tokens, int64_t per_token,
                      const rackscale::Experts& e, Address out, int num_threads) {
    rackscale::experts(at<float>(hidden), at<float>(weights), at<int32_t>(expert_ids), num_tokens, per_token, e,
                       at<float>(out), num_threads);
  });
  m.def("route", [](Address logits, Address correction, int64_t num_tokens, const rackscale::Router& r,
                    Address weights, Address expert_ids) {
    rackscale::route(at<float>(logits), at<float>(correction), num_tokens, r, at<float>(weights),
                     at<int32_t>(expert_ids));
  });
  m.def("rms_norm", [](Address in, int64_t in_stride, Address weight, int64_t num_rows, int64_t width, float eps,
                       Address out) {
    rackscale::rms_norm(at<float>(in), in_stride, at<float>(weight), num_rows, width, eps, at<float>(out));
  });
  m.def("rotate", [](Address x, int64_t token_stride, int64_t head_stride, Address cos, Address sin, Address positions,
                     int64_t num_tokens, int64_t num_heads, int64_t half) {
    rackscale::rotate(at<float>(x), token_stride, head_stride, at<float>(cos), at<float>(sin), at<int64_t>(positions),
                      num_tokens, num_heads, half);
  });
  m.def("linear", [](Address in, Address weight, Address bias, int64_t num_rows, int64_t depth, int64_t columns,
                     Address out) {
    rackscale::linear(at<float>(in), at<float>(weight), at<float>(bias), num_rows, depth, columns, at<float>(out));
  });
  m.def("mla_decode", [](Address query, Address cache, Address rows, Address lengths, Address table,
                         int64_t num_decodes, int64_t table_width, int64_t block_size, int64_t num_heads,
                         int64_t width, int64_t rank, float scale, Address out, int num_threads) {
    const rackscale::Paged paged{at<int32_t>(rows), at<int32_t>(lengths), at<int32_t>(table),
                                 num_decodes,       table_width,          block_size};
    rackscale::mla_decode(at<float>(query), at<float>(cache), paged, num_heads, width, rank, scale, at<float>(out),
                          num_threads);
  });
  m.def("gqa_decode", [](Address query, Address keys, Address values, Address rows, Address lengths, Address table,
                         int64_t num_decodes, int64_t table_width, int64_t block_size, int64_t num_heads,
                         int64_t num_key_heads, int64_t head_dim, float scale, int64_t window, Address sinks,
                         Address out, int num_threads) {
    const rackscale::Paged paged{at<int32_t>(rows), at<int32_t>(lengths), at<int32_t>(table),
                                 num_decodes,       table_width,          block_size};
    rackscale::gqa_decode(at<float>(query), at<float>(keys), at<float>(values), paged, num_heads, num_key_heads,
                          head_dim, scale, window, at<float>(sinks), at<float>(out), num_threads);
  });
}
