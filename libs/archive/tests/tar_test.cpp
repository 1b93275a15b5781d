#include "libs/archive/tar.h"

#include <catch2/catch.hpp>

#include "libs/archive/tests/tar_writer.h"
#include "libs/base/try.h"

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

struct Sparse {
  TarEntry entry;
  std::string stored;
  Status status;
};
Sparse ReadSparse(const std::string& archive) {
  Sparse sparse;
  StringSource source(archive, 77);
  TarReader reader(source);
  sparse.status = [&]() -> Status {
    if (!CRISP_TRY(reader.Next(sparse.entry))) return DataLoss("empty");
    while (true) {
      const std::string_view piece = CRISP_TRY(reader.Data());
      if (piece.empty()) break;
      sparse.stored += piece;
    }
    TarEntry next;
    if (!CRISP_TRY(reader.Next(next)) || next.path != "next") return DataLoss("out of step");
    return reader.Drain();
  }();
  return sparse;
}

/// The header of GNU's old kind.
std::string OldSparse(std::uint64_t stored, std::uint64_t size,
                      const std::vector<std::pair<unsigned, unsigned>>& extents) {
  std::string block = TarWriter::Block("s", 'S', stored, "", {});
  block.replace(257, 8, std::string("ustar  \0", 8));
  std::string more(extents.size() > 4 ? 512 : 0, '\0');
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const std::string pair = fmt::format("{:011o}", extents[i].first) + '\0' +
                             fmt::format("{:011o}", extents[i].second) + '\0';
    if (i < 4) block.replace(386 + i * 24, 24, pair);
    if (i >= 4) more.replace((i - 4) * 24, 24, pair);
  }
  if (!more.empty()) block[482] = '\1';
  block.replace(483, 12, fmt::format("{:011o}", size) + '\0');
  TarWriter::Sign(block);
  return block + more;
}

std::string Padded(std::string text) {
  text.resize((text.size() + 511) / 512 * 512);
  return text;
}

TEST_CASE("Sparse files of all four kinds give their extents and what is stored") {
  const std::string next = TarWriter().File("next", "n").Done();
  std::vector<std::string> archives;
  archives.push_back(OldSparse(8, 5000, {{100, 5}, {4000, 3}, {5000, 0}}) + Padded("abcdefgh"));
  archives.push_back(
      TarWriter()
          .File("s", "abcdefgh",
                {.pax = {{"GNU.sparse.size", "5000"}, {"GNU.sparse.map", "100,5,4000,3,5000,0"}}})
          .Done());
  archives.back().resize(archives.back().size() - 1024);
  archives.push_back(TarWriter()
                         .File("GNUSparseFile.0/s", Padded("2\n100\n5\n4000\n3\n") + "abcdefgh",
                               {.pax = {{"GNU.sparse.major", "1"},
                                        {"GNU.sparse.minor", "0"},
                                        {"GNU.sparse.name", "s"},
                                        {"GNU.sparse.realsize", "5000"}}})
                         .Done());
  archives.back().resize(archives.back().size() - 1024);
  const std::string records =
      "25 GNU.sparse.offset=100\n25 GNU.sparse.numbytes=5\n26 GNU.sparse.offset=4000\n"
      "25 GNU.sparse.numbytes=3\n24 GNU.sparse.size=5000\n";
  archives.push_back(TarWriter().Other("x", 'x', records).File("s", "abcdefgh").Done());
  archives.back().resize(archives.back().size() - 1024);
  for (const std::string& archive : archives) {
    const Sparse sparse = ReadSparse(archive + next);
    INFO(sparse.status.ToString());
    REQUIRE(sparse.status.ok());
    CHECK(sparse.entry.path == "s");
    CHECK(sparse.entry.size == 5000);
    CHECK(sparse.entry.sparse);
    CHECK(sparse.stored == "abcdefgh");
    REQUIRE(sparse.entry.extents.size() == 2);
    CHECK(sparse.entry.extents[0].offset == 100);
    CHECK(sparse.entry.extents[0].size == 5);
    CHECK(sparse.entry.extents[1].offset == 4000);
    CHECK(sparse.entry.extents[1].size == 3);
  }
}

TEST_CASE("An old sparse file has its extents in as many blocks as they need") {
  std::vector<std::pair<unsigned, unsigned>> extents;
  std::string stored;
  for (unsigned i = 0; i < 20; ++i) {
    extents.emplace_back(i * 10, 1);
    stored += static_cast<char>('a' + i);
  }
  const Sparse sparse = ReadSparse(OldSparse(20, 1000, extents) + Padded(stored) +
                                   TarWriter().File("next", "").Done());
  REQUIRE(sparse.status.ok());
  CHECK(sparse.entry.extents.size() == 20);
  CHECK(sparse.entry.extents.back().offset == 190);
  CHECK(sparse.stored == stored);
}

