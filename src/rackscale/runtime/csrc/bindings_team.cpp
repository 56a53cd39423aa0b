// Python's view of ranks that share an attention; see runtime/comm/team.py.
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include "team.hpp"

namespace nb = nanobind;
using Address = uintptr_t;
using rackscale::Team;

void bind_team(nb::module_& m) {
  nb::class_<Team>(m, "Team")
      .def("__init__",
           [](Team* self, int64_t index, int64_t capacity, const std::vector<Address>& segments, int64_t spin_ns,
              int64_t limit_ns) {
             std::vector<char*> addresses;
             for (const Address segment : segments) addresses.push_back(reinterpret_cast<char*>(segment));
             new (self) Team(index, capacity, std::move(addresses), {spin_ns, limit_ns});
           })
      .def(
          "all_reduce",
          [](Team& self, Address values, int64_t count) { self.all_reduce(reinterpret_cast<float*>(values), count); },
          nb::call_guard<nb::gil_scoped_release>())
      .def("take_times", [](Team& self) {
        const Team::Times times = self.take_times();
        return nb::make_tuple(times.wait_ns, times.copy_ns, times.copied_bytes);
      });
  m.def("team_bytes", &Team::segment_bytes);
}
