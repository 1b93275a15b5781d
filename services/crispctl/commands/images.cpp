#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <string>

#include "libs/base/try.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

using imaged::v1::LayerProgress;

/// A bar for each layer on a terminal, a line for each change elsewhere; on stderr.
class PullDisplay {
 public:
  PullDisplay(std::string image, bool quiet)
      : image_(std::move(image)), quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

  void Show(const imaged::v1::PullEvent& event) {
    if (quiet_) return;
    if (terminal_) {
      const auto now = std::chrono::steady_clock::now();
      const bool stage = event.stage() != stage_;
      if (!stage && now - drawn_ < std::chrono::milliseconds(80)) return;
      drawn_ = now;
      stage_ = event.stage();
      Draw(event);
    } else {
      Lines(event);
    }
  }

 private:
  static std::string Name(const LayerProgress& layer) { return ShortId(layer.digest()); }

  static std::string Bar(const LayerProgress& layer) {
    constexpr std::size_t kWidth = 30;
    switch (layer.state()) {
      case LayerProgress::PRESENT: return "here already";
      case LayerProgress::UNPACKED:
        return fmt::format("[{}] {:>9}", std::string(kWidth, '='),
                           Size(static_cast<std::uint64_t>(layer.done())));
      case LayerProgress::DOWNLOADING: break;
      default: return "waits";
    }
    const auto done = static_cast<std::uint64_t>(std::max<std::int64_t>(layer.done(), 0));
    const auto size = static_cast<std::uint64_t>(std::max<std::int64_t>(layer.size(), 0));
    const std::size_t full =
        size == 0 ? 0
                  : static_cast<std::size_t>(std::min<std::uint64_t>(done * kWidth / size, kWidth));
    return fmt::format("[{}{}] {:>9} of {}", std::string(full, '='),
                       std::string(kWidth - full, ' '), Size(done), Size(size));
  }

  static std::string Words(const LayerProgress& layer) {
    if (layer.state() != LayerProgress::DOWNLOADING) {
      return Lower(LayerProgress::State_Name(layer.state()), "");
    }
    const auto size = static_cast<std::uint64_t>(std::max<std::int64_t>(layer.size(), 0));
    return fmt::format("downloading {}", Size(size));
  }

  void Draw(const imaged::v1::PullEvent& event) {
    std::string out;
    if (lines_ > 0) out += fmt::format("\033[{}A", lines_);
    out += fmt::format("\033[K{}: {}\n", image_, event.stage());
    for (const auto& layer : event.layers()) {
      out += fmt::format("\033[K  {}  {}\n", Name(layer), Bar(layer));
    }
    lines_ = event.layers_size() + 1;
    Remark(out);
  }

  void Lines(const imaged::v1::PullEvent& event) {
    if (event.stage() != stage_) {
      stage_ = event.stage();
      Remark(fmt::format("{}: {}\n", image_, stage_));
    }
    for (const auto& layer : event.layers()) {
      auto& state = states_[layer.digest()];
      if (state == layer.state()) continue;
      state = layer.state();
      Remark(fmt::format("  {}  {}\n", Name(layer), Words(layer)));
    }
  }

  const std::string image_;
  const bool quiet_;
  const bool terminal_;
  std::string stage_;
  std::chrono::steady_clock::time_point drawn_;
  int lines_ = 0;
  std::map<std::string, LayerProgress::State> states_;
};

/// The first line of standard input. What is on the command line every user of the node can read.
Result<std::string> ReadCredentials() {
  std::string line;
  if (!std::getline(std::cin, line) || line.empty()) {
    return InvalidArgument("--creds-stdin: no user:password on standard input");
  }
  return line;
}

