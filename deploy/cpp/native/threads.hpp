// A few threads that share out the parts of a loop.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace vitcli::native {

class Threads {
 public:
  // count: with the calling thread, at least 1.
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  // Calls part(0) to part(count - 1), each once, in any order and on any thread; returns when all are done. `part` must
  // not throw, and must not call run().
  void run(int count, const std::function<void(int)>& part);

  int count() const { return static_cast<int>(helpers_.size()) + 1; }

 private:
  void help();
  void work();

  std::vector<std::thread> helpers_;
  std::mutex mutex_;
  std::condition_variable begin_, end_;
  const std::function<void(int)>* part_ = nullptr;
  std::atomic<int> next_{0};
  int num_parts_ = 0, working_ = 0;
  unsigned round_ = 0;
  bool stops_ = false;
};

}  // namespace vitcli::native
