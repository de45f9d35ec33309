#include "threads.hpp"

namespace vitcli::native {

Threads::Threads(int count) {
  for (int i = 1; i < count; ++i) helpers_.emplace_back([this] { help(); });
}

Threads::~Threads() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  begin_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Threads::run(int count, const std::function<void(int)>& part) {
  if (helpers_.empty() || count <= 1) {
    for (int i = 0; i < count; ++i) part(i);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    part_ = &part;
    num_parts_ = count;
    next_ = 0;
    working_ = static_cast<int>(helpers_.size());
    ++round_;
  }
  begin_.notify_all();
  work();
  std::unique_lock lock(mutex_);
  end_.wait(lock, [this] { return working_ == 0; });
}

void Threads::help() {
  for (unsigned seen = 0;;) {
    {
      std::unique_lock lock(mutex_);
      begin_.wait(lock, [&] { return stops_ || round_ != seen; });
      if (stops_) return;
      seen = round_;
    }
    work();
    const std::lock_guard lock(mutex_);
    if (--working_ == 0) end_.notify_one();
  }
}

void Threads::work() {
  for (int i = next_++; i < num_parts_; i = next_++) (*part_)(i);
}

}  // namespace vitcli::native