TEST_CASE("A sparse map that makes no sense is refused") {
  const auto map = [](const std::string& text, const std::string& contents = "abcdefgh") {
    return ReadAll(TarWriter()
                       .File("s", contents,
                             {.pax = {{"GNU.sparse.size", "5000"}, {"GNU.sparse.map", text}}})
                       .Done())
        .code();
  };
  CHECK(map("100,5,4000,3") == Code::kOk);
  CHECK(map("100,5,102,3") == Code::kDataLoss);
  CHECK(map("4000,5,100,3") == Code::kDataLoss);
  CHECK(map("100,5,4998,3") == Code::kDataLoss);
  CHECK(map("100,5,4000,4") == Code::kDataLoss);
  CHECK(map("100,5,4000") == Code::kDataLoss);
  CHECK(map("100,5,-1,3") == Code::kDataLoss);
  CHECK(map("100,5,18446744073709551615,3") == Code::kDataLoss);
  CHECK(map("") == Code::kDataLoss);
  const auto in_data = [](const std::string& contents) {
    return ReadAll(TarWriter()
                       .File("s", contents,
                             {.pax = {{"GNU.sparse.major", "1"}, {"GNU.sparse.realsize", "50"}}})
                       .Done())
        .code();
  };
  CHECK(in_data(Padded("1\n0\n3\n") + "abc") == Code::kOk);
  CHECK(in_data("1\n0\n3") == Code::kDataLoss);
  CHECK(in_data("1\n0\n3\nabc") == Code::kDataLoss);
  CHECK(in_data(std::string(600, '1')) == Code::kDataLoss);
  CHECK(in_data(Padded("99999\n")) == Code::kDataLoss);
  CHECK(in_data("") == Code::kDataLoss);
}

TEST_CASE(
    "An empty PAX value takes back the one before, and headers before one entry are bounded") {
  TarWriter writer;
  writer.Other("x", 'x', "10 path=b\n8 path=\n11 mtime=5\n9 mtime=\n").File("a", "");
  const std::string archive = writer.Done();
  StringSource source(archive);
  TarReader reader(source);
  TarEntry entry;
  REQUIRE(*reader.Next(entry));
  CHECK(entry.path == "a");
  CHECK(entry.mtime_seconds == 1'700'000'000);
  // Each header alone is small enough.
  TarWriter many;
  for (int i = 0; i < 3; ++i)
    many.Other("x", 'x', Padded("16 comment=0123\n") + std::string(400U << 10U, '\0'));
  CHECK(ReadAll(many.File("f", "").Done()).code() == Code::kResourceExhausted);
}

TEST_CASE("Times before 1970 and ids beyond octal are read") {
  TarWriter writer;
  writer.File("f", "", {.pax = {{"mtime", "-1.25"}, {"uid", "4294967294"}, {"gid", "65536"}}});
  const std::string archive = writer.Done();
  StringSource source(archive);
  TarReader reader(source);
  TarEntry entry;
  REQUIRE(*reader.Next(entry));
  CHECK(entry.mtime_seconds == -2);
  CHECK(entry.mtime_nanoseconds == 750'000'000);
  CHECK(entry.uid == 4294967294U);
  CHECK(entry.gid == 65536);
  CHECK(ReadAll(TarWriter().File("f", "", {.pax = {{"mtime", "-9223372036854775808.5"}}}).Done())
            .code() == Code::kDataLoss);
  for (const char* uid : {"4294967295", "-1", "99999999999999999999", "x"})
    CHECK(ReadAll(TarWriter().File("f", "", {.pax = {{"uid", uid}}}).Done()).code() ==
          Code::kDataLoss);
}

TEST_CASE("What is damaged, cut short or out of bounds is one clear error") {
  TarWriter writer;
  writer.File("file", std::string(3000, 'x'));
  const std::string good = writer.Done();
  CHECK(ReadAll(good).ok());
  CHECK(ReadAll("").ok());
  // Without the padding of the last file, and with a part of it.
  CHECK(ReadAll(good.substr(0, 512 + 3000)).ok());
  CHECK(ReadAll(good.substr(0, 512 + 3001)).ok());
  CHECK(ReadAll(good.substr(0, 512 + 2999)).code() == Code::kDataLoss);
  CHECK(ReadAll(good.substr(0, 700)).code() == Code::kDataLoss);
  CHECK(ReadAll(good.substr(0, 100)).code() == Code::kDataLoss);
  std::string flipped = good;
  flipped[0] = 'F';
  CHECK(ReadAll(flipped).code() == Code::kDataLoss);
  CHECK(ReadAll(std::string(600, 'a')).code() == Code::kDataLoss);
  CHECK(ReadAll(TarWriter().Other("m", 'M').Done()).code() == Code::kUnimplemented);
  CHECK(ReadAll(TarWriter().File("s", "", {.pax = {{"GNU.sparse.major", "1"}}}).Done()).code() ==
        Code::kDataLoss);
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
