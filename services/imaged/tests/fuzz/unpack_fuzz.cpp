// Any bytes as the tar of a layer, unpacked on a layer below, as it happens when an image is
// pulled: nothing outside the layer is made, changed or removed. Takes root (owners, devices).
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "libs/os/files.h"
#include "libs/os/temp_dir.h"
#include "services/imaged/core/unpack.h"

namespace {

using crisp::imaged::Unpacker;

/// A directory with a layer below, and things beside the layer that must stay as they are.
struct Room {
  crisp::os::TempDir temp = *crisp::os::TempDir::Create("/tmp/crisp-fuzz-");
  std::string layer = temp.path() + "/layer";
  std::string below = temp.path() + "/below";
  std::string victim = temp.path() + "/victim";
  Room() {
    using namespace crisp::os;
    if (!MakeDirs(below + "/d/e").ok() || !WriteFile(below + "/f", "below").ok() ||
        !Symlink(victim, below + "/s").ok() || !MakeDirs(victim).ok() ||
        !WriteFile(victim + "/f", "untouched").ok())
      std::abort();
  }
  void Check() const {
    struct stat info {};
    if (*crisp::os::ReadFile(victim + "/f") != "untouched" ||
        crisp::os::ListDir(victim)->size() != 1 || crisp::os::ListDir(temp.path())->size() != 3 ||
        *crisp::os::ReadFile(below + "/f") != "below" ||
        ::stat((victim + "/f").c_str(), &info) != 0 || info.st_nlink != 1)
      std::abort();
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const Room room;
  if (!crisp::os::MakeDirs(room.layer).ok()) std::abort();
  auto unpacker = Unpacker::Create(room.layer, {.max_size = crisp::MiB(1), .max_inodes = 200});
  if (!unpacker.ok()) std::abort();
  crisp::archive::StringSource source({reinterpret_cast<const char*>(data), size}, 1000);
  crisp::archive::TarReader tar(source, {.max_entries = 100, .max_header = crisp::KiB(64)});
  if (unpacker->Unpack(tar).ok())
    static_cast<void>(
        unpacker->Finish(crisp::CallContext::Background(std::chrono::minutes(1)), {room.below})
            .ok());
  room.Check();
  if (!crisp::os::RemoveTree(room.layer).ok()) std::abort();
  return 0;
}
