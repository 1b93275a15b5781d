#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/status.h"
#include "libs/os/conntrack.h"
#include "libs/os/file_lock.h"
#include "libs/work/lock_table.h"
#include "services/netd/store/attachments.h"
#include "services/netd/store/layout.h"

namespace crisp::netd {

/// The capability argument under which an attachment records ports that are ours to map. No plugin
/// knows it; the ports of plugins are under "portMappings".
inline constexpr std::string_view kBuiltinPorts = "crisp.hostports";

/// Host ports without a plugin: one nftables table, in which each mapping is an element of a map,
/// so that a pod is added and removed in one transaction and costs the others nothing. Reached are
/// ports of all of the host's addresses or of one, from outside, from pods (the pod itself too) and
/// from the host, by 127.0.0.1 as well; not by ::1, which the kernel does not route. With the last
/// pod that has ports the table goes, and route_localnet where it was not set before. UDP flows
/// that were there before the mapping come to it, and those that it had come to it no longer. Works
/// in the network namespace of the calling thread. Any thread.
class HostPorts {
 public:
  /// `store` outlives this. The instances take turns at the table (Layout::PortsLock). `boot_id`:
  /// of now; what was attached before has no pod any more.
  HostPorts(std::string nft, Layout layout, std::string boot_id, Attachments& store)
      : nft_(std::move(nft)),
        layout_(std::move(layout)),
        boot_id_(std::move(boot_id)),
        store_(store) {}

  /// For an attachment that is recorded as kAttached; idempotent, nothing without ports.
  /// kFailedPrecondition: another pod has one of the ports.
  Status Open(const CallContext& cc, const Attachment& attachment);
  /// nft can be run and knows what the ports need; the error is its own words, or the program's.
  /// Asked once for each state of its file, until it is well.
  Status CheckUsable(const CallContext& cc);
  /// For one that no longer is; idempotent. Exactly its own elements go.
  Status Close(const CallContext& cc, const Attachment& attachment);
  /// The table as the records have it: heals what somebody else took away ("nft flush ruleset").
  /// No table when no pod has ports.
  Status Sync(const CallContext& cc);

 private:
  /// Nobody else changes the table, in this instance or another.
  struct Held {
    work::LockTable::Held here;
    os::FileLock everywhere;
  };
  /// What the table is to hold, as nft commands; empty when no pod has ports.
  Result<std::string> Elements() const;
  Status SyncLocked(const CallContext& cc) const;
  Result<Held> Lock(const CallContext& cc);
  Status Run(const CallContext& cc, const std::string& script,
             std::vector<std::string> args = {"-f", "-"}) const;
  Status RouteLoopback(const Attachment& attachment) const;
  Status UnrouteLoopback() const;

  const std::string nft_;
  const Layout layout_;
  const std::string boot_id_;
  Attachments& store_;
  work::LockTable locks_;
  std::mutex mutex_;
  std::string usable_;  // the state of nft's file when it was last found usable
};

/// One element of the table: "tcp . 8080" : "10.1.2.3 . 80" in map "any4".
struct PortElement {
  std::string map;
  std::string key;
  std::string value;  // empty in a set
  os::UdpEnd udp;     // what it maps; port 0: nothing of UDP
};
/// Those of an attachment, from its record: the first address of each family gets the ports.
Result<std::vector<PortElement>> PortElementsOf(const Attachment& attachment);

}  // namespace crisp::netd
