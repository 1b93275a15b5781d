#include "libs/sqlite/db.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "libs/base/try.h"

namespace crisp::sqlite {
namespace {

Code CodeOf(int result) {
  switch (result & 0xFF) {
    case SQLITE_CONSTRAINT:
      return result == SQLITE_CONSTRAINT_UNIQUE || result == SQLITE_CONSTRAINT_PRIMARYKEY ||
                     result == SQLITE_CONSTRAINT_ROWID
                 ? Code::kAlreadyExists
                 : Code::kFailedPrecondition;
    case SQLITE_CANTOPEN:  // too many descriptors, as well as nothing there
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return Code::kUnavailable;
    case SQLITE_FULL:
    case SQLITE_NOMEM: return Code::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return Code::kDataLoss;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY: return Code::kPermissionDenied;
    case SQLITE_INTERRUPT: return Code::kCancelled;
    default: return Code::kInternal;
  }
}

Status Failed(sqlite3* db, int result, std::string_view what) {
  const char* words = db != nullptr ? ::sqlite3_errmsg(db) : ::sqlite3_errstr(result);
  return {CodeOf(result), fmt::format("sqlite: {}: {}", what, words)};
}

Status ExecOn(sqlite3* db, const std::string& sql) {
  const int result = ::sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr);
  if (result == SQLITE_OK) return Status::Ok();
  return Failed(db, result, std::string_view(sql).substr(0, 120));
}

}  // namespace

Statement::Statement(Statement&& other) noexcept
    : db_(other.db_),
      statement_(std::exchange(other.statement_, nullptr)),
      bind_error_(other.bind_error_) {}

Statement& Statement::operator=(Statement&& other) noexcept {
  if (this != &other) {
    ::sqlite3_finalize(statement_);
    db_ = other.db_;
    statement_ = std::exchange(other.statement_, nullptr);
    bind_error_ = other.bind_error_;
  }
  return *this;
}

Statement::~Statement() { ::sqlite3_finalize(statement_); }

Statement& Statement::Bind(int parameter, std::int64_t value) {
  const int result = ::sqlite3_bind_int64(statement_, parameter, value);
  if (result != SQLITE_OK) bind_error_ = result;
  return *this;
}

Statement& Statement::Bind(int parameter, std::string_view text) {
  // A null pointer would be NULL, not "".
  const char* data = text.data() != nullptr ? text.data() : "";
  const int result = ::sqlite3_bind_text64(statement_, parameter, data, text.size(),
                                           SQLITE_TRANSIENT, SQLITE_UTF8);
  if (result != SQLITE_OK) bind_error_ = result;
  return *this;
}

Statement& Statement::Bind(int parameter, sqlite::Blob blob) {
  const char* data = blob.bytes.data() != nullptr ? blob.bytes.data() : "";
  const int result =
      ::sqlite3_bind_blob64(statement_, parameter, data, blob.bytes.size(), SQLITE_TRANSIENT);
  if (result != SQLITE_OK) bind_error_ = result;
  return *this;
}

Statement& Statement::Bind(int parameter, std::nullptr_t) {
  const int result = ::sqlite3_bind_null(statement_, parameter);
  if (result != SQLITE_OK) bind_error_ = result;
  return *this;
}

Result<bool> Statement::Step() {
  if (bind_error_ != 0) {
    const int error = std::exchange(bind_error_, 0);
    return Status(CodeOf(error), fmt::format("sqlite: bind: {}: {}", ::sqlite3_errstr(error),
                                             ::sqlite3_sql(statement_)));
  }
  const int result = ::sqlite3_step(statement_);
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  Status failed = Failed(db_, result, ::sqlite3_sql(statement_));
  ::sqlite3_reset(statement_);
  return failed;
}

Status Statement::Run() {
  const Result<bool> stepped = Step();
  Reset();
  return stepped.status();
}

void Statement::Reset() {
  ::sqlite3_reset(statement_);
  ::sqlite3_clear_bindings(statement_);
  bind_error_ = 0;
}

std::int64_t Statement::Int(int column) const { return ::sqlite3_column_int64(statement_, column); }

std::string Statement::Text(int column) const { return Blob(column); }

