#include "team.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "portable.hpp"

namespace rackscale {
namespace {

constexpr int64_t kLine = 64;

RACKSCALE_CLONES void add(float* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

int64_t buffer_bytes(int64_t capacity) {
  return kLine + (capacity * static_cast<int64_t>(sizeof(float)) + kLine - 1) / kLine * kLine;
}

Counter& counter(char* segment) { return *reinterpret_cast<Counter*>(segment); }

}  // namespace

struct Team::Box {
  uint32_t round;
  int64_t count;
  const float* values() const { return reinterpret_cast<const float*>(reinterpret_cast<const char*>(this) + kLine); }
  float* values() { return reinterpret_cast<float*>(reinterpret_cast<char*>(this) + kLine); }
};

static_assert(sizeof(Counter) <= kLine);

// A counter, then two buffers that take turns: who writes to one again has waited for the round between, which a member
// begins only when it has read the first.
int64_t Team::segment_bytes(int64_t capacity) { return kLine + 2 * buffer_bytes(capacity); }

Team::Team(int64_t index, int64_t capacity, std::vector<char*> segments, Patience patience)
    : index_(index), capacity_(capacity), segments_(std::move(segments)), patience_(patience) {}

Team::Box& Team::box(int64_t member) const {
  static_assert(sizeof(Box) <= kLine);
  return *reinterpret_cast<Box*>(segments_[member] + kLine + (round_ % 2) * buffer_bytes(capacity_));
}

void Team::all_reduce(float* values, int64_t count) {
  for (int64_t start = 0; start < count; start += capacity_)
    exchange(values + start, std::min(capacity_, count - start));
}

void Team::exchange(float* values, int64_t count) {
  const int64_t num_members = static_cast<int64_t>(segments_.size());
  const int64_t start = now_ns();
  ++round_;
  Box& own = box(index_);
  own.round = round_;
  own.count = count;
  std::memcpy(own.values(), values, static_cast<size_t>(count) * sizeof(float));
  for (int64_t step = 1; step < num_members; ++step) counter(segments_[(index_ + step) % num_members]).raise();
  const int64_t sent = now_ns();
  // A member that is a round ahead has raised twice, and then all have written: it waited for them.
  const bool done =
      counter(segments_[index_]).wait(round_ * static_cast<uint32_t>(num_members - 1), patience_);
  const int64_t waited = now_ns();
  times_.wait_ns += waited - sent;
  if (!done)
    throw std::runtime_error("member " + std::to_string(index_) + " waited in vain for its team in round " +
                             std::to_string(round_));
  for (int64_t member = 0; member < num_members; ++member) {
    const Box& part = box(member);
    if (part.round != round_ || part.count != count)
      throw std::runtime_error("shared memory is corrupt: the part of member " + std::to_string(member));
    if (member == 0) {
      std::memcpy(values, part.values(), static_cast<size_t>(count) * sizeof(float));
    } else {
      add(values, part.values(), count);
    }
  }
  times_.copy_ns += sent - start + now_ns() - waited;
  times_.copied_bytes += (num_members - 1) * count * static_cast<int64_t>(sizeof(float));
}

Team::Times Team::take_times() {
  const Times taken = times_;
  times_ = {};
  return taken;
}

}  // namespace rackscale
