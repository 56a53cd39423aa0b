// Python's view; see checkpoint/quantizer/round_to_nearest.py. Memory goes by address.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>

#include "nvfp4.hpp"

namespace nb = nanobind;
using Address = uintptr_t;
using namespace rackscale;

namespace {

template <typename W>
Rows<W> rows_at(Address weight, int64_t num_rows, int64_t depth, int64_t stride) {
  return {reinterpret_cast<const W*>(weight), num_rows, depth, stride};
}

template <typename W>
float largest_at(Address weight, int64_t num_rows, int64_t depth, int64_t stride) {
  nb::gil_scoped_release release;
  return largest(rows_at<W>(weight, num_rows, depth, stride));
}

template <typename W>
void encode_at(Address weight, int64_t num_rows, int64_t depth, int64_t stride, float tensor_scale, Address codes,
               Address scales) {
  nb::gil_scoped_release release;
  encode_nvfp4(rows_at<W>(weight, num_rows, depth, stride), tensor_scale, reinterpret_cast<uint8_t*>(codes),
               reinterpret_cast<uint8_t*>(scales));
}

template <typename W>
std::pair<double, double> compare_at(Address weight, int64_t num_rows, int64_t depth, int64_t stride,
                                     float tensor_scale, Address codes, Address scales) {
  nb::gil_scoped_release release;
  const Squares squares =
      compare_nvfp4(rows_at<W>(weight, num_rows, depth, stride), tensor_scale,
                    reinterpret_cast<const uint8_t*>(codes), reinterpret_cast<const uint8_t*>(scales));
  return {squares.error, squares.weight};
}

}  // namespace

NB_MODULE(_encode, m) {
  m.def("largest_fp32", &largest_at<float>);
  m.def("largest_bf16", &largest_at<bf16>);
  m.def("encode_nvfp4_fp32", &encode_at<float>);
  m.def("encode_nvfp4_bf16", &encode_at<bf16>);
  m.def("compare_nvfp4_fp32", &compare_at<float>);
  m.def("compare_nvfp4_bf16", &compare_at<bf16>);
}
