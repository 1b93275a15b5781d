#pragma once

#include <compare>
#include <cstdint>

namespace crisp {

/// An amount of bytes. Arithmetic stays inside the type; `.count()` leaves it at a format's edge.
class Bytes {
 public:
  constexpr Bytes() = default;
  constexpr explicit Bytes(std::uint64_t count) : count_(count) {}
  constexpr std::uint64_t count() const { return count_; }
  constexpr auto operator<=>(const Bytes&) const = default;
  constexpr Bytes& operator+=(Bytes other) {
    count_ += other.count_;
    return *this;
  }
  friend constexpr Bytes operator+(Bytes a, Bytes b) { return a += b; }

 private:
  std::uint64_t count_ = 0;
};

constexpr Bytes KiB(std::uint64_t n) { return Bytes(n << 10U); }
constexpr Bytes MiB(std::uint64_t n) { return Bytes(n << 20U); }
constexpr Bytes GiB(std::uint64_t n) { return Bytes(n << 30U); }

}  // namespace crisp
