#include "services/netd/store/attachments.h"

#include <array>
#include <mutex>
#include <string_view>
#include <utility>

#include "libs/base/try.h"
#include "libs/sqlite/db.h"

namespace crisp::netd {
namespace {

constexpr std::array<std::string_view, 1> kMigrations = {R"sql(
CREATE TABLE attachments(
  pod_id          TEXT PRIMARY KEY,
  phase           INTEGER NOT NULL,
  boot_id         TEXT NOT NULL,
  instance        TEXT NOT NULL,
  network         TEXT NOT NULL,
  conf            BLOB NOT NULL,
  cni_args        TEXT NOT NULL,
  capability_args BLOB NOT NULL,
  result          BLOB NOT NULL,
  created_ns      INTEGER NOT NULL
) WITHOUT ROWID;
)sql"};

constexpr std::string_view kColumns =
    "pod_id, phase, boot_id, instance, network, conf, cni_args, capability_args, result, "
    "created_ns";

Attachment ReadRow(const sqlite::Statement& row) {
  Attachment attachment;
  int column = 0;
  attachment.pod = PodId(row.Text(column++));
  attachment.phase = static_cast<Phase>(row.Int(column++));
  attachment.boot_id = row.Text(column++);
  attachment.instance = row.Text(column++);
  attachment.network = row.Text(column++);
  attachment.conf = row.Blob(column++);
  attachment.cni_args = row.Text(column++);
  attachment.capability_args = row.Blob(column++);
  attachment.result = row.Blob(column++);
  attachment.created = WallTime(std::chrono::nanoseconds(row.Int(column)));
  return attachment;
}

}  // namespace

struct Attachments::Impl {
  explicit Impl(sqlite::Db opened) : db(std::move(opened)) {}

  Status Prepare() {
    get =
        CRISP_TRY(db.Prepare(fmt::format("SELECT {} FROM attachments WHERE pod_id = ?", kColumns)));
    put = CRISP_TRY(db.Prepare(fmt::format(
        "INSERT OR REPLACE INTO attachments({}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", kColumns)));
    set_attached =
        CRISP_TRY(db.Prepare("UPDATE attachments SET phase = ?, result = ? "
                             "WHERE pod_id = ? AND instance = ?"));
    set_phase =
        CRISP_TRY(db.Prepare("UPDATE attachments SET phase = ?, instance = ? WHERE pod_id = ?"));
    remove = CRISP_TRY(db.Prepare("DELETE FROM attachments WHERE pod_id = ?"));
    list = CRISP_TRY(
        db.Prepare(fmt::format("SELECT {} FROM attachments ORDER BY created_ns", kColumns)));
    count = CRISP_TRY(db.Prepare("SELECT count(*) FROM attachments"));
    return Status::Ok();
  }

  /// Runs `change` so that it outlives a power cut. For intents only: what they announce (an
  /// address, a rule of a plugin on disk) may outlive it too. What comes after an intent need not:
  /// a machine that comes up again undoes every attachment of before, whatever its phase was.
  Status RunSynced(sqlite::Statement& change) {
    CRISP_TRY(db.Exec("PRAGMA synchronous = FULL"));
    const Status done = change.Run();
    CRISP_TRY(db.Exec("PRAGMA synchronous = NORMAL"));
    return done;
  }

  /// kAborted when no record was there to be changed.
  Status RunChange(sqlite::Statement& change, const PodId& pod) {
    CRISP_TRY(change.Run());
    if (db.Changes() > 0) return Status::Ok();
    return Aborted("the attachment of pod {} has become another instance's", pod.Short());
  }

  /// One connection and its statements: one thread at a time.
  std::mutex mutex;
  sqlite::Db db;
  std::optional<sqlite::Statement> get;
  std::optional<sqlite::Statement> put;
  std::optional<sqlite::Statement> set_attached;
  std::optional<sqlite::Statement> set_phase;
  std::optional<sqlite::Statement> remove;
  std::optional<sqlite::Statement> list;
  std::optional<sqlite::Statement> count;
};

Attachments::Attachments(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Attachments::~Attachments() = default;

Result<std::unique_ptr<Attachments>> Attachments::Open(const std::string& path) {
  auto impl = std::make_unique<Impl>(CRISP_TRY(sqlite::Db::Open(path)));
  CRISP_TRY(impl->db.Migrate(kMigrations).While("{}", path));
  CRISP_TRY(impl->Prepare());
  return std::unique_ptr<Attachments>(new Attachments(std::move(impl)));
}

Result<std::optional<Attachment>> Attachments::Get(const PodId& pod) {
  const std::scoped_lock lock(impl_->mutex);
  sqlite::Statement& get = *impl_->get;
  const Result<bool> found = get.Bind(1, pod.str()).Step();
  std::optional<Attachment> attachment;
  if (found.ok() && *found) attachment = ReadRow(get);
  get.Reset();
  if (!found.ok()) return found.status();
  return attachment;
}

Status Attachments::Put(const Attachment& attachment) {
  const std::scoped_lock lock(impl_->mutex);
  int parameter = 0;
  sqlite::Statement& put = *impl_->put;
  put.Bind(++parameter, attachment.pod.str());
  put.Bind(++parameter, static_cast<int>(attachment.phase));
  put.Bind(++parameter, attachment.boot_id);
  put.Bind(++parameter, attachment.instance);
  put.Bind(++parameter, attachment.network);
  put.Bind(++parameter, sqlite::Blob{attachment.conf});
  put.Bind(++parameter, attachment.cni_args);
  put.Bind(++parameter, sqlite::Blob{attachment.capability_args});
  put.Bind(++parameter, sqlite::Blob{attachment.result});
  put.Bind(++parameter, std::int64_t{attachment.created.time_since_epoch().count()});
  return impl_->RunSynced(put);
}

Status Attachments::SetAttached(const PodId& pod, const std::string& instance,
                                const std::string& result) {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->RunChange(impl_->set_attached->Bind(1, static_cast<int>(Phase::kAttached))
                              .Bind(2, sqlite::Blob{result})
                              .Bind(3, pod.str())
                              .Bind(4, instance),
                          pod);
}

Status Attachments::SetPhase(const PodId& pod, Phase phase, const std::string& instance) {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->RunChange(
      impl_->set_phase->Bind(1, static_cast<int>(phase)).Bind(2, instance).Bind(3, pod.str()), pod);
}

Status Attachments::Remove(const PodId& pod) {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->remove->Bind(1, pod.str()).Run();
}

Result<std::vector<Attachment>> Attachments::List() {
  const std::scoped_lock lock(impl_->mutex);
  std::vector<Attachment> all;
  while (true) {
    const Result<bool> row = impl_->list->Step();
    if (!row.ok() || !*row) {
      impl_->list->Reset();
      if (!row.ok()) return row.status();
      return all;
    }
    all.push_back(ReadRow(*impl_->list));
  }
}

Result<std::int64_t> Attachments::Count() {
  const std::scoped_lock lock(impl_->mutex);
  const Result<bool> row = impl_->count->Step();
  const std::int64_t count = row.ok() ? impl_->count->Int(0) : 0;
  impl_->count->Reset();
  if (!row.ok()) return row.status();
  return count;
}

}  // namespace crisp::netd
