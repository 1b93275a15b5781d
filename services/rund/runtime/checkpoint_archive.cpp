#include "services/rund/runtime/checkpoint_archive.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>
#include <string_view>
#include <utility>

#include "libs/archive/decompress.h"
#include "libs/archive/tar.h"
#include "libs/archive/tree_tar.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/beneath.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

constexpr std::array<std::string_view, 7> kFiles = {
    "config.dump", "spec.dump",       "bind.mounts",   "dump.log",
    "stats-dump",  "rootfs-diff.tar", "deleted.files",
};
constexpr std::string_view kImagesDir = "checkpoint/";
constexpr Bytes kMaxSize = GiB(256);  // of all files together
constexpr std::uint64_t kMaxFiles = 1'000'000;
constexpr Bytes kMaxJson = MiB(16);

/// The mounts that the pod and the runtime give each container, whatever it is (as CRI-O has it).
constexpr std::array<std::string_view, 13> kEverywhere = {
    "/proc",         "/dev",         "/dev/pts",           "/dev/mqueue", "/sys",
    "/dev/shm",      "/run/secrets", "/sys/fs/cgroup",     "/etc/hosts",  "/etc/resolv.conf",
    "/etc/hostname", "/etc/passwd",  "/run/.containerenv",
};

std::string DirOf(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// "./config.dump", "checkpoint/pages-1.img" → the name that the file has in a checkpoint; "" for
/// what is none of its files.
std::string NameIn(std::string_view path) {
  while (path.starts_with("./")) path.remove_prefix(2);
  if (std::find(kFiles.begin(), kFiles.end(), path) != kFiles.end()) return std::string(path);
  if (!path.starts_with(kImagesDir)) return "";
  const std::string_view image = path.substr(kImagesDir.size());
  const bool plain = !image.empty() && image != "." && image != ".." &&
                     image.find('/') == image.npos && image.find('\0') == image.npos;
  return plain ? std::string(path) : "";
}

/// The files of a checkpoint, made one after the other in an empty directory.
class Staging {
 public:
  static Result<Staging> Open(const CheckpointDir& dir) {
    CRISP_TRY(os::MakeDirs(dir.path, 0700));
    CRISP_TRY(os::MakeDirs(dir.Images(), 0700));
    return Staging(CRISP_TRY(os::Beneath::Open(dir.path)));
  }

  Result<os::UniqueFd> Create(const std::string& name, std::uint64_t size) {
    if (++files_ > kMaxFiles) return ResourceExhausted("too many files");
    if (size > left_) return ResourceExhausted("the files are too large together");
    left_ -= size;
    return root_.OpenFile(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600).While("{}", name);
  }

 private:
  explicit Staging(os::Beneath root) : root_(std::move(root)) {}

  os::Beneath root_;
  std::uint64_t files_ = 0;
  std::uint64_t left_ = kMaxSize.count();
};

Status TakeEntry(const CallContext& cc, archive::TarReader& tar, const archive::TarEntry& entry,
                 Staging& staging) {
  const std::string name = NameIn(entry.path);
  if (name.empty()) return Status::Ok();
  if (entry.type != archive::EntryType::kFile || entry.sparse) {
    return InvalidArgument("{} is not a plain file", name);
  }
  const os::UniqueFd fd = CRISP_TRY(staging.Create(name, entry.size));
  archive::EntrySource contents(tar);
  return archive::WriteTo(cc, contents, fd.get(), name);
}

Status CopyOne(const CallContext& cc, const os::Beneath& from, const std::string& name,
               Staging& staging) {
  const auto fd = from.OpenFile(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (fd.code() == Code::kNotFound) return Status::Ok();
  if (!fd.ok()) return fd.status();
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return Status::Errno(errno, "stat {}", name);
  if (!S_ISREG(info.st_mode)) return InvalidArgument("{} is not a plain file", name);
  const os::UniqueFd to = CRISP_TRY(staging.Create(name, static_cast<std::uint64_t>(info.st_size)));
  archive::FileSource source(fd->get(), name);
  return archive::WriteTo(cc, source, to.get(), name);
}

Result<nlohmann::json> ReadDump(const CheckpointDir& dir, const std::string& name) {
  const auto text = os::ReadFile(dir.path + "/" + name, kMaxJson);
  if (text.code() == Code::kNotFound) {
    return InvalidArgument("this is no checkpoint of a container: it has no {}", name);
  }
  CRISP_TRY(text);
  return json::Parse(*text, {.max_bytes = kMaxJson.count()}).While("{}", name);
}

}  // namespace

Status CheckLocation(const std::string& location) {
  if (location.empty() || location.front() != '/') {
    return InvalidArgument("location: '{}' is not an absolute path", location);
  }
  if ((location + "/").find("/../") != std::string::npos) {
    return InvalidArgument("location: '{}' has '..' in it", location);
  }
  if (os::IsDirectory(location) || location.back() == '/') {
    return InvalidArgument("location: '{}' is a directory, not a file", location);
  }
  if (os::Exists(location)) return AlreadyExists("location: there is a file {} already", location);
  if (!os::IsDirectory(DirOf(location))) {
    return FailedPrecondition("location: there is no directory {}", DirOf(location));
  }
  return Status::Ok();
}

std::string PartialPath(const std::string& location, const std::string& id) {
  const std::string dir = DirOf(location);
  return (dir == "/" ? "" : dir) + "/.crisp-checkpoint-" + id;
}

Status PackCheckpoint(const CallContext& cc, const CheckpointDir& dir, const std::string& partial,
                      const std::string& location) {
  const os::UniqueFd out =
      CRISP_TRY(os::Open(partial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  const auto shape = [](archive::TarEntry& entry) -> Result<archive::Shaped> {
    if (entry.path == "./") return archive::Shaped{.itself = false};
    const bool wanted = entry.path + "/" == kImagesDir || !NameIn(entry.path).empty();
    return archive::Shaped{.wanted = wanted};
  };
  CRISP_TRY(archive::WriteTree(
      cc, *archive::ReadDirectory(dir.path), shape,
      [&](std::string_view bytes) { return os::WriteAll(out.get(), bytes, location); }));
  if (::fsync(out.get()) != 0) return Status::Errno(errno, "sync {}", location);
  if (::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, location.c_str(), RENAME_NOREPLACE) != 0) {
    return Status::Errno(errno, "rename the archive to {}", location);
  }
  const os::UniqueFd parent = CRISP_TRY(os::Open(DirOf(location), O_RDONLY | O_DIRECTORY));
  if (::fsync(parent.get()) != 0) return Status::Errno(errno, "sync {}", DirOf(location));
  return Status::Ok();
}

Status UnpackCheckpoint(const CallContext& cc, const std::string& archive,
                        const CheckpointDir& dir) {
  // Not held up by a fifo, nor by a device.
  const auto fd = os::Open(archive, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (fd.code() == Code::kNotFound) return FailedPrecondition("there is no archive {}", archive);
  if (!fd.ok()) return fd.status();
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return Status::Errno(errno, "stat {}", archive);
  if (!S_ISREG(info.st_mode)) return InvalidArgument("{} is not a plain file", archive);
  Staging staging = CRISP_TRY(Staging::Open(dir));
  archive::FileSource file(fd->get(), archive);
  archive::PeekSource peek(file);
  const std::string_view head = CRISP_TRY(peek.Peek());
  const archive::Compression kind =
      CRISP_TRY(archive::DetectCompression(head).While("{}", archive));
  const auto plain = archive::MakeDecompressor(kind, peek);
  archive::PlainSource source(*plain);
  archive::TarReader tar(source, {.max_entries = 2 * kMaxFiles});
  archive::TarEntry entry;
  while (CRISP_TRY(tar.Next(entry).While("{}", archive))) {
    CRISP_TRY(TakeEntry(cc, tar, entry, staging).While("{}", archive));
  }
  return Status::Ok();
}

Status CopyCheckpoint(const CallContext& cc, const std::string& image_root,
                      const CheckpointDir& dir) {
  const os::Beneath from = CRISP_TRY(os::Beneath::Open(image_root));
  Staging staging = CRISP_TRY(Staging::Open(dir));
  for (const std::string_view name : kFiles) {
    CRISP_TRY(CopyOne(cc, from, std::string(name), staging));
  }
  const auto images = from.OpenDir("checkpoint");
  if (images.code() == Code::kNotFound) return Status::Ok();  // ReadFacts says what is missing
  if (!images.ok()) return images.status();
  const std::vector<std::string> names = CRISP_TRY(os::ListDir(images->ProcPath()));
  for (const std::string& name : names) {
    CRISP_TRY(CopyOne(cc, from, std::string(kImagesDir) + name, staging));
  }
  return Status::Ok();
}

Result<CheckpointFacts> ReadFacts(const CheckpointDir& dir) {
  const nlohmann::json config = CRISP_TRY(ReadDump(dir, "config.dump"));
  const nlohmann::json spec = CRISP_TRY(ReadDump(dir, "spec.dump"));
  // CRIU's own list of what it has written.
  if (!os::Exists(dir.Images() + "/inventory.img")) {
    return InvalidArgument("this is no checkpoint of a container: it has no {}inventory.img",
                           kImagesDir);
  }
  CheckpointFacts facts;
  facts.container_name = CRISP_TRY(json::OptString(config, "name").While("config.dump"));
  facts.image_id = CRISP_TRY(json::OptString(config, "rootfsImageRef").While("config.dump"));
  facts.image_name = CRISP_TRY(json::OptString(config, "rootfsImageName").While("config.dump"));
  if (facts.image_name.empty()) {
    facts.image_name = CRISP_TRY(json::OptString(config, "rootfsImage").While("config.dump"));
  }
  if (facts.image_id.empty() && facts.image_name.empty()) {
    return InvalidArgument("config.dump: it names no image (rootfsImageRef, rootfsImageName)");
  }
  const auto mounts = CRISP_TRY(json::OptArray(spec, "mounts").While("spec.dump"));
  for (const nlohmann::json& mount : mounts) {
    const std::string where = CRISP_TRY(json::OptString(mount, "destination").While("spec.dump"));
    const std::string type = CRISP_TRY(json::OptString(mount, "type").While("spec.dump"));
    const bool given =
        std::find(kEverywhere.begin(), kEverywhere.end(), where) != kEverywhere.end();
    if (type == "bind" && !given) facts.bind_mounts.push_back(where);
  }
  facts.masked_paths = CRISP_TRY(json::OptStrings(spec, "linux.maskedPaths").While("spec.dump"));
  return facts;
}

Result<std::vector<std::string>> ReadDeleted(const CheckpointDir& dir) {
  if (!os::Exists(dir.DeletedFiles())) return std::vector<std::string>();
  const nlohmann::json names = CRISP_TRY(ReadDump(dir, "deleted.files"));
  std::vector<std::string> deleted;
  if (!names.is_array()) return InvalidArgument("deleted.files: a list is expected");
  for (const nlohmann::json& name : names) {
    if (!name.is_string()) return InvalidArgument("deleted.files: a list of names is expected");
    deleted.push_back(name.get<std::string>());
  }
  return deleted;
}

}  // namespace crisp::rund
