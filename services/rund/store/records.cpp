#include "services/rund/store/records.h"

#include <array>
#include <utility>

#include "libs/base/try.h"
#include "libs/sqlite/db.h"

namespace crisp::rund {
namespace {

constexpr std::array<std::string_view, 1> kSchema = {
    R"(CREATE TABLE pods(id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, record BLOB NOT NULL)
         WITHOUT ROWID;
       CREATE TABLE containers(id TEXT PRIMARY KEY, pod_id TEXT NOT NULL, key TEXT NOT NULL UNIQUE,
         record BLOB NOT NULL) WITHOUT ROWID;
       CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;)",
};

template <typename Record>
Status LoadTable(sqlite::Statement& select, std::vector<Record>& out,
                 std::vector<std::string>& unreadable) {
  while (CRISP_TRY(select.Step())) {
    Record record;
    if (record.ParseFromString(select.Blob(1))) {
      out.push_back(std::move(record));
    } else {
      unreadable.push_back(select.Text(0));
    }
  }
  select.Reset();
  return Status::Ok();
}

/// Keeps the bytes for whoever wants to know, and frees the key. (No step of the schema: a version
/// without it can be put back.)
Status SetAside(sqlite::Db& db, std::string_view table, const std::vector<std::string>& ids) {
  if (ids.empty()) return Status::Ok();
  CRISP_TRY(
      db.Exec("CREATE TABLE IF NOT EXISTS unreadable(id TEXT PRIMARY KEY, record BLOB NOT NULL)"));
  auto move = CRISP_TRY(db.Prepare(fmt::format(
      "INSERT OR REPLACE INTO unreadable SELECT id, record FROM {} WHERE id=?1", table)));
  auto erase = CRISP_TRY(db.Prepare(fmt::format("DELETE FROM {} WHERE id=?1", table)));
  for (const std::string& id : ids) {
    CRISP_TRY(move.Bind(1, id).Run());
    CRISP_TRY(erase.Bind(1, id).Run());
  }
  return Status::Ok();
}

}  // namespace

// Names may hold anything but a newline where clients are sane; the attempt is last and a number.
std::string KeyOf(const PodRecord& pod) {
  const auto& m = pod.metadata();
  return fmt::format("{}\n{}\n{}\n{}", m.namespace_(), m.name(), m.uid(), m.attempt());
}

std::string KeyOf(const ContainerRecord& container) {
  return fmt::format("{}\n{}\n{}", container.pod_id(), container.metadata().name(),
                     container.metadata().attempt());
}

struct Records::Impl {
  sqlite::Db db;
  sqlite::Statement put_pod;
  sqlite::Statement put_container;
  sqlite::Statement erase_pod;
  sqlite::Statement erase_container;
};

Records::Records(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Records::Records(Records&&) noexcept = default;
Records& Records::operator=(Records&&) noexcept = default;
Records::~Records() = default;

Result<Records> Records::Open(const std::string& path) {
  sqlite::Db db = CRISP_TRY(sqlite::Db::Open(path));
  // A page cache of 256 KiB is plenty for records of a few KiB that are only ever written.
  CRISP_TRY(db.Exec("PRAGMA cache_size=-256"));
  CRISP_TRY(db.Migrate(kSchema));
  auto put_pod = CRISP_TRY(
      db.Prepare("INSERT INTO pods(id, key, record) VALUES(?1, ?2, ?3) "
                 "ON CONFLICT(id) DO UPDATE SET key=excluded.key, record=excluded.record"));
  auto put_container = CRISP_TRY(
      db.Prepare("INSERT INTO containers(id, pod_id, key, record) VALUES(?1, ?2, ?3, ?4) "
                 "ON CONFLICT(id) DO UPDATE SET key=excluded.key, record=excluded.record"));
  auto erase_pod = CRISP_TRY(db.Prepare("DELETE FROM pods WHERE id=?1"));
  auto erase_container = CRISP_TRY(db.Prepare("DELETE FROM containers WHERE id=?1"));
  return Records(
      std::unique_ptr<Impl>(new Impl{std::move(db), std::move(put_pod), std::move(put_container),
                                     std::move(erase_pod), std::move(erase_container)}));
}

Result<Records::All> Records::Load() {
  All all;
  auto pods = CRISP_TRY(impl_->db.Prepare("SELECT id, record FROM pods"));
  std::vector<std::string> unreadable;
  CRISP_TRY(LoadTable(pods, all.pods, unreadable));
  CRISP_TRY(SetAside(impl_->db, "pods", unreadable));
  all.unreadable = std::exchange(unreadable, {});
  auto containers = CRISP_TRY(impl_->db.Prepare("SELECT id, record FROM containers"));
  CRISP_TRY(LoadTable(containers, all.containers, unreadable));
  CRISP_TRY(SetAside(impl_->db, "containers", unreadable));
  all.unreadable.insert(all.unreadable.end(), unreadable.begin(), unreadable.end());
  return all;
}

Status Records::Put(const PodRecord& pod) {
  const std::string bytes = pod.SerializeAsString();
  return impl_->put_pod.Bind(1, pod.id())
      .Bind(2, KeyOf(pod))
      .Bind(3, sqlite::Blob{bytes})
      .Run()
      .While("store pod {}", pod.id());
}

Status Records::Put(const ContainerRecord& container) {
  const std::string bytes = container.SerializeAsString();
  return impl_->put_container.Bind(1, container.id())
      .Bind(2, container.pod_id())
      .Bind(3, KeyOf(container))
      .Bind(4, sqlite::Blob{bytes})
      .Run()
      .While("store container {}", container.id());
}

Status Records::ErasePod(const std::string& id) { return impl_->erase_pod.Bind(1, id).Run(); }

Status Records::EraseContainer(const std::string& id) {
  return impl_->erase_container.Bind(1, id).Run();
}

Result<std::string> Records::BootId() {
  auto select = CRISP_TRY(impl_->db.Prepare("SELECT value FROM facts WHERE name='boot_id'"));
  return CRISP_TRY(select.Step()) ? select.Text(0) : std::string();
}

Status Records::SetBootId(const std::string& boot_id) {
  auto put = CRISP_TRY(impl_->db.Prepare(
      "INSERT INTO facts(name, value) VALUES('boot_id', ?1) ON CONFLICT(name) DO UPDATE SET "
      "value=excluded.value"));
  return put.Bind(1, boot_id).Run();
}

}  // namespace crisp::rund
