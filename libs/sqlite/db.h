#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "libs/base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace crisp::sqlite {

/// Bytes for a BLOB column; Bind(int, string_view) is TEXT.
struct Blob {
  std::string_view bytes;
};

/// A prepared statement; keep and Reset() those that run often. Columns count from 0, parameters
/// from 1. The Db must outlive it.
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

  // The text or blob is copied.
  Statement& Bind(int parameter, std::int64_t value);
  Statement& Bind(int parameter, int value) {
    return Bind(parameter, static_cast<std::int64_t>(value));
  }
  Statement& Bind(int parameter, std::string_view text);
  Statement& Bind(int parameter, const char* text) {
    return Bind(parameter, std::string_view(text));
  }
  Statement& Bind(int parameter, const std::string& text) {
    return Bind(parameter, std::string_view(text));
  }
  Statement& Bind(int parameter, sqlite::Blob blob);
  Statement& Bind(int parameter, std::nullptr_t);

  /// True: a row is there to be read; false: done. A failed Bind is reported here.
  /// kAlreadyExists: a UNIQUE or PRIMARY KEY constraint; kFailedPrecondition: another constraint;
  /// kUnavailable: busy beyond the timeout; kResourceExhausted: disk full; kDataLoss: corrupt.
  Result<bool> Step();
  /// Step() for statements without rows, then Reset().
  Status Run();
  /// Ready to run again, with all parameters NULL.
  void Reset();

  std::int64_t Int(int column) const;
  std::string Text(int column) const;
  std::string Blob(int column) const;
  bool IsNull(int column) const;

 private:
  friend class Db;
  Statement(sqlite3* db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
  sqlite3* db_ = nullptr;
  sqlite3_stmt* statement_ = nullptr;
  int bind_error_ = 0;
};

struct OpenOptions {
  std::chrono::milliseconds busy_timeout = std::chrono::seconds(5);
  bool read_only = false;
  /// Pages in the write-ahead log at which a commit moves them into the database by itself, which
  /// syncs both files; it is the caller's (Db::Checkpoint) to keep the log below, off the commits'
  /// way.
  int checkpoint_pages = 1000;
};

/// One connection, in WAL mode with synchronous=NORMAL: a commit outlives the process, and a power
/// cut once the file was synced (`PRAGMA synchronous = FULL` around those that must at once). Used
/// by one thread at a time: callers guard it. Statements go before it.
class Db {
 public:
  /// Makes the file when absent (mode 0600), not its directory. ":memory:" is for tests.
  /// kDataLoss: not a database.
  static Result<Db> Open(const std::string& path, const OpenOptions& options = {});
  Db(Db&& other) noexcept;
  Db& operator=(Db&& other) noexcept;
  ~Db();

  /// One or more statements without results.
  Status Exec(const std::string& sql);
  Result<Statement> Prepare(std::string_view sql);
  /// Step n (from 0) brings user_version from n to n + 1; each runs once, in a transaction of its
  /// own. kFailedPrecondition when the file is from a newer version than `steps` knows.
  Status Migrate(std::span<const std::string_view> steps);

  /// Moves what is in the write-ahead log into the database, as far as nobody still reads what it
  /// would replace, and syncs both; beside the readers and the writer on other connections. The
  /// next commits then write over the log. Another one that is at it = Ok.
  Status Checkpoint();

  std::int64_t LastInsertRowid() const;
  /// Rows changed by the last INSERT, UPDATE or DELETE.
  std::int64_t Changes() const;

 private:
  explicit Db(sqlite3* db) : db_(db) {}
  sqlite3* db_ = nullptr;
};

/// BEGIN IMMEDIATE (the write lock is taken at once); rolled back unless committed.
class Transaction {
 public:
  static Result<Transaction> Begin(Db& db);
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();

  Status Commit();

 private:
  explicit Transaction(Db* db) : db_(db) {}
  Db* db_;
};

}  // namespace crisp::sqlite
