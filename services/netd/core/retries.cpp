#include "services/netd/core/retries.h"

#include <algorithm>

namespace crisp::netd {

void Retries::Add(const PodId& pod) {
  entries_.lock()->try_emplace(pod, Entry{.due = clock_.Now()});
}

void Retries::Failed(const PodId& pod, const Status& why) {
  constexpr std::chrono::seconds kFirst(1);
  constexpr std::chrono::minutes kLongest(5);
  constexpr unsigned kMaxShift = 16;
  auto entries = entries_.lock();
  Entry& entry = (*entries)[pod];
  const auto pause = kFirst * (1 << std::min(entry.failures, kMaxShift));
  entry.due = clock_.Now() + std::min<std::chrono::nanoseconds>(pause, kLongest);
  entry.taken = false;
  ++entry.failures;
  if (!why.ok()) entry.why = why;
}

void Retries::Done(const PodId& pod) { entries_.lock()->erase(pod); }

std::vector<PodId> Retries::TakeDue() {
  std::vector<PodId> due;
  const SteadyTime now = clock_.Now();
  auto entries = entries_.lock();
  for (auto& [pod, entry] : *entries) {
    if (entry.taken || entry.due > now) continue;
    entry.taken = true;
    due.push_back(pod);
  }
  return due;
}

bool Retries::Has(const PodId& pod) const { return entries_.lock()->contains(pod); }

std::vector<Retries::Owed> Retries::FailedOften(unsigned least) const {
  std::vector<Owed> owed;
  auto entries = entries_.lock();
  for (const auto& [pod, entry] : *entries) {
    if (entry.failures >= least) owed.push_back({pod, entry.failures, entry.why});
  }
  return owed;
}

std::size_t Retries::size() const { return entries_.lock()->size(); }

}  // namespace crisp::netd
