// One line on a terminal that says what takes so long; nothing where stderr is no terminal.
#pragma once

#include <string_view>

namespace sagejit::cli {

class Progress {
 public:
  Progress();
  ~Progress();  // takes the line away
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::string_view what);

 private:
  const bool on_terminal_;
  bool shown_ = false;
};

}  // namespace sagejit::cli
