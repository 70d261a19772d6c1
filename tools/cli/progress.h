// One line on a terminal that says what takes so long; nothing where stderr is no terminal.
#pragma once

#include <string_view>

namespace sagejit::cli {

class Progress {
 public:
  Progress();
  ~Progress();  // clears
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::string_view what);
  void clear();

 private:
  const bool on_terminal_;
  bool shown_ = false;
};

}  // namespace sagejit::cli
