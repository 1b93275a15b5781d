#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::systemd {

/// A property of a unit, with the type that systemd's D-Bus interface gives it (b, t, s, au, ay).
struct Property {
  std::string name;
  std::variant<bool, std::uint64_t, std::string, std::vector<std::uint32_t>,
               std::vector<std::uint8_t>>
      value;
};
using Properties = std::vector<Property>;

class BusThread;

/// Transient units of the machine's systemd, by its D-Bus interface. One connection, made with the
/// first call and again when it breaks; any number of calls at once, from any thread, each of which
/// waits for its own answer only.
/// All calls: kUnavailable when nobody answers on the bus (a call that was under way when the
/// connection broke is tried once more), kDeadlineExceeded when the call's time is over; then what
/// was asked for may still happen. Errors carry systemd's own words.
class Units {
 public:
  /// `address`: of the bus; empty = the system bus.
  explicit Units(std::string address = "");
  Units(const Units&) = delete;
  Units& operator=(const Units&) = delete;
  ~Units();

  /// systemd is what started this machine.
  static bool Booted(const std::string& run_root = "/run");

  /// Asks who is there: "252.39-1~deb12u1".
  Result<std::string> Version(const CallContext& cc);
  /// Starts a unit that goes when it ends, and waits until it is active. kAlreadyExists: a unit of
  /// that name is there.
  Status StartTransient(const CallContext& cc, const std::string& unit,
                        const Properties& properties);
  /// Waits until it is inactive; a failure that systemd keeps of it is forgotten. Unknown = Ok.
  Status Stop(const CallContext& cc, const std::string& unit);
  /// Until the next boot; a daemon-reload does not undo it. kNotFound: no such unit.
  Status Set(const CallContext& cc, const std::string& unit, const Properties& properties);

 private:
  std::unique_ptr<BusThread> bus_;
};

}  // namespace crisp::systemd
