#include "tests/unit/runtime/allocation_counter.h"

#include <cstdlib>
#include <new>

namespace {
thread_local size_t counter = 0;

void* count_and_allocate(size_t bytes) {
  ++counter;
  if (void* memory = std::malloc(bytes ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
}  // namespace

namespace sagejit::testing {
size_t num_allocations() noexcept {
  return counter;
}
}  // namespace sagejit::testing

void* operator new(size_t bytes) {
  return count_and_allocate(bytes);
}
void* operator new[](size_t bytes) {
  return count_and_allocate(bytes);
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  ++counter;
  return std::malloc(bytes ? bytes : 1);
}
void* operator new[](size_t bytes, const std::nothrow_t& tag) noexcept {
  return operator new(bytes, tag);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}
