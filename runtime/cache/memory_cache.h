// MemoryCache: values by key, made at most once each at a time (single flight), kept for good.
//
// A look-up of a value that is there takes one shared lock and no allocation. If making a value
// throws, the exception goes to the caller that was making it; callers that waited then try for
// themselves, so that each gets an error of its own. Safe to use from several threads.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace sagejit {

template <typename Key, typename Value, typename Hash>
class MemoryCache {
 public:
  using Pointer = std::shared_ptr<const Value>;

  // Null if the value is not there (yet).
  Pointer find(const Key& key) const {
    const std::shared_lock lock(mutex_);
    const auto it = values_.find(key);
    return it == values_.end() ? nullptr : it->second;
  }

  // The value, made by `make()` (which returns a Pointer) unless it is there or another thread
  // makes it.
  template <typename Make>
  Pointer find_or_make(const Key& key, Make make) {
    for (;;) {
      if (Pointer value = find(key)) return value;
      std::shared_ptr<Flight> flight;
      if (join(key, flight)) {
        // The lookup above may have missed a value that was finished just before this flight began.
        const Landing landing(*this, key, *flight);
        if (Pointer value = find(key)) return value;
        Pointer value = make();
        const std::unique_lock lock(mutex_);
        return values_.emplace(key, std::move(value)).first->second;
      }
      flight->wait();
    }
  }

 private:
  struct Flight {
    std::mutex mutex;
    std::condition_variable landed;
    bool over = false;

    void wait() {
      std::unique_lock lock(mutex);
      landed.wait(lock, [&] { return over; });
    }
    void end() {
      const std::scoped_lock lock(mutex);
      over = true;
      landed.notify_all();
    }
  };

  // Ends a flight, also when making the value throws.
  class Landing {
   public:
    Landing(MemoryCache& cache, const Key& key, Flight& flight)
        : cache_(cache), key_(key), flight_(flight) {}
    ~Landing() {
      {
        const std::scoped_lock lock(cache_.flights_mutex_);
        cache_.flights_.erase(key_);
      }
      flight_.end();
    }

   private:
    MemoryCache& cache_;
    const Key& key_;
    Flight& flight_;
  };

  // True: the caller makes the value. False: another thread does; wait for its flight.
  bool join(const Key& key, std::shared_ptr<Flight>& flight) {
    const std::scoped_lock lock(flights_mutex_);
    std::shared_ptr<Flight>& slot = flights_[key];
    const bool first = slot == nullptr;
    if (first) slot = std::make_shared<Flight>();
    flight = slot;
    return first;
  }

  mutable std::shared_mutex mutex_;  // guards values_
  std::unordered_map<Key, Pointer, Hash> values_;
  std::mutex flights_mutex_;  // guards flights_
  std::unordered_map<Key, std::shared_ptr<Flight>, Hash> flights_;
};

}  // namespace sagejit
