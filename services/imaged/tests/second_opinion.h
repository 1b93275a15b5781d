#pragma once

#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "libs/archive/tests/compress.h"
#include "libs/archive/tests/tar_writer.h"
#include "libs/digest/digest.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "libs/testing/test_root.h"

// What umoci makes of an image, and images to ask it about.
namespace crisp::imaged::testing {

using archive::testing::TarWriter;

/// One line a file; of names that are one file each names the first. (How many there are is not
/// compared: overlayfs counts a lower layer's names that an upper one has hidden.)
class Tree {
 public:
  explicit Tree(std::string root) : root_(std::move(root)) {
    Walk("");
    for (const auto& [file, paths] : groups_)
      for (const std::string& path : paths)
        if (paths.size() > 1) lines[path] += " same as " + paths.front();
  }
  std::map<std::string, std::string> lines;

 private:
  void Walk(const std::string& path) {
    const std::string full = root_ + "/" + path;
    struct stat info {};
    REQUIRE(::lstat(full.c_str(), &info) == 0);
    std::string line =
        fmt::format("mode={:o} uid={} gid={} mtime={}.{:09}", info.st_mode, info.st_uid,
                    info.st_gid, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    if (S_ISREG(info.st_mode))
      line += fmt::format(" size={} sha256={}", info.st_size,
                          digest::Sha256Hex(os::ReadFile(full, MiB(64)).value()));
    if (S_ISLNK(info.st_mode)) line += " target=" + os::ReadLink(full).value();
    if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode))
      line += fmt::format(" device={}", info.st_rdev);
    if (!S_ISDIR(info.st_mode)) groups_[{info.st_dev, info.st_ino}].push_back(path);
    lines[path] = line + Xattrs(full);
    if (!S_ISDIR(info.st_mode)) return;
    const Result<std::vector<std::string>> names = os::ListDir(full);
    REQUIRE(names.ok());
    for (const std::string& name : *names) Walk(path.empty() ? name : path + "/" + name);
  }
  static std::string Xattrs(const std::string& path) {
    std::array<char, 4096> names{};
    const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
    std::map<std::string, std::string> found;
    for (ssize_t at = 0; at < size;) {
      const std::string name = names.data() + at;
      at += static_cast<ssize_t>(name.size()) + 1;
      // umoci's own mark of what a user namespace changed.
      if (name.starts_with("user.rootlesscontainers") || name.starts_with("user.overlay."))
        continue;
      std::array<char, 4096> value{};
      const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
      found[name] =
          digest::Sha256Hex({value.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0))})
              .substr(0, 8);
    }
    std::string text;
    for (const auto& [name, value] : found) text += " " + name + "=" + value;
    return text;
  }

  std::string root_;
  std::map<std::pair<dev_t, ino_t>, std::vector<std::string>> groups_;
};

/// An image of layers (tars) as an OCI layout in `directory`, tagged "t", for other tools.
class LayoutWriter {
 public:
  enum class Layers { kGzip, kPlain };

  LayoutWriter(const crisp::testing::TestRoot& root, std::string directory)
      : root_(root), directory_(std::move(directory)) {}