Result<int> Pull(Client& client, const Shared& shared, const std::vector<std::string>& images,
                 std::string credentials, bool ask, bool quiet) {
  runtime::v1::AuthConfig auth;
  if (ask) credentials = CRISP_TRY(ReadCredentials());
  if (!credentials.empty()) {
    const std::size_t colon = credentials.find(':');
    if (colon == std::string::npos) return InvalidArgument("--creds takes user:password");
    auth.set_username(credentials.substr(0, colon));
    auth.set_password(credentials.substr(colon + 1));
  }
  for (const std::string& image : images) {
    const std::string id = CRISP_TRY(PullShown(client, image, auth, quiet || shared.json()));
    if (shared.json()) {
      runtime::v1::PullImageResponse answer;
      answer.set_image_ref(id);
      Print(ToJson(answer));
    } else {
      Print(id);
    }
  }
  return kDone;
}

Result<int> ListImages(Client& client, const Shared& shared, bool quiet) {
  const auto list = CRISP_TRY(client.ListImages());
  if (shared.json()) {
    Print(ToJson(list));
    return kDone;
  }
  if (quiet) {
    for (const auto& image : list.images()) Print(image.id());
    return kDone;
  }
  Table table({"IMAGE", "ID", "SIZE"});
  for (const auto& image : list.images()) {
    const std::string size = Size(image.size());
    if (image.repo_tags().empty()) {
      table.Add({image.repo_digests().empty() ? "<none>" : image.repo_digests(0),
                 ShortId(image.id()), size});
    }
    for (const std::string& tag : image.repo_tags()) table.Add({tag, ShortId(image.id()), size});
  }
  Print(table.Render());
  return kDone;
}

Status RemoveImage(Client& client, const std::string& image) {
  const auto status = client.ImageStatus(image);
  if (status.ok() && !status->has_image()) {
    return NotFound("no image '{}'", image);
  }
  return client.RemoveImage(image);
}

}  // namespace

Result<std::string> PullShown(Client& client, const std::string& image,
                              const runtime::v1::AuthConfig& auth, bool quiet) {
  PullDisplay display(image, quiet);
  return client.Pull(image, auth,
                     [&display](const imaged::v1::PullEvent& event) { display.Show(event); });
}

void AddImageCommands(CLI::App& app, Shared& shared) {
  struct Args {
    std::vector<std::string> images;
    std::string credentials;
    bool credentials_stdin = false;
    bool quiet = false;
  };
  auto pull_args = std::make_shared<Args>();
  CLI::App* pull = app.add_subcommand("pull", "Pull images, and show how far it is");
  pull->add_option("IMAGE", pull_args->images, "busybox, quay.io/org/app:1, name@sha256:...")
      ->required();
  CLI::Option* credentials =
      pull->add_option("--creds", pull_args->credentials,
                       "user:password for the registry; other users of the node can read it");
  pull->add_flag("--creds-stdin", pull_args->credentials_stdin,
                 "The same, read from standard input")
      ->excludes(credentials);
  pull->add_flag("-q,--quiet", pull_args->quiet, "Only the image's id");
  pull->callback([&shared, pull_args] {
    WithClient(shared, [&](Client& client) {
      return Pull(client, shared, pull_args->images, pull_args->credentials,
                  pull_args->credentials_stdin, pull_args->quiet);
    });
  });

  auto list_args = std::make_shared<Args>();
  CLI::App* list = app.add_subcommand("images", "The images on this node");
  list->add_flag("-q,--quiet", list_args->quiet, "Only ids");
  list->callback([&shared, list_args] {
    WithClient(shared,
               [&](Client& client) { return ListImages(client, shared, list_args->quiet); });
  });

  auto remove_args = std::make_shared<Args>();
  CLI::App* remove = app.add_subcommand("rmi", "Remove images, with all their names");
  remove->add_option("IMAGE", remove_args->images, "A name or an id")->required();
  remove->callback([&shared, remove_args] {
    WithClient(shared, [&](Client& client) -> Result<int> {
      return ForEach(shared, remove_args->images,
                     [&](const std::string& image) { return RemoveImage(client, image); });
    });
  });
}

}  // namespace crisp::ctl
