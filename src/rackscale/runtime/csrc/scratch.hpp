// Memory for what a step computes on its way: taken piece by piece, given back all at once, and kept for the next step,
// so that no page of it is asked of the system twice.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace rackscale {

class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Uninitialised, aligned to a line of the cache; valid until a mark made before it is gone back to.
  template <typename T>
  T* of(int64_t count) {
    return static_cast<T*>(take(count * static_cast<int64_t>(sizeof(T))));
  }

  struct Mark {
    size_t block;
    int64_t used;
  };
  Mark mark() const { return {current_, blocks_.empty() ? 0 : blocks_[current_].used}; }
  void back_to(const Mark& mark);

 private:
  struct Freed {
    void operator()(char* memory) const;
  };
  struct Block {
    std::unique_ptr<char, Freed> memory;
    int64_t size, used;
  };

  void* take(int64_t bytes);

  std::vector<Block> blocks_;
  size_t current_ = 0;
};

}  // namespace rackscale