std::string Statement::Blob(int column) const {
  const void* data = ::sqlite3_column_blob(statement_, column);
  if (data == nullptr) return {};
  const int size = ::sqlite3_column_bytes(statement_, column);
  return {static_cast<const char*>(data), static_cast<std::size_t>(size)};
}

bool Statement::IsNull(int column) const {
  return ::sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Result<Db> Db::Open(const std::string& path, const OpenOptions& options) {
  sqlite3* raw = nullptr;
  const int flags =
      SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
      (options.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  const int result = ::sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
  Db db(raw);  // also a failed open leaves something to be closed
  if (result != SQLITE_OK) return Failed(raw, result, "open " + path);
  ::sqlite3_busy_timeout(raw, static_cast<int>(options.busy_timeout.count()));
  if (!options.read_only) {
    if (path != ":memory:") {
      constexpr mode_t kMode = 0600;
      if (::chmod(path.c_str(), kMode) != 0) return Status::Errno(errno, "chmod {}", path);
    }
    CRISP_TRY(ExecOn(raw, "PRAGMA journal_mode=WAL").While("open {}", path));
    CRISP_TRY(ExecOn(raw, "PRAGMA synchronous=NORMAL"));
    ::sqlite3_wal_autocheckpoint(raw, options.checkpoint_pages);
  }
  CRISP_TRY(ExecOn(raw, "PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY"));
  // A first read: what is no database shows now, not at the first query.
  CRISP_TRY(ExecOn(raw, "SELECT count(*) FROM sqlite_schema").While("open {}", path));
  return db;
}

Db::Db(Db&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}

Db& Db::operator=(Db&& other) noexcept {
  if (this != &other) {
    ::sqlite3_close_v2(db_);
    db_ = std::exchange(other.db_, nullptr);
  }
  return *this;
}

Db::~Db() { ::sqlite3_close_v2(db_); }

Status Db::Exec(const std::string& sql) { return ExecOn(db_, sql); }

Result<Statement> Db::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int result = ::sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                                          SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (result != SQLITE_OK) return Failed(db_, result, sql);
  if (statement == nullptr) return InvalidArgument("sqlite: an empty statement");
  return Statement(db_, statement);
}

Status Db::Migrate(std::span<const std::string_view> steps) {
  while (true) {
    Transaction transaction = CRISP_TRY(Transaction::Begin(*this));
    std::int64_t version = 0;
    {
      Statement read = CRISP_TRY(Prepare("PRAGMA user_version"));
      CRISP_TRY(read.Step());
      version = read.Int(0);
    }
    if (version < 0 || static_cast<std::size_t>(version) > steps.size()) {
      return FailedPrecondition(
          "sqlite: the records have version {}, this program knows up to {}: it is too old for "
          "them",
          version, steps.size());
    }
    if (static_cast<std::size_t>(version) == steps.size()) return Status::Ok();
    CRISP_TRY(Exec(std::string(steps[static_cast<std::size_t>(version)]))
                  .While("migrate to version {}", version + 1));
    CRISP_TRY(Exec(fmt::format("PRAGMA user_version = {}", version + 1)));
    CRISP_TRY(transaction.Commit());
  }
}

Status Db::Checkpoint() {
  const int result =
      ::sqlite3_wal_checkpoint_v2(db_, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  if (result == SQLITE_OK || (result & 0xFF) == SQLITE_BUSY) return Status::Ok();
  return Failed(db_, result, "checkpoint");
}

std::int64_t Db::LastInsertRowid() const { return ::sqlite3_last_insert_rowid(db_); }

std::int64_t Db::Changes() const { return ::sqlite3_changes64(db_); }

Result<Transaction> Transaction::Begin(Db& db) {
  CRISP_TRY(db.Exec("BEGIN IMMEDIATE"));
  return Transaction(&db);
}

Transaction::Transaction(Transaction&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}

Transaction::~Transaction() {
  // A failure here (the transaction was rolled back already by SQLite itself) changes nothing.
  if (db_ != nullptr) static_cast<void>(db_->Exec("ROLLBACK").ok());
}

Status Transaction::Commit() {
  CRISP_CHECK(db_ != nullptr);
  CRISP_TRY(db_->Exec("COMMIT"));  // on failure the destructor rolls back
  db_ = nullptr;
  return Status::Ok();
}

}  // namespace crisp::sqlite
