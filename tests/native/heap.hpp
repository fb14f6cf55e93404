// The C++ heap of the whole program, counted, and made to fail where a test wants it to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tests::heap {

int64_t live();  // allocations that were not freed

// Allocation `first`, counted from 0 and from now on, throws std::bad_alloc, and so do those behind it if `all_after`.
void fail_at(int64_t first, bool all_after);
// As many bytes more than now can be had; what goes further throws. Large sizes are refused alike under sanitizers.
void limit(size_t bytes);
// No longer fails. Whether it did.
bool recover();

}  // namespace tests::heap