  void Write(const std::vector<std::string>& tars, Layers form) const {
    nlohmann::json config = {{"os", "linux"}, {"architecture", "amd64"}};
    config["config"] = nlohmann::json::object();
    config["rootfs"] = {{"type", "layers"}, {"diff_ids", nlohmann::json::array()}};
    nlohmann::json manifest = {{"schemaVersion", 2},
                               {"mediaType", "application/vnd.oci.image.manifest.v1+json"},
                               {"layers", nlohmann::json::array()}};
    const std::string type = "application/vnd.oci.image.layer.v1.tar";
    for (const std::string& tar : tars) {
      config["rootfs"]["diff_ids"].push_back("sha256:" + digest::Sha256Hex(tar));
      manifest["layers"].push_back(form == Layers::kPlain
                                       ? Descriptor(type, tar)
                                       : Descriptor(type + "+gzip", archive::testing::GzipOf(tar)));
    }
    manifest["config"] = Descriptor("application/vnd.oci.image.config.v1+json", config.dump());
    nlohmann::json entry =
        Descriptor("application/vnd.oci.image.manifest.v1+json", manifest.dump());
    entry["annotations"] = {{"org.opencontainers.image.ref.name", "t"}};
    nlohmann::json index = {{"schemaVersion", 2}};
    index["manifests"].push_back(std::move(entry));
    root_.Write(directory_ + "/index.json", index.dump());
    root_.Write(directory_ + "/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  }

 private:
  nlohmann::json Descriptor(const std::string& type, const std::string& bytes) const {
    const std::string hex = digest::Sha256Hex(bytes);
    root_.Write(directory_ + "/blobs/sha256/" + hex, bytes);
    return {{"mediaType", type}, {"digest", "sha256:" + hex}, {"size", bytes.size()}};
  }

  const crisp::testing::TestRoot& root_;
  const std::string directory_;
};

/// Runs a tool of others to its successful end.
inline void RunTool(const std::string& program, const std::vector<std::string>& args) {
  process::Command command{.program = program, .args = args, .env = process::PlainEnvironment()};
  const auto output = process::Run(CallContext::Background(std::chrono::seconds(60)), command);
  REQUIRE(output.ok());
  INFO(output->out << output->err);
  REQUIRE(output->exit_code == 0);
}

/// `ours` is what umoci unpacked below `theirs`.
inline void CheckSame(const Tree& ours, const Tree& theirs) {
  for (const auto& [path, line] : theirs.lines) {
    CAPTURE(path);
    const auto found = ours.lines.find(path);
    CHECK((found == ours.lines.end() ? "absent" : found->second) == line);
  }
  for (const auto& [path, line] : ours.lines) {
    CAPTURE(path);
    CHECK(theirs.lines.contains(path));
  }
}

/// The layers of an image with every feature that tars have. `disks`: with devices that a confined
/// imaged does not make.
inline std::vector<std::string> EveryFeature(bool disks) {
  std::vector<std::string> tars;
  const std::string capability("\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  TarWriter low;
  low.Dir("./", {.mode = 0755, .mtime = 1'500'000'000});
  low.Dir("etc/", {.mode = 0750, .uid = 1, .gid = 2, .mtime = 1'500'000'001});
  low.File("etc/passwd", "root:x:0:0", {.mode = 0640, .uid = 3, .gid = 4, .mtime = 1'400'000'000});
  low.File("etc/gone", "x").File("etc/kept", "k");
  low.Dir("bin/", {.mode = 02775, .gid = 50}).File("bin/su", "elf", {.mode = 04755});
  low.File(
      "bin/ping", "elf",
      {.mode = 0755,
       .pax = {{"SCHILY.xattr.security.capability", capability}, {"SCHILY.xattr.user.note", "n"}}});
  low.HardLink("bin/ping6", "bin/ping").Symlink("bin/sh", "su").Symlink("bin/abs", "/bin/su");
  low.Dir("tmp/", {.mode = 01777}).Other("tmp/pipe", '6').Device("tmp/null", '3', 1, 3);
  if (disks) low.Device("tmp/disk", '4', 7, 200);
  low.File("tmp/empty", "");
  low.File("old", "", {.mode = 0600, .pax = {{"mtime", "-1000.25"}}});
  low.File("fine", "", {.mode = 0600, .pax = {{"mtime", "1600000000.123456789"}}});
  low.File("ids", "", {.mode = 0, .pax = {{"uid", "3000000"}, {"gid", "2097152"}}});
  low.File("long", "l", {.pax = {{"path", std::string(120, 'p') + "-" + std::string(100, 'q')}}});
  low.Other("././@LongLink", 'L', std::string(200, 'g') + std::string(1, '\0')).File("cut", "g");
  low.Other("././@LongLink", 'K', std::string(150, 't') + std::string(1, '\0'));
  low.Symlink("longlink", "cut");
  low.File("sparse", "headtail",
           {.pax = {{"GNU.sparse.major", "0"},
                    {"GNU.sparse.minor", "1"},
                    {"GNU.sparse.numblocks", "2"},
                    {"GNU.sparse.size", "100000"},
                    {"GNU.sparse.map", "0,4,99996,4"}}});
  std::string map = "2\n0\n4\n99996\n4\n";
  map.resize(512);
  low.File("GNUSparseFile.0/sparse10", map + "headtail",
           {.pax = {{"GNU.sparse.major", "1"},
                    {"GNU.sparse.minor", "0"},
                    {"GNU.sparse.name", "sparse10"},
                    {"GNU.sparse.realsize", "100000"}}});
  // Not of a directory that a later layer goes through: umoci forgets those.
  low.Dir("noted/", {.mode = 0711, .pax = {{"SCHILY.xattr.user.note", "of a directory"}}});
  low.Dir("linked/").Symlink("to-linked", "linked").File("to-linked/through", "t");
  low.Dir("usr/").Dir("usr/lib/", {.mode = 0711}).File("usr/lib/base", "b");
  low.Dir("usr/lib/both/").File("usr/lib/both/low", "l").Symlink("lib", "usr/lib");
  low.Symlink("chained", "/lib/both");
  low.Symlink("up", "../../etc").File("up/through", "t");
  low.Dir("opaque/", {.mode = 0755}).File("opaque/old", "o").Dir("was-dir/").File("was-dir/f", "");
  low.File("was-file", "f").Symlink("was-link", "etc").Dir("deep/").Dir("deep/er/");
  low.File("deep/er/f", "f").File("swap", "1").File("swap", "2, later");
  tars.push_back(low.Done());
  TarWriter middle;
  middle.File("etc/.wh.gone", "").File("etc/new", "n", {.mode = 0600, .uid = 9});
  middle.Dir("opaque/", {.mode = 0700, .uid = 5}).File("opaque/.wh..wh..opq", "");
  middle.File("opaque/new", "n").File(".wh.was-dir", "").Dir("was-file/").File("was-file/in", "i");
  middle.HardLink("passwd-too", "etc/passwd");
  // Through links of the layer below.
  middle.File("lib/through", "t").Dir("lib/deeper/", {.mode = 0700, .uid = 6});
  middle.File("lib/deeper/still", "s").File("lib/.wh.base", "").File("chained/more", "m");
  middle.File("usr/lib/both/own", "o").HardLink("linked-through", "chained/low");
  tars.push_back(middle.Done());
  TarWriter top;
  top.File("was-dir", "a file").Symlink("was-file", "etc").File("deep/er/g", "g");
  top.File("etc/kept", "changed", {.mode = 0444}).File(".wh.was-link", "").File("bin/.wh.sh", "");
  tars.push_back(top.Done());
  return tars;
}

/// A layer over the paths that are there by now: a model of the merged tree decides what is legal.
class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) { kinds_[""] = 'd'; }

  std::string Layer() {
    TarWriter tar;
    std::set<std::string> made;
    files_here_.clear();
    if (kinds_.size() == 1) tar.Dir("./", Attributes(0755, true));
    for (int i = 0; i < 40; ++i) {
      std::vector<std::string> directories;
      for (const auto& [path, kind] : kinds_)
        if (kind == 'd') directories.push_back(path);
      const std::string& parent = directories[Up(directories.size())];
      if (std::count(parent.begin(), parent.end(), '/') > 3) continue;
      const std::string name(1, static_cast<char>('a' + Up(8)));
      const std::string path = parent.empty() ? name : parent + "/" + name;
      if (!made.insert(path).second) continue;
      const auto there = kinds_.find(path);
      if (there != kinds_.end() && !MadeBelow(made, path) && Up(3) == 0) {
        const std::string whiteout = (parent.empty() ? "" : parent + "/") + ".wh." + name;
        tar.File(whiteout, "");
        Forget(path);
        continue;
      }
      if (there != kinds_.end() && there->second == 'd' && Up(2) == 0) {
        tar.Dir(path + "/", Attributes(Up(07777U) & 0777U, true));
        if (!MadeBelow(made, path) && Up(2) == 0) {
          tar.File(path + "/.wh..wh..opq", "");
          Forget(path);
          kinds_[path] = 'd';
        }
        continue;
      }
      if (MadeBelow(made, path)) continue;
      Forget(path);
      Add(tar, path);
    }
    return tar.Done();
  }

 private:
  unsigned Up(std::size_t bound) {
    return std::uniform_int_distribution<unsigned>(0, static_cast<unsigned>(bound) - 1)(random_);
  }
  TarWriter::Attributes Attributes(unsigned mode, bool directory = false) {
    TarWriter::Attributes attributes;
    attributes.mode = mode;
    attributes.uid = Up(3) * 1000;
    attributes.gid = Up(3) * 100;
    attributes.mtime = 1'000'000'000 + static_cast<long>(Up(700'000'000));
    if (Up(3) == 0)
      attributes.pax["mtime"] = fmt::format("{}.{:09}", attributes.mtime, Up(1'000'000'000));
    // Not of directories: umoci forgets those of a directory that only lies on the way of a later
    // layer's entries, and keeps those that a later entry leaves out.
    if (!directory && Up(4) == 0)
      attributes.pax["SCHILY.xattr.user.x"] = std::string(Up(40) + 1, 'v');
    return attributes;
  }
  static bool MadeBelow(const std::set<std::string>& made, const std::string& path) {
    const auto next = made.lower_bound(path + "/");
    return next != made.end() && next->starts_with(path + "/");
  }
  void Forget(const std::string& path) {
    std::erase_if(kinds_, [&path](const auto& each) {
      return each.first == path || each.first.starts_with(path + "/");
    });
  }
  void Add(TarWriter& tar, const std::string& path) {
    // Of this layer: a lower file's other names are no longer it once an upper layer has it, which
    // is how overlayfs is.
    std::vector<std::string> files;
    for (const auto& [other, kind] : kinds_)
      if (kind == 'f' && files_here_.contains(other)) files.push_back(other);
    switch (Up(7)) {
      case 0:
      case 1:
        tar.Dir(path + "/", Attributes(Up(01000U) | (Up(4) == 0 ? 02000U : 0U), true));
        kinds_[path] = 'd';
        break;
      case 2:
        tar.Symlink(path, std::string(Up(80) + 1, 's'));
        kinds_[path] = 'l';
        break;
      case 3:
        if (!files.empty()) {
          tar.HardLink(path, files[Up(files.size())]);
          kinds_[path] = 'f';
          files_here_.insert(path);
          break;
        }
        [[fallthrough]];
      case 4:
        tar.Other(path, '6');
        kinds_[path] = 'p';
        break;
      default:
        tar.File(path, std::string(Up(9000), static_cast<char>('a' + Up(26))),
                 Attributes(Up(010000U)));
        kinds_[path] = 'f';
        files_here_.insert(path);
    }
  }

  std::mt19937 random_;
  std::map<std::string, char> kinds_;  // of the merged tree
  std::set<std::string> files_here_;   // of the layer that is being made
};

}  // namespace crisp::imaged::testing
