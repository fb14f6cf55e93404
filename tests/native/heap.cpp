#include "heap.hpp"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

namespace tests::heap {
namespace {

constexpr int64_t NEVER = std::numeric_limits<int64_t>::max();

std::atomic<int64_t> blocks = 0, used = 0, count = 0;
std::atomic<int64_t> first_failure = NEVER, last_failure = NEVER, most_used = NEVER;
std::atomic<bool> failed = false;

void* allocate(size_t size, size_t alignment) {
  const int64_t number = count++;
  const bool fits = size < static_cast<size_t>(NEVER) && static_cast<int64_t>(size) <= most_used - used;
  if ((number >= first_failure && number <= last_failure) || !fits) {
    failed = true;
    throw std::bad_alloc();
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), size) != 0) throw std::bad_alloc();
  ++blocks;
  used += static_cast<int64_t>(malloc_usable_size(memory));
  return memory;
}

void release(void* memory) noexcept {
  if (!memory) return;
  --blocks;
  used -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

int64_t live() { return blocks; }

void fail_at(int64_t first, bool all_after) {
  count = 0;
  failed = false;
  last_failure = all_after ? NEVER : first;
  first_failure = first;
}

void limit(size_t bytes) {
  failed = false;
  most_used = used + static_cast<int64_t>(bytes);
}

bool recover() {
  first_failure = most_used = NEVER;
  return failed;
}

}  // namespace tests::heap

constexpr size_t USUAL = __STDCPP_DEFAULT_NEW_ALIGNMENT__;

// Every form that can be replaced, so that none comes from another heap than where it goes.
void* operator new(size_t size) { return tests::heap::allocate(size, USUAL); }
void* operator new[](size_t size) { return tests::heap::allocate(size, USUAL); }
void* operator new(size_t size, std::align_val_t to) { return tests::heap::allocate(size, static_cast<size_t>(to)); }
void* operator new[](size_t size, std::align_val_t to) { return tests::heap::allocate(size, static_cast<size_t>(to)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  try {
    return tests::heap::allocate(size, USUAL);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* operator new[](size_t size, const std::nothrow_t& tag) noexcept { return operator new(size, tag); }
void operator delete(void* memory) noexcept { tests::heap::release(memory); }
void operator delete[](void* memory) noexcept { tests::heap::release(memory); }
void operator delete(void* memory, size_t) noexcept { tests::heap::release(memory); }
void operator delete[](void* memory, size_t) noexcept { tests::heap::release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { tests::heap::release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { tests::heap::release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { tests::heap::release(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { tests::heap::release(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { tests::heap::release(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { tests::heap::release(memory); }
