#include "libs/archive/tar_writer.h"

#include <catch2/catch.hpp>
#include <limits>

namespace crisp::archive {
namespace {

TEST_CASE("What is written is read back the same") {
  std::vector<TarEntry> entries;
  entries.push_back(
      {.path = "a/b", .mode = 04755, .uid = 7, .gid = 8, .size = 5, .mtime_seconds = 9});
  entries.push_back({.type = EntryType::kDirectory, .path = "dir/", .mode = 01777});
  entries.push_back({.type = EntryType::kSymlink, .path = "s", .link = "../target"});
  entries.push_back({.type = EntryType::kHardLink, .path = "h", .link = "a/b"});
  entries.push_back(
      {.type = EntryType::kCharDevice, .path = "c", .device_major = 5, .device_minor = 1});
  entries.push_back(
      {.type = EntryType::kBlockDevice, .path = "b", .device_major = 250, .device_minor = 255});
  entries.push_back({.type = EntryType::kFifo, .path = "p"});
  entries.push_back(
      {.path = std::string(300, 'n'),
       .uid = 4'000'000'000,
       .gid = 3'000'000'000,
       .mtime_seconds = 1'700'000'000,
       .mtime_nanoseconds = 5,
       .xattrs = {{"security.capability", std::string("\1\0\n=x", 5)}, {"user.empty", ""}}});
  entries.push_back({.type = EntryType::kSymlink, .path = "l", .link = std::string(200, 't')});
  entries.push_back({.path = "old", .mtime_seconds = -3, .mtime_nanoseconds = 250'000'000});
  entries.push_back({.path = "first", .mtime_seconds = std::numeric_limits<std::int64_t>::min()});
  std::string archive;
  for (const TarEntry& entry : entries) {
    archive += *TarHeader(entry);
    archive += std::string(entry.size, 'x');
    archive += TarPadding(entry.size);
  }
  archive += TarEnd();
  CHECK(archive.size() % 512 == 0);
  StringSource source(archive);
  TarReader reader(source);
  for (const TarEntry& wanted : entries) {
    TarEntry entry;
    INFO(wanted.path);
    REQUIRE(*reader.Next(entry));
    CHECK(entry.type == wanted.type);
    CHECK(entry.path == wanted.path);
    CHECK(entry.link == wanted.link);
    CHECK(entry.mode == wanted.mode);
    CHECK(entry.uid == wanted.uid);
    CHECK(entry.gid == wanted.gid);
    CHECK(entry.size == wanted.size);
    CHECK(entry.mtime_seconds == wanted.mtime_seconds);
    CHECK(entry.mtime_nanoseconds == wanted.mtime_nanoseconds);
    CHECK(entry.device_major == wanted.device_major);
    CHECK(entry.device_minor == wanted.device_minor);
    CHECK(entry.xattrs == wanted.xattrs);
  }
  TarEntry none;
  CHECK_FALSE(*reader.Next(none));
}

TEST_CASE("Sizes beyond eight gigabytes are written") {
  const std::string header = *TarHeader({.path = "big", .size = std::uint64_t{1} << 40U});
  CHECK(header.size() == 3 * 512);
  StringSource source(header);
  TarReader reader(source);
  TarEntry entry;
  REQUIRE(*reader.Next(entry));
  CHECK(entry.size == std::uint64_t{1} << 40U);
  CHECK(TarHeader({.path = std::string("a\0b", 3)}).code() == Code::kInvalidArgument);
}

}  // namespace
}  // namespace crisp::archive
