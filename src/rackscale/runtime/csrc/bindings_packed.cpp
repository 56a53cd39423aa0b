// Python's view of the packed kernels; tensors are addresses.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <vector>

#include "kernels.hpp"
#include "packed.hpp"
#include "packed_kernels.hpp"
#include "probe.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using Address = uintptr_t;
using Release = nb::call_guard<nb::gil_scoped_release>;

namespace {

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// A row of what pack() takes: as in kernels/packing.py.
constexpr int64_t kJobFields = 11;
using Jobs = nb::ndarray<const int64_t, nb::shape<-1, kJobFields>, nb::c_contig, nb::device::cpu>;
using JobScales = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void pack(const Jobs& jobs, const JobScales& scales, int num_threads) {
  std::unique_ptr<rackscale::PackJob[]> all(new rackscale::PackJob[jobs.shape(0)]);
  for (size_t i = 0; i < jobs.shape(0); ++i) {
    const int64_t* job = jobs.data() + i * kJobFields;
    const auto address = [&](int field) { return reinterpret_cast<uint8_t*>(static_cast<Address>(job[field])); };
    all[i] = {static_cast<rackscale::Format>(job[0]),
              address(1),
              job[2],
              address(3),
              job[4],
              job[5],
              job[6],
              static_cast<float>(scales.data()[i]),
              address(7),
              reinterpret_cast<float*>(address(8)),
              job[9],
              job[10]};
  }
  const nb::gil_scoped_release release;
  rackscale::pack(all.get(), static_cast<int64_t>(jobs.shape(0)), num_threads);
}

}  // namespace

void bind_packed(nb::module_& m) {
  using rackscale::Packed, rackscale::PackedExperts;
  nb::class_<Packed>(m, "Packed")
      .def(
          "__init__",
          [](Packed* self, int format, int activations, int64_t depth, int64_t columns, Address tiles,
             Address tile_scales, float input_scale) {
            new (self) Packed{static_cast<rackscale::Format>(format),
                              static_cast<rackscale::Activations>(activations),
                              depth,
                              columns,
                              at<uint8_t>(tiles),
                              at<float>(tile_scales),
                              input_scale};
          },
          nb::kw_only(), "format"_a, "activations"_a, "depth"_a, "columns"_a, "tiles"_a, "tile_scales"_a,
          "input_scale"_a);
  nb::class_<PackedExperts>(m, "PackedExperts")
      .def(
          "__init__",
          [](PackedExperts* self, int64_t num_experts, int64_t hidden, int64_t width, const Packed& gate_up,
             const Packed& down, Address gate_up_bias, Address down_bias, bool clamped, float alpha, float limit) {
            new (self) PackedExperts{num_experts,         hidden,  width, gate_up, down, at<float>(gate_up_bias),
                                     at<float>(down_bias), clamped, alpha, limit};
          },
          nb::kw_only(), "num_experts"_a, "hidden"_a, "width"_a, "gate_up"_a, "down"_a, "gate_up_bias"_a,
          "down_bias"_a, "clamped"_a, "alpha"_a, "limit"_a);
  m.def("tile_bytes", [](int format, int64_t depth) {
    return rackscale::tile_bytes(static_cast<rackscale::Format>(format), depth);
  });
  m.def("pack", pack);
  m.def(
      "read_bandwidth",
      [](Address memory, int64_t size, int num_threads) {
        return rackscale::read_bandwidth(at<void>(memory), size, num_threads);
      },
      Release());
  m.def(
      "peak",
      [](bool of_int8, int num_threads) {
        return rackscale::peak(of_int8 ? rackscale::Peak::kInt8 : rackscale::Peak::kBf16, num_threads);
      },
      Release());
  m.def("instructions", [] { return rackscale::instructions().name; });
  m.def("set_instructions", rackscale::set_instructions);
  m.def(
      "packed_linear",
      [](Address in, int64_t in_stride, int64_t num_rows, const Packed& packed, Address bias, bool add, Address out,
         int64_t out_stride, int num_threads) {
        rackscale::linear(at<float>(in), in_stride, num_rows, packed, at<float>(bias), add, at<float>(out), out_stride,
                          num_threads);
      },
      Release());
  m.def(
      "packed_mlp",
      [](Address in, int64_t in_stride, int64_t num_rows, const Packed& gate_up, const Packed& down, bool add,
         Address out, int64_t out_stride, int num_threads) {
        rackscale::mlp(at<float>(in), in_stride, num_rows, gate_up, down, add, at<float>(out), out_stride,
                       num_threads);
      },
      Release());
  m.def(
      "packed_experts",
      [](Address hidden, Address gates, Address expert_ids, int64_t num_tokens, int64_t per_token,
         const PackedExperts& experts, Address out, int num_threads) {
        std::vector<const float*> rows(static_cast<size_t>(num_tokens));
        for (int64_t i = 0; i < num_tokens; ++i) rows[i] = at<float>(hidden) + i * experts.hidden;
        std::unique_ptr<double[]> sums(new double[static_cast<size_t>(num_tokens * experts.hidden)]);
        rackscale::experts({rows.data(), at<float>(gates), at<int32_t>(expert_ids), num_tokens, per_token}, experts,
                           sums.get(), num_threads);
        rackscale::to_floats(sums.get(), num_tokens * experts.hidden, at<float>(out));
      },
      Release());
}
