#include "libs/sqlite/db.h"

#include <sys/stat.h>

#include <array>
#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/os/temp_dir.h"

namespace crisp::sqlite {
namespace {

Db Memory() {
  auto db = Db::Open(":memory:");
  REQUIRE(db.ok());
  REQUIRE(db->Exec("CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER NOT NULL, b BLOB)").ok());
  return std::move(db).value();
}

TEST_CASE("Rows go in and come out with their types") {
  Db db = Memory();
  auto insert = db.Prepare("INSERT INTO t VALUES(?, ?, ?)");
  REQUIRE(insert.ok());
  const std::string bytes("a\0b", 3);
  CHECK(insert->Bind(1, "x").Bind(2, -5).Bind(3, Blob{bytes}).Run().ok());
  CHECK(insert->Bind(1, "").Bind(2, std::int64_t{1} << 40).Bind(3, nullptr).Run().ok());
  CHECK(db.Changes() == 1);
  auto read = db.Prepare("SELECT id, n, b FROM t ORDER BY n");
  REQUIRE(read.ok());
  REQUIRE(read->Step().value());
  CHECK(read->Text(0) == "x");
  CHECK(read->Int(1) == -5);
  CHECK(read->Blob(2) == bytes);
  REQUIRE(read->Step().value());
  CHECK(read->Text(0).empty());
  CHECK_FALSE(read->IsNull(0));
  CHECK(read->Int(1) == std::int64_t{1} << 40);
  CHECK(read->IsNull(2));
  CHECK_FALSE(read->Step().value());
}

TEST_CASE("A second row with the same key is AlreadyExists, a NULL where none may be is not") {
  Db db = Memory();
  auto insert = db.Prepare("INSERT INTO t(id, n) VALUES(?, ?)");
  REQUIRE(insert.ok());
  CHECK(insert->Bind(1, "x").Bind(2, 1).Run().ok());
  CHECK(insert->Bind(1, "x").Bind(2, 1).Run().code() == Code::kAlreadyExists);
  CHECK(insert->Bind(1, "y").Run().code() == Code::kFailedPrecondition);
  CHECK(insert->Bind(1, "z").Bind(2, 2).Run().ok());
  CHECK(insert->Bind(9, "z").Run().code() == Code::kInternal);
}

TEST_CASE("A transaction that is not committed leaves nothing") {
  Db db = Memory();
  {
    auto transaction = Transaction::Begin(db);
    REQUIRE(transaction.ok());
    CHECK(db.Exec("INSERT INTO t VALUES('x', 1, NULL)").ok());
  }
  {
    auto transaction = Transaction::Begin(db);
    REQUIRE(transaction.ok());
    CHECK(db.Exec("INSERT INTO t VALUES('y', 1, NULL)").ok());
    CHECK(transaction->Commit().ok());
  }
  auto read = db.Prepare("SELECT group_concat(id) FROM t");
  REQUIRE(read.ok());
  REQUIRE(read->Step().value());
  CHECK(read->Text(0) == "y");
}

TEST_CASE("Migrations run once each, a failed one leaves the version, a newer file is refused") {
  const auto dir = os::TempDir::Create("/tmp/crisp-sqlite-");
  REQUIRE(dir.ok());
  const std::string path = dir->path() + "/x.db";
  const std::array<std::string_view, 2> two = {"CREATE TABLE a(x)", "ALTER TABLE a ADD COLUMN y"};
  const std::array<std::string_view, 3> three = {two[0], two[1], "CREATE TABLE a(x)"};
  {
    auto db = Db::Open(path);
    REQUIRE(db.ok());
    CHECK(db->Migrate(std::span(two).first(1)).ok());
    CHECK(db->Migrate(two).ok());
    CHECK(db->Migrate(two).ok());
    CHECK_FALSE(db->Migrate(three).ok());
    CHECK(db->Migrate(two).ok());
    CHECK(db->Migrate(std::span(two).first(1)).code() == Code::kFailedPrecondition);
    CHECK(db->Exec("INSERT INTO a VALUES(1, 2)").ok());
  }
  struct stat info = {};
  CHECK(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  auto again = Db::Open(path);
  REQUIRE(again.ok());
  auto read = again->Prepare("SELECT y FROM a");
  REQUIRE(read.ok());
  REQUIRE(read->Step().value());
  CHECK(read->Int(0) == 2);
}

TEST_CASE("What is no database is DataLoss, a writer beside us is Unavailable") {
  const auto dir = os::TempDir::Create("/tmp/crisp-sqlite-");
  REQUIRE(dir.ok());
  REQUIRE(os::WriteFile(dir->path() + "/junk", std::string(5000, 'x')).ok());
  CHECK(Db::Open(dir->path() + "/junk").code() == Code::kDataLoss);
  // Too few descriptors say the same: it must not pass for something that is not there.
  CHECK(Db::Open(dir->path() + "/no/dir/x.db").code() == Code::kUnavailable);
  auto one = Db::Open(dir->path() + "/x.db");
  auto two = Db::Open(dir->path() + "/x.db", {.busy_timeout = std::chrono::milliseconds(1)});
  REQUIRE(one.ok());
  REQUIRE(two.ok());
  const auto held = Transaction::Begin(*one);
  REQUIRE(held.ok());
  CHECK(Transaction::Begin(*two).code() == Code::kUnavailable);
}

TEST_CASE("A checkpoint of another connection lets commits write over the log again") {
  const auto dir = os::TempDir::Create("/tmp/crisp-sqlite-");
  REQUIRE(dir.ok());
  const std::string path = dir->path() + "/x.db";
  auto db = Db::Open(path, {.checkpoint_pages = 1'000'000});
  auto mover = Db::Open(path);
  REQUIRE(db.ok());
  REQUIRE(mover.ok());
  REQUIRE(db->Exec("CREATE TABLE a(x TEXT)").ok());
  const auto log_size = [&path] {
    struct stat info = {};
    return ::stat((path + "-wal").c_str(), &info) == 0 ? info.st_size : 0;
  };
  const auto write_some = [&db] {
    for (int i = 0; i < 50; ++i) REQUIRE(db->Exec("INSERT INTO a VALUES('x')").ok());
  };
  write_some();
  const auto once = log_size();
  write_some();
  CHECK(log_size() > once);
  const auto twice = log_size();
  for (int i = 0; i < 3; ++i) {
    CHECK(mover->Checkpoint().ok());
    write_some();
    CHECK(log_size() == twice);
  }
  // Beside a writer.
  const auto held = Transaction::Begin(*db);
  REQUIRE(held.ok());
  CHECK(mover->Checkpoint().ok());
}

}  // namespace
}  // namespace crisp::sqlite
