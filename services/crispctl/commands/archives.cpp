#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "libs/archive/tar_writer.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

namespace fs = std::filesystem;
using Sink = std::function<Status(std::string_view)>;

constexpr std::size_t kPiece = std::size_t{256} << 10U;

/// Hands on what `fd` has.
Status Copy(int fd, const std::string& name, const Sink& sink) {
  std::string piece(kPiece, '\0');
  while (true) {
    const ssize_t count = ::read(fd, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Status::Errno(errno, "read {}", name);
    if (count == 0) return Status::Ok();
    CRISP_TRY(sink(std::string_view(piece.data(), static_cast<std::size_t>(count))));
  }
}

/// A directory with an OCI layout, as a tar.
Status SendLayout(const std::string& root, const Sink& sink) {
  std::vector<std::string> files = {"oci-layout", "index.json"};
  std::error_code error;
  for (fs::recursive_directory_iterator it(root + "/blobs", error), end; !error && it != end;
       it.increment(error))
    if (it->is_regular_file(error)) files.push_back(fs::relative(it->path(), root).string());
  if (error) return NotFound("{}/blobs: {}", root, error.message());
  for (const std::string& file : files) {
    const std::string path = root + "/" + file;
    const os::UniqueFd fd = CRISP_TRY(os::Open(path, O_RDONLY));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return Status::Errno(errno, "{}", path);
    const auto size = static_cast<std::uint64_t>(info.st_size);
    const std::string header =
        CRISP_TRY(archive::TarHeader({.path = file, .mode = 0644, .size = size}));
    CRISP_TRY(sink(header));
    std::uint64_t sent = 0;
    CRISP_TRY(Copy(fd.get(), path, [&](std::string_view bytes) {
      sent += bytes.size();
      return sink(bytes);
    }));
    if (sent != size) return DataLoss("{} changed while it was read", path);
    CRISP_TRY(sink(archive::TarPadding(size)));
  }
  return sink(archive::TarEnd());
}

Result<int> Import(Client& client, const Shared& shared, const std::string& path,
                   const std::string& name) {
  const auto send = [&path](const Sink& sink) -> Status {
    if (path == "-") return Copy(STDIN_FILENO, "standard input", sink);
    if (os::IsDirectory(path)) return SendLayout(path, sink);
    const os::UniqueFd fd = CRISP_TRY(os::Open(path, O_RDONLY));
    return Copy(fd.get(), path, sink);
  };
  const imaged::v1::ImportResponse imported = CRISP_TRY(client.Import(name, send));
  if (shared.json()) {
    Print(ToJson(imported));
    return kDone;
  }
  for (const auto& image : imported.images())
    for (const std::string& each : image.names())
      Print(fmt::format("{}  {}", ShortId(image.id()), each));
  return kDone;
}

Result<int> Export(Client& client, const std::string& image, const std::string& path) {
  if (path == "-") {
    if (::isatty(STDOUT_FILENO) == 1)
      return InvalidArgument("an archive is not for a terminal: name a file, or a pipe behind -");
    CRISP_TRY(client.Export(image, [](std::string_view bytes) {
      return os::WriteAll(STDOUT_FILENO, bytes, "standard output");
    }));
    return kDone;
  }
  // Whole or not at all: a file that is cut short must not be mistaken for an archive.
  const std::string part = path + ".part";
  const os::UniqueFd fd = CRISP_TRY(os::Open(part, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  Status status = client.Export(
      image, [&](std::string_view bytes) { return os::WriteAll(fd.get(), bytes, part); });
  if (status.ok()) status = os::Rename(part, path);
  if (!status.ok()) static_cast<void>(os::RemoveFile(part).ok());
  CRISP_TRY(std::move(status));
  return kDone;
}

}  // namespace

void AddArchiveCommands(CLI::App& app, Shared& shared) {
  struct Args {
    std::string image;
    std::string path;
  };
  CLI::App* group = app.add_subcommand("image", "Images from and to files");
  group->require_subcommand(1);

  auto import_args = std::make_shared<Args>();
  CLI::App* importer =
      group->add_subcommand("import", "Take the images of an archive, without a registry");
  importer
      ->add_option("PATH", import_args->path,
                   "A tar (plain, gzip or zstd) of an OCI layout or from 'docker save', the "
                   "directory of an OCI layout, or - for standard input")
      ->required();
  importer->add_option("--name", import_args->image,
                       "The name of the archive's one image, in the place of its own");
  importer->callback([&shared, import_args] {
    WithClient(shared, [&](Client& client) {
      return Import(client, shared, import_args->path, import_args->image);
    });
  });

  auto export_args = std::make_shared<Args>();
  CLI::App* exported = group->add_subcommand(
      "export", "Write an image as a tar, an OCI layout that 'docker load' reads too");
  exported->add_option("IMAGE", export_args->image, "A name or an id")->required();
  exported->add_option("FILE", export_args->path, "The file, or - for standard output")->required();
  exported->callback([&shared, export_args] {
    WithClient(shared, [&](Client& client) {
      return Export(client, export_args->image, export_args->path);
    });
  });
}

}  // namespace crisp::ctl
