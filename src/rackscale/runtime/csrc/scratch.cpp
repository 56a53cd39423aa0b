#include "scratch.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rackscale {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kLeast = 2 << 20;  // a block's size is a multiple of it: a large page

int64_t up_to(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

}  // namespace

void Scratch::Freed::operator()(char* memory) const { std::free(memory); }

void* Scratch::take(int64_t bytes) {
  bytes = up_to(bytes, kLine);
  while (current_ < blocks_.size() && blocks_[current_].used + bytes > blocks_[current_].size) ++current_;
  if (current_ == blocks_.size()) {
    const int64_t size = up_to(bytes, kLeast);
    char* memory = static_cast<char*>(std::aligned_alloc(kLeast, static_cast<size_t>(size)));
    if (!memory) throw std::bad_alloc();
#if defined(__linux__)
    madvise(memory, static_cast<size_t>(size), MADV_HUGEPAGE);  // advice: without it the pages are small
#endif
    blocks_.push_back({std::unique_ptr<char, Freed>(memory), size, 0});
  }
  Block& block = blocks_[current_];
  block.used += bytes;
  return block.memory.get() + block.used - bytes;
}

void Scratch::back_to(const Mark& mark) {
  for (size_t i = mark.block; i < blocks_.size(); ++i) blocks_[i].used = i == mark.block ? mark.used : 0;
  current_ = std::min(mark.block, blocks_.empty() ? 0 : blocks_.size() - 1);
}

}  // namespace rackscale
