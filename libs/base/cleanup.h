#pragma once

#include <functional>
#include <utility>

namespace crisp {

/// Runs an undo when a scope is left early; `Dismiss()` once what it undoes is recorded.
class [[nodiscard]] Cleanup {
 public:
  explicit Cleanup(std::function<void()> undo) : undo_(std::move(undo)) {}
  Cleanup(Cleanup&& other) noexcept : undo_(std::exchange(other.undo_, nullptr)) {}
  Cleanup& operator=(Cleanup&& other) noexcept {
    if (this != &other) {
      Run();
      undo_ = std::exchange(other.undo_, nullptr);
    }
    return *this;
  }
  ~Cleanup() { Run(); }

  void Dismiss() { undo_ = nullptr; }

 private:
  void Run() {
    if (auto undo = std::exchange(undo_, nullptr)) undo();
  }

  std::function<void()> undo_;
};

}  // namespace crisp
