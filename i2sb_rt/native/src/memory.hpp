// The caller's allocator as a memory resource.
#pragma once

#include <memory>
#include <memory_resource>
#include <new>
#include <utility>

#include "failure.hpp"

namespace i2sb {

class Memory : public std::pmr::memory_resource {
 public:
  // NULL: the C++ heap.
  explicit Memory(const i2sb_allocator* allocator) : allocator_(allocator ? *allocator : i2sb_allocator{}) {
    if (allocator) require(allocator->allocate && allocator->release, "allocator.allocate or .release is NULL");
  }

 private:
  void* do_allocate(size_t size, size_t alignment) override {
    if (!allocator_.allocate) return std::pmr::new_delete_resource()->allocate(size, alignment);
    if (void* memory = allocator_.allocate(allocator_.user, size, alignment)) return memory;
    throw std::bad_alloc();
  }
  void do_deallocate(void* memory, size_t size, size_t alignment) override {
    if (allocator_.allocate)
      allocator_.release(allocator_.user, memory, size);
    else
      std::pmr::new_delete_resource()->deallocate(memory, size, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  const i2sb_allocator allocator_;
};

// An array that holds anything at first.
template <typename Value>
class Block {
 public:
  Block(size_t count, std::pmr::memory_resource* memory)
      : count_(count), memory_(memory), data_(static_cast<Value*>(memory->allocate(bytes(), alignof(Value)))) {}
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { memory_->deallocate(data_, bytes(), alignof(Value)); }
  Value* data() const { return data_; }

 private:
  size_t bytes() const { return count_ * sizeof(Value); }

  size_t count_;
  std::pmr::memory_resource* memory_;
  Value* data_;
};

// Makes an opaque object in the memory that it then owns: its constructor takes the Memory, moved from.
template <typename Object>
struct Released {
  void operator()(Object* object) const {
    if (!object) return;
    Memory memory = object->memory;
    object->~Object();
    memory.deallocate(object, sizeof(Object), alignof(Object));
  }
};

template <typename Object, typename... Arguments>
std::unique_ptr<Object, Released<Object>> make_in(Memory memory, Arguments&&... arguments) {
  void* place = memory.allocate(sizeof(Object), alignof(Object));
  try {
    return std::unique_ptr<Object, Released<Object>>(new (place) Object(memory, std::forward<Arguments>(arguments)...));
  } catch (...) {
    memory.deallocate(place, sizeof(Object), alignof(Object));
    throw;
  }
}

}  // namespace i2sb
