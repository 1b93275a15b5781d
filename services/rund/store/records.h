#pragma once

#include <memory>
#include <string>
#include <vector>

#include "crisp/rund/v1/record.pb.h"
#include "libs/base/result.h"

namespace crisp::rund {

using v1::ContainerRecord;
using v1::PodRecord;

/// The key under which a pod's name is taken, and a container's in its pod: unique in the database.
std::string KeyOf(const PodRecord& pod);
std::string KeyOf(const ContainerRecord& container);

/// The records on disk: SQLite, one row per pod and container with the whole record in one column.
/// Each call is one commit; a commit outlives a crash of the daemon (not a power cut, after which
/// nothing runs anyway). Not thread-safe: State serialises the calls.
class Records {
 public:
  /// Opens or makes the database; its directory must exist. kDataLoss: not a database of ours.
  static Result<Records> Open(const std::string& path);
  Records(Records&&) noexcept;
  Records& operator=(Records&&) noexcept;
  ~Records();

  struct All {
    std::vector<PodRecord> pods;
    std::vector<ContainerRecord> containers;
    std::vector<std::string> unreadable;  // ids
  };
  /// A row that makes no sense is not there from now on (its bytes are kept, in a table of their
  /// own): what it stood for is unknown, and nothing else should suffer from it.
  Result<All> Load();

  /// Insert or replace, by id. kAlreadyExists: another record has the same key.
  Status Put(const PodRecord& pod);
  Status Put(const ContainerRecord& container);
  /// Absent = Ok.
  Status ErasePod(const std::string& id);
  Status EraseContainer(const std::string& id);

  /// The boot that the last run belonged to; "" in a fresh database.
  Result<std::string> BootId();
  Status SetBootId(const std::string& boot_id);

 private:
  struct Impl;
  explicit Records(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::rund
