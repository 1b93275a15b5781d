#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "crisp/daemon/v1/daemon.pb.h"
#include "libs/base/result.h"
#include "services/crispctl/client.h"
#include "services/crispctl/why/places.h"

namespace crisp::ctl::why {

using daemon::v1::Operation;

/// One daemon, and what it says that it is doing.
struct Daemon {
  std::string name = {};  // "rund/1"
  std::string unit = {};  // of systemd's
  Result<daemon::v1::OperationsResponse> answer = Unavailable("nobody was asked");
  pid_t pid = 0;                    // who listens on its socket; 0: nobody
  std::optional<Place> place = {};  // of one that does not answer
  /// Since when it is away, by systemd or its socket; "" when nobody knows.
  std::string since = {};
};

/// What one daemon does for a request.
struct Part {
  std::string daemon = {};
  pid_t pid = 0;
  Operation operation = {};
};

/// Something that is under way, with all daemons that work for it.
struct Request {
  std::string id = {};
  std::vector<Part> parts = {};  // the front's first
  std::chrono::nanoseconds took{};
};

struct Failure {
  std::string daemon = {};
  Operation operation = {};
};

/// A file system of ours without room.
struct FullDisk {
  std::string path = {};
  std::uint64_t free_bytes = 0;
  std::uint64_t free_files = 0;
  bool out_of_files = false;
};

/// A container with processes in uninterruptible sleep.
struct Sleeping {
  std::string id = {};
  std::string name = {};
  std::vector<Place> places = {};
};

/// All that crispctl knows about what hangs.
struct Picture {
  std::vector<Daemon> daemons = {};
  std::vector<Request> requests = {};  // the oldest first
  std::vector<Failure> failures = {};  // the latest first
  std::vector<FullDisk> disks = {};
  std::vector<Sleeping> sleeping = {};
};

/// Asks all daemons below the endpoint, for a few seconds at most, and looks at the disks.
Picture Look(const Endpoint& endpoint, const settings::Settings& settings);

/// What is about `text` alone: an id, the beginning of one, a name ("web", "default/web"), an
/// image. Also what is about the pods and containers that have it, where the front answers.
Picture About(Picture all, const std::string& text, Client& client);

/// True when the subject of an operation is what a person calls `text`.
bool IsMeant(const std::string& subject, const std::string& text);

/// The parts of answers that belong together, by their request ids.
std::vector<Request> Join(const std::vector<Daemon>& daemons);

}  // namespace crisp::ctl::why
