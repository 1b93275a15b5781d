#include "services/netd/store/attachments.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/sqlite/db.h"
#include "libs/work/group_run.h"

namespace crisp::netd {
namespace {

constexpr std::array<std::string_view, 2> kMigrations = {R"sql(
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
)sql",
                                                         R"sql(
ALTER TABLE attachments ADD COLUMN since_boot_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attachments ADD COLUMN partial BLOB NOT NULL DEFAULT x'';
)sql"};

constexpr std::string_view kColumns =
    "pod_id, phase, boot_id, instance, network, conf, cni_args, capability_args, result, "
    "created_ns, since_boot_ns, partial";

/// Commits from one checkpoint to the next. Each is some pages of 4 KiB in the log.
constexpr int kCheckpointCommits = 64;
/// Should nobody call Checkpoint: some hundred pods.
constexpr int kLastResortPages = 4000;

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
  attachment.created = WallTime(std::chrono::nanoseconds(row.Int(column++)));
  attachment.since_boot = std::chrono::nanoseconds(row.Int(column++));
  attachment.partial = row.Blob(column);
  return attachment;
}

/// The directory, so that the log's file is found in it after a power cut; then the log itself can
/// be synced by its content alone.
Result<os::UniqueFd> OpenLog(const std::string& path) {
  const std::string parent = path.substr(0, path.rfind('/'));
  const os::UniqueFd directory = CRISP_TRY(os::Open(parent, O_RDONLY | O_DIRECTORY));
  if (::fsync(directory.get()) != 0) return Status::Errno(errno, "fsync {}", parent);
  return os::Open(path + "-wal", O_RDWR);
}

}  // namespace

struct Attachments::Impl {
  /// `log_file`: the write-ahead log, which stays the same file while a connection is open.
  Impl(sqlite::Db opened, sqlite::Db second, os::UniqueFd log_file)
      : db(std::move(opened)),
        checkpointer(std::move(second)),
        log(std::move(log_file)),
        group("sync the records of attachments", [this]() -> Status {
          if (::fdatasync(log.get()) == 0) return Status::Ok();
          return Status::Errno(errno, "sync the records");
        }) {}

  Status Prepare() {
    get =
        CRISP_TRY(db.Prepare(fmt::format("SELECT {} FROM attachments WHERE pod_id = ?", kColumns)));
    put = CRISP_TRY(db.Prepare(fmt::format(
        "INSERT OR REPLACE INTO attachments({}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        kColumns)));
    set_attached =
        CRISP_TRY(db.Prepare("UPDATE attachments SET phase = ?, result = ?, partial = x'' "
                             "WHERE pod_id = ? AND instance = ?"));
    set_partial = CRISP_TRY(db.Prepare("UPDATE attachments SET partial = ? WHERE pod_id = ?"));
    set_phase =
        CRISP_TRY(db.Prepare("UPDATE attachments SET phase = ?, instance = ? WHERE pod_id = ?"));
    remove = CRISP_TRY(db.Prepare("DELETE FROM attachments WHERE pod_id = ?"));
    list = CRISP_TRY(
        db.Prepare(fmt::format("SELECT {} FROM attachments ORDER BY created_ns", kColumns)));
    count = CRISP_TRY(db.Prepare("SELECT count(*) FROM attachments"));
    any_with =
        CRISP_TRY(db.Prepare("SELECT 1 FROM attachments WHERE phase = ? AND boot_id = ? "
                             "AND instr(capability_args, ?) > 0 LIMIT 1"));
    return Status::Ok();
  }

  /// Every change goes through here.
  Status Run(sqlite::Statement& change) {
    ++commits;
    return change.Run();
  }

  /// kAborted when no record was there to be changed.
  Status RunChange(sqlite::Statement& change, const PodId& pod) {
    CRISP_TRY(Run(change));
    if (db.Changes() > 0) return Status::Ok();
    return Aborted("the attachment of pod {} has become another instance's", pod.Short());
  }

  /// One connection and its statements: one thread at a time.
  std::mutex mutex;
  sqlite::Db db;
  std::optional<sqlite::Statement> get;
  std::optional<sqlite::Statement> put;
  std::optional<sqlite::Statement> set_attached;
  std::optional<sqlite::Statement> set_partial;
  std::optional<sqlite::Statement> set_phase;
  std::optional<sqlite::Statement> remove;
  std::optional<sqlite::Statement> list;
  std::optional<sqlite::Statement> count;
  std::optional<sqlite::Statement> any_with;

  std::atomic<int> commits = 0;  // since the last checkpoint
  sqlite::Db checkpointer;       // a connection of its own: nobody waits for the mutex meanwhile
  const os::UniqueFd log;
  work::GroupRun group;
};

Attachments::Attachments(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Attachments::~Attachments() = default;

Result<std::unique_ptr<Attachments>> Attachments::Open(const std::string& path) {
  sqlite::Db db = CRISP_TRY(sqlite::Db::Open(path, {.checkpoint_pages = kLastResortPages}));
  CRISP_TRY(db.Migrate(kMigrations).While("{}", path));
  sqlite::Db checkpointer = CRISP_TRY(sqlite::Db::Open(path));
  os::UniqueFd log = CRISP_TRY(OpenLog(path));
  auto impl = std::make_unique<Impl>(std::move(db), std::move(checkpointer), std::move(log));
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
  put.Bind(++parameter, std::int64_t{attachment.since_boot.count()});
  put.Bind(++parameter, sqlite::Blob{attachment.partial});
  return impl_->Run(put);
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

Status Attachments::SetPartial(const PodId& pod, const std::string& partial) {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->Run(impl_->set_partial->Bind(1, sqlite::Blob{partial}).Bind(2, pod.str()));
}

Status Attachments::SetPhase(const PodId& pod, Phase phase, const std::string& instance) {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->RunChange(
      impl_->set_phase->Bind(1, static_cast<int>(phase)).Bind(2, instance).Bind(3, pod.str()), pod);
}

Status Attachments::Remove(const PodId& pod) {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->Run(impl_->remove->Bind(1, pod.str()));
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

Result<bool> Attachments::AnyAttachedWith(const std::string& boot_id, std::string_view word) {
  const std::scoped_lock lock(impl_->mutex);
  impl_->any_with->Bind(1, static_cast<int>(Phase::kAttached))
      .Bind(2, boot_id)
      .Bind(3, sqlite::Blob{word});
  Result<bool> found = impl_->any_with->Step();
  impl_->any_with->Reset();
  return found;
}

Status Attachments::Sync(const CallContext& cc) { return impl_->group.Run(cc); }

bool Attachments::WantsCheckpoint() const { return impl_->commits >= kCheckpointCommits; }

Status Attachments::Checkpoint() {
  impl_->commits = 0;
  return impl_->checkpointer.Checkpoint();
}

}  // namespace crisp::netd
