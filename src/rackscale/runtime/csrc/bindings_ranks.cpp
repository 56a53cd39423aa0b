// Python's view of what ranks tell each other through shared memory; see runtime/comm.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "all_to_all.hpp"
#include "kernels.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using Address = uintptr_t;
using Release = nb::call_guard<nb::gil_scoped_release>;
using rackscale::AllToAll, rackscale::Domain, rackscale::Received, rackscale::Wire;

namespace {

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

using Ranks = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

}  // namespace

void bind_ranks(nb::module_& m) {
  nb::class_<Domain>(m, "Domain")
      .def(
          "__init__",
          [](Domain* self, int64_t rank, int64_t num_ranks, int64_t hidden, int64_t top_k, int64_t capacity,
             int dispatch, int combine) {
            new (self) Domain{rank, num_ranks, hidden, top_k, capacity, static_cast<Wire>(dispatch),
                              static_cast<Wire>(combine)};
          },
          nb::kw_only(), "rank"_a, "num_ranks"_a, "hidden"_a, "top_k"_a, "capacity"_a, "dispatch"_a, "combine"_a)
      .def("segment_bytes", [](const Domain& self) { return AllToAll::segment_bytes(self); });
  nb::class_<AllToAll>(m, "AllToAll")
      .def("__init__",
           [](AllToAll* self, const Domain& domain, const std::vector<Address>& segments, int64_t spin_ns,
              int64_t limit_ns) {
             std::vector<char*> addresses;
             for (const Address segment : segments) addresses.push_back(at<char>(segment));
             new (self) AllToAll(domain, std::move(addresses), {spin_ns, limit_ns});
           })
      .def("place",
           [](AllToAll& self, int64_t layer, const Ranks& ranks, const Counts& counts) {
             self.place(layer, static_cast<int64_t>(counts.shape(0)), static_cast<int64_t>(ranks.shape(1)),
                        ranks.data(), counts.data());
           })
      .def(
          "dispatch",
          [](AllToAll& self, int64_t layer, Address hidden, Address expert_ids, Address gates, int64_t num_tokens) {
            self.dispatch(layer, at<float>(hidden), at<int32_t>(expert_ids), at<float>(gates), num_tokens);
          },
          Release())
      .def(
          "receive", [](AllToAll& self) { return self.receive().count(); }, Release())
      .def(
          "take",
          [](AllToAll& self, Address hidden, Address expert_ids, Address gates) {
            const Received& received = self.received();
            const int64_t width = self.domain().hidden;
            float* to = at<float>(hidden);
            for (const float* row : received.rows) to = std::copy_n(row, width, to);
            std::copy(received.expert_ids.begin(), received.expert_ids.end(), at<int32_t>(expert_ids));
            std::copy(received.gates.begin(), received.gates.end(), at<float>(gates));
          },
          Release())
      .def(
          "experts",
          [](AllToAll& self, const rackscale::AnyExperts& experts, Address sums, int num_threads) {
            const Received& received = self.received();
            rackscale::experts({received.rows.data(), received.gates.data(), received.expert_ids.data(),
                                received.count(), self.domain().top_k},
                               experts, at<float>(sums), num_threads);
          },
          Release())
      .def(
          "combine", [](AllToAll& self, Address sums) {
            self.is_exact() ? self.combine(at<double>(sums)) : self.combine(at<float>(sums));
          }, Release())
      .def(
          "collect", [](AllToAll& self, Address out) { self.collect(at<float>(out)); }, Release())
      .def("take_times", [](AllToAll& self) {
        const rackscale::Times times = self.take_times();
        return nb::make_tuple(times.wait_ns, times.copy_ns, times.copied_bytes);
      });
  m.def("row_bytes", [](int wire, int64_t width) { return rackscale::row_bytes(static_cast<Wire>(wire), width); });
  m.def("encode_row", [](int wire, Address from, int64_t width, Address to) {
    rackscale::encode_row(static_cast<Wire>(wire), at<float>(from), width, at<void>(to));
  });
  m.def("decode_row", [](int wire, Address from, int64_t width, Address to) {
    rackscale::decode_row(static_cast<Wire>(wire), at<void>(from), width, at<float>(to));
  });
}
