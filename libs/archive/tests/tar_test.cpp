#include "libs/archive/tar.h"

#include <catch2/catch.hpp>

#include "libs/archive/tests/tar_writer.h"

namespace crisp::archive {
namespace {

using testing::TarWriter;

std::string Contents(TarReader& reader) {
  std::string text;
  while (true) {
    const Result<std::string_view> piece = reader.Data();
    REQUIRE(piece.ok());
    if (piece->empty()) return text;
    text += *piece;
  }
}

Status ReadAll(std::string_view archive, TarLimits limits = {}) {
  StringSource source(archive, 300);
  TarReader reader(source, limits);
  TarEntry entry;
  while (true) {
    const Result<bool> more = reader.Next(entry);
    if (!more.ok()) return more.status();
    if (!*more) return Status::Ok();
  }
}

TEST_CASE("Entries come out with their attributes and contents, read or skipped") {
  TarWriter writer;
  writer.Dir("etc/").File("etc/one", "first", {.mode = 04755, .uid = 10, .gid = 20, .mtime = 99});
  writer.File("etc/two", std::string(2000, 'x')).Symlink("s", "etc/one").HardLink("h", "etc/two");
  writer.Device("dev/null", '3', 1, 3);
  const std::string archive = writer.Done();
  for (const std::size_t piece : {1U, 511U, 512U, 100'000U}) {
    StringSource source(archive, piece);
    TarReader reader(source);
    TarEntry entry;
    REQUIRE(*reader.Next(entry));
    CHECK((entry.type == EntryType::kDirectory));
    CHECK(entry.path == "etc/");
    REQUIRE(*reader.Next(entry));
    CHECK((entry.type == EntryType::kFile));
    CHECK(entry.mode == 04755);
    CHECK(entry.uid == 10);
    CHECK(entry.gid == 20);
    CHECK(entry.mtime_seconds == 99);
    CHECK(Contents(reader) == "first");
    REQUIRE(*reader.Next(entry));
    CHECK(entry.size == 2000);
    REQUIRE(*reader.Next(entry));
    CHECK((entry.type == EntryType::kSymlink));
    CHECK(entry.link == "etc/one");
    REQUIRE(*reader.Next(entry));
    CHECK((entry.type == EntryType::kHardLink));
    REQUIRE(*reader.Next(entry));
    CHECK((entry.type == EntryType::kCharDevice));
    CHECK(entry.device_major == 1);
    CHECK(entry.device_minor == 3);
    CHECK_FALSE(*reader.Next(entry));
    CHECK(reader.Drain().ok());
  }
}

TEST_CASE(
    "PAX headers give long names, times, ids and extended attributes to the next entry only") {
  const std::string name = fmt::format("{:d>150}/{:f>200}", "", "");
  TarWriter writer;
  writer.File("short", "x",
              {.pax = {{"path", name},
                       {"mtime", "1700000000.25"},
                       {"uid", "3000000"},
                       {"SCHILY.xattr.user.a", std::string("b\0c", 3)}}});
  writer.File("plain", "y");
  StringSource source(writer.Done(), 100);
  const std::string archive = writer.Done();
  StringSource again(archive, 100);
  TarReader reader(again);
  TarEntry entry;
  REQUIRE(*reader.Next(entry));
  CHECK(entry.path == name);
  CHECK(entry.uid == 3'000'000);
  CHECK(entry.mtime_nanoseconds == 250'000'000);
  CHECK((entry.xattrs.at("user.a") == std::string("b\0c", 3)));
  REQUIRE(*reader.Next(entry));
  CHECK(entry.path == "plain");
  CHECK(entry.xattrs.empty());
}

TEST_CASE("GNU long names and links are read") {
  const std::string name(300, 'n');
  const std::string link(250, 'l');
  TarWriter writer;
  writer.Other("././@LongLink", 'L', name + std::string(1, '\0'));
  writer.Other("././@LongLink", 'K', link + std::string(1, '\0'));
  writer.Symlink("cut", "cut");
  const std::string archive = writer.Done();
  StringSource source(archive);
  TarReader reader(source);
  TarEntry entry;
  REQUIRE(*reader.Next(entry));
  CHECK(entry.path == name);
  CHECK(entry.link == link);
}

TEST_CASE("Sizes in base 256 are read, negative and huge ones refused") {
  std::string block = TarWriter::Block("f", '0', 0, "", {});
  const auto with_size = [&block](const std::string& field) {
    std::string changed = block;
    changed.replace(124, 12, field);
    TarWriter::Sign(changed);
    return changed;
  };
  std::string five(12, '\0');
  five.front() = '\x80';
  five.back() = '\x05';
  std::string contents(512 + 1024, '\0');
  contents.replace(0, 5, "12345");
  CHECK(ReadAll(with_size(five) + contents).ok());
  CHECK(ReadAll(with_size(std::string(12, '\xff'))).code() == Code::kDataLoss);
  std::string huge(12, '\x7f');
  huge.front() = '\x80';
  CHECK(ReadAll(with_size(huge)).code() == Code::kDataLoss);
  CHECK(ReadAll(with_size("-0000000001 ")).code() == Code::kDataLoss);
}

TEST_CASE("What is damaged, cut short or out of bounds is one clear error") {
  TarWriter writer;
  writer.File("file", std::string(3000, 'x'));
  const std::string good = writer.Done();
  CHECK(ReadAll(good).ok());
  CHECK(ReadAll("").ok());
  CHECK(ReadAll(good.substr(0, 700)).code() == Code::kDataLoss);
  CHECK(ReadAll(good.substr(0, 100)).code() == Code::kDataLoss);
  std::string flipped = good;
  flipped[0] = 'F';
  CHECK(ReadAll(flipped).code() == Code::kDataLoss);
  CHECK(ReadAll(std::string(600, 'a')).code() == Code::kDataLoss);
  CHECK(ReadAll(TarWriter().Other("s", 'S').Done()).code() == Code::kUnimplemented);
  CHECK(ReadAll(TarWriter().File("s", "", {.pax = {{"GNU.sparse.major", "1"}}}).Done()).code() ==
        Code::kUnimplemented);
  CHECK(ReadAll(TarWriter().Other("x", 'x', "999 a=b\n").Done()).code() == Code::kDataLoss);
  CHECK(ReadAll(TarWriter().Other("x", 'x', "6 a=b\n").File("f", "").Done()).ok());
  CHECK(ReadAll(TarWriter().File("a", "").File("b", "").Done(), {.max_entries = 1}).code() ==
        Code::kResourceExhausted);
  CHECK(ReadAll(TarWriter().Other("x", 'x', std::string(2U << 20U, 'a')).Done()).code() ==
        Code::kResourceExhausted);
  CHECK(ReadAll(TarWriter().File("f", "", {.pax = {{"path", std::string(5000, 'p')}}}).Done())
            .code() == Code::kResourceExhausted);
}

}  // namespace
}  // namespace crisp::archive
