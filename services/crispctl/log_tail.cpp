#include "services/crispctl/log_tail.h"

#include <utility>

namespace crisp::ctl {

void LogTail::Add(const LogLine& line) {
  std::optional<Kept>& open = open_[line.from_stderr ? 1 : 0];
  if (!open) open = Kept{std::string(line.time), "", line.from_stderr, false};
  open->text += line.text;
  open->partial = line.partial;
  // One that never ends must not fill the memory.
  if (!line.partial || open->text.size() >= LogLines::kMaxLine) {
    kept_.push_back(*std::exchange(open, std::nullopt));
  }
  Cut();
}

void LogTail::Cut() {
  std::size_t count = kept_.size();
  for (const auto& open : open_) count += open ? 1 : 0;
  for (; count > most_ && !kept_.empty(); --count) kept_.pop_front();
}

void LogTail::Give(const std::function<void(const LogLine&)>& line) const {
  if (most_ == 0) return;
  const auto give = [&line](const Kept& kept) {
    line({kept.time, kept.from_stderr, kept.partial, kept.text});
  };
  for (const Kept& kept : kept_) give(kept);
  for (const auto& open : open_) {
    if (open) give(*open);
  }
}

}  // namespace crisp::ctl
