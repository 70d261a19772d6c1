// Where warnings go: a callback of the host program's, or nowhere.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace sagejit {

enum class LogLevel { kWarning = 1, kInfo = 2 };

// Cheap to copy. The callback may be called from any thread, also from several at once.
class Log {
 public:
  using Callback = std::function<void(LogLevel, const std::string&)>;
  Log() = default;
  explicit Log(Callback callback) : callback_(std::move(callback)) {}

  void warn(std::string_view message) const { write(LogLevel::kWarning, message); }
  void info(std::string_view message) const { write(LogLevel::kInfo, message); }

 private:
  void write(LogLevel level, std::string_view message) const {
    if (callback_) callback_(level, std::string(message));
  }
  Callback callback_;
};

}  // namespace sagejit
