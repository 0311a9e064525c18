#include "engine/allocation_account.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <utility>

#if defined(__APPLE__)
#include <malloc/malloc.h>
#else
#include <malloc.h>
#endif

#include "base/error.h"

namespace pensieve::engine {
namespace {

/// What is borrowed at once, so that a pool is not asked for every block. Choice.
constexpr std::int64_t kBorrowedStep = 1 << 20;
/// A message is shorter. Choice.
constexpr std::size_t kSmallBlock = 1024;

thread_local constinit AllocationAccount* t_account = nullptr;

std::size_t size_of(void* block) {
#if defined(__APPLE__)
  return malloc_size(block);
#else
  return malloc_usable_size(block);
#endif
}

void* allocate(std::size_t size, std::size_t alignment) {
  AllocationAccount* const account = t_account;
  if (account != nullptr && !account->may_take(size)) throw AllocationRefused();
  size = std::max<std::size_t>(size, 1);
  while (true) {
    // aligned_alloc() wants whole multiples of the alignment.
    void* const block =
        alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
            ? std::malloc(size)
            : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (block != nullptr) {
      if (account != nullptr) account->take(size_of(block));
      return block;
    }
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}

void release(void* block) noexcept {
  if (AllocationAccount* const account = t_account; account != nullptr && block != nullptr) {
    account->give_back(size_of(block));
  }
  std::free(block);
}

}  // namespace

bool AllocationPool::try_take(std::int64_t bytes) {
  std::int64_t left = left_.load();
  while (left >= bytes) {
    if (left_.compare_exchange_weak(left, left - bytes)) return true;
  }
  return false;
}

AllocationAccount::AllocationAccount(Bytes own, std::shared_ptr<AllocationPool> pool)
    : own_(static_cast<std::int64_t>(own.count())), pool_(std::move(pool)) {}

AllocationAccount::~AllocationAccount() {
  pool_->give_back(borrowed_);
}

bool AllocationAccount::may_take(std::size_t size) {
  return has(size) || std::uncaught_exceptions() > 0;
}

bool AllocationAccount::has(std::size_t size) {
  // Larger than any machine; the sums below cannot overflow.
  constexpr std::size_t kSizeMax = std::size_t{1} << 48;
  const bool is_small = size < kSmallBlock;
  if (size > kSizeMax || (is_stopped_ && !is_small)) return false;
  const std::int64_t kept_free = is_small ? 0 : own_ / 4;
  const std::int64_t lacks = held_ + static_cast<std::int64_t>(size) + kept_free - own_ - borrowed_;
  if (lacks <= 0) return true;
  for (const std::int64_t more : {std::max(lacks, kBorrowedStep), lacks}) {
    if (!pool_->try_take(more)) continue;
    borrowed_ += more;
    return true;
  }
  return false;
}

AllocationScope::AllocationScope(AllocationAccount& account) {
  PENSIEVE_CHECK(t_account == nullptr);
  t_account = &account;
}

AllocationScope::~AllocationScope() {
  t_account = nullptr;
}

}  // namespace pensieve::engine

// All other forms of the operators call these.
void* operator new(std::size_t size) {
  return pensieve::engine::allocate(size, 0);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return pensieve::engine::allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* block) noexcept {
  pensieve::engine::release(block);
}
void operator delete(void* block, std::size_t /*size*/) noexcept {
  pensieve::engine::release(block);
}
void operator delete(void* block, std::align_val_t /*alignment*/) noexcept {
  pensieve::engine::release(block);
}
void operator delete(void* block, std::size_t /*size*/, std::align_val_t /*alignment*/) noexcept {
  pensieve::engine::release(block);
}
