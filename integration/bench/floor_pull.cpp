#include "integration/bench/floor_pull.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "integration/bench/samples.h"
#include "libs/archive/decompress.h"
#include "libs/archive/tar.h"
#include "libs/base/try.h"
#include "libs/digest/digest.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"

namespace crisp::bench {
namespace {

using Json = nlohmann::json;
using Buffer = std::shared_ptr<std::vector<char>>;

constexpr std::size_t kBufferSize = 256 << 10;
constexpr std::size_t kQueueDepth = 32;

/// Buffers that come back by themselves: fresh memory for each would cost more than what is done
/// with it.
class BufferPool {
 public:
  Buffer Get() {
    std::unique_ptr<std::vector<char>> buffer;
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        buffer = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (buffer == nullptr) buffer = std::make_unique<std::vector<char>>();
    buffer->resize(kBufferSize);
    return {buffer.release(), [this](std::vector<char>* back) {
              const std::lock_guard lock(mutex_);
              free_.emplace_back(back);
            }};
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<std::vector<char>>> free_;
};

/// Buffers from one thread to another; null ends it.
class Queue {
 public:
  void Put(Buffer buffer) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return buffers_.size() < kQueueDepth; });
    buffers_.push_back(std::move(buffer));
    changed_.notify_all();
  }
  Buffer Take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !buffers_.empty(); });
    Buffer buffer = std::move(buffers_.front());
    if (buffer != nullptr) buffers_.pop_front();  // the end stays
    changed_.notify_all();
    return buffer;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Buffer> buffers_;
};

class QueueSource final : public archive::ChunkSource {
 public:
  explicit QueueSource(Queue& queue) : queue_(queue) {}
  Result<std::string_view> Next() override {
    current_ = queue_.Take();
    return current_ == nullptr ? std::string_view()
                               : std::string_view(current_->data(), current_->size());
  }

 private:
  Queue& queue_;
  Buffer current_;
};

/// One GET over a connection of its own.
class Get {
 public:
  static Result<std::unique_ptr<Get>> Open(const std::string& host_port, const std::string& path,
                                           const std::string& accept) {
    auto get = std::make_unique<Get>();
    get->fd_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    const std::size_t colon = host_port.find(':');
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(host_port.substr(colon + 1))));
    if (::inet_pton(AF_INET, host_port.substr(0, colon).c_str(), &address.sin_addr) != 1) {
      return InvalidArgument("{}: not an IPv4 address with a port", host_port);
    }
    const auto* generic = static_cast<const sockaddr*>(static_cast<const void*>(&address));
    if (::connect(get->fd_.get(), generic, sizeof address) != 0) {
      return Status::Errno(errno, "connect {}", host_port);
    }
    const std::string request =
        fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nAccept: {}\r\nConnection: close\r\n\r\n", path,
                    host_port, accept);
    CRISP_TRY(os::WriteAll(get->fd_.get(), request, host_port));
    std::string& head = get->rest_;
    while (head.find("\r\n\r\n") == std::string::npos) {
      char buffer[4096];
      const ssize_t got = ::read(get->fd_.get(), buffer, sizeof buffer);
      if (got <= 0) return Unavailable("{}: no answer", host_port);
      head.append(buffer, static_cast<std::size_t>(got));
    }
    if (!head.starts_with("HTTP/1.1 200")) return Unavailable("{}: {}", path, head.substr(0, 40));
    head.erase(0, head.find("\r\n\r\n") + 4);
    return get;
  }

  /// Fills as much as there is; 0 at the end.
  Result<std::size_t> Read(char* into, std::size_t size) {
    std::size_t filled = std::min(size, rest_.size());
    std::copy_n(rest_.data(), filled, into);
    rest_.erase(0, filled);
    while (filled < size) {
      const ssize_t got = ::read(fd_.get(), into + filled, size - filled);
      if (got < 0) return Status::Errno(errno, "read from the registry");
      if (got == 0) break;
      filled += static_cast<std::size_t>(got);
    }
    return filled;
  }
  Result<std::string> ReadAll() {
    std::string text;
    std::vector<char> buffer(kBufferSize);
    for (;;) {
      const std::size_t got = CRISP_TRY(Read(buffer.data(), buffer.size()));
      if (got == 0) return text;
      text.append(buffer.data(), got);
    }
  }

 private:
  os::UniqueFd fd_;
  std::string rest_;
};

Status Extract(archive::ChunkSource& source, const std::string& directory) {
  archive::TarReader tar(source);
  const os::UniqueFd root = CRISP_TRY(os::Open(directory, O_DIRECTORY | O_RDONLY));
  archive::TarEntry entry;
  while (CRISP_TRY(tar.Next(entry))) {
    const char* path = entry.path.c_str();
    const timespec times[2] = {{entry.mtime_seconds, 0}, {entry.mtime_seconds, 0}};
    if (entry.type == archive::EntryType::kDirectory) {
      if (::mkdirat(root.get(), path, entry.mode) != 0 && errno != EEXIST) {
        return Status::Errno(errno, "mkdir {}", path);
      }
    } else if (entry.type == archive::EntryType::kFile) {
      const os::UniqueFd file(::openat(
          root.get(), path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, entry.mode));
      if (!file) return Status::Errno(errno, "create {}", path);
      for (;;) {
        const std::string_view piece = CRISP_TRY(tar.Data());
        if (piece.empty()) break;
        CRISP_TRY(os::WriteAll(file.get(), piece, path));
      }
      ::futimens(file.get(), times);
    } else if (entry.type == archive::EntryType::kHardLink) {
      if (::linkat(root.get(), entry.link.c_str(), root.get(), path, 0) != 0) {
        return Status::Errno(errno, "link {}", path);
      }
    } else if (entry.type == archive::EntryType::kSymlink) {
      if (::symlinkat(entry.link.c_str(), root.get(), path) != 0) {
        return Status::Errno(errno, "symlink {}", path);
      }
    }
  }
  return tar.Drain();
}

/// One layer; the tar bytes that it had.
Result<std::uint64_t> PullLayer(const std::string& host, const std::string& path,
                                const std::string& digest, const std::string& diff_id,
                                archive::Compression compression, const std::string& directory) {
  CRISP_TRY(os::MakeDirs(directory));
  const std::unique_ptr<Get> get = CRISP_TRY(Get::Open(host, path + "/blobs/" + digest, "*/*"));
  BufferPool pool;  // before the queues: buffers in them come back to it
  Queue compressed;
  Queue to_digest;
  Queue to_extract;
  std::string compressed_digest;
  std::string tar_digest;
  std::uint64_t tar_bytes = 0;
  Status received;
  Status inflated;
  Status extracted;

  std::thread receive([&] {
    digest::Sha256 sha;
    for (;;) {
      Buffer buffer = pool.Get();
      const Result<std::size_t> got = get->Read(buffer->data(), buffer->size());
      if (!got.ok()) received = got.status();
      if (!got.ok() || *got == 0) break;
      buffer->resize(*got);
      sha.Update(std::string_view(buffer->data(), buffer->size()));
      compressed.Put(std::move(buffer));
    }
    compressed.Put(nullptr);
    compressed_digest = sha.Hex();
  });
  std::thread inflate([&] {
    QueueSource source(compressed);
    const auto decompressor = archive::MakeDecompressor(compression, source);
    for (;;) {
      Buffer buffer = pool.Get();
      const Result<std::size_t> got = decompressor->Read(*buffer);
      if (!got.ok()) inflated = got.status();
      if (!got.ok() || *got == 0) break;
      buffer->resize(*got);
      tar_bytes += *got;
      to_digest.Put(buffer);
      to_extract.Put(std::move(buffer));
    }
    to_digest.Put(nullptr);
    to_extract.Put(nullptr);
    while (compressed.Take() != nullptr) {
    }  // after an error: let the receiver end
  });
  std::thread hash([&] {
    digest::Sha256 sha;
    QueueSource source(to_digest);
    for (;;) {
      const std::string_view piece = source.Next().value_or({});
      if (piece.empty()) break;
      sha.Update(piece);
    }
    tar_digest = sha.Hex();
  });
  QueueSource source(to_extract);
  extracted = Extract(source, directory);
  while (to_extract.Take() != nullptr) {
  }
  receive.join();
  inflate.join();
  hash.join();
  CRISP_TRY(received);
  CRISP_TRY(inflated);
  CRISP_TRY(extracted);
  if ("sha256:" + compressed_digest != digest) return DataLoss("{}: wrong digest", digest);
  if ("sha256:" + tar_digest != diff_id) return DataLoss("{}: wrong diff id", digest);
  return tar_bytes;
}

Result<Json> GetJson(const std::string& host, const std::string& path) {
  const auto get = CRISP_TRY(Get::Open(
      host, path,
      "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
      "application/vnd.docker.distribution.manifest.v2+json, "
      "application/vnd.docker.distribution.manifest.list.v2+json"));
  const std::string text = CRISP_TRY(get->ReadAll());
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return DataLoss("{}: not JSON", path);
  return json;
}

archive::Compression CompressionOf(const std::string& media_type) {
  if (media_type.ends_with("gzip")) return archive::Compression::kGzip;
  if (media_type.ends_with("zstd")) return archive::Compression::kZstd;
  return archive::Compression::kNone;
}

}  // namespace

Result<Pulled> PullByItself(const std::string& reference, const std::string& directory,
                            int parallel) {
  const std::size_t slash = reference.find('/');
  const std::size_t colon = reference.rfind(':');
  if (slash == std::string::npos || colon < slash)
    return InvalidArgument("{}: HOST:PORT/REPO:TAG", reference);
  const std::string host = reference.substr(0, slash);
  const std::string path = "/v2/" + reference.substr(slash + 1, colon - slash - 1);
  const auto start = std::chrono::steady_clock::now();
  const Json manifest =
      CRISP_TRY(GetJson(host, path + "/manifests/" + reference.substr(colon + 1)));
  const Json config =
      CRISP_TRY(GetJson(host, path + "/blobs/" + manifest["config"]["digest"].get<std::string>()));
  const Json& layers = manifest["layers"];
  const Json& diff_ids = config["rootfs"]["diff_ids"];
  Pulled pulled;
  std::mutex mutex;
  Status failed;
  InParallel(static_cast<int>(layers.size()), parallel, [&](int number) {
    const auto index = static_cast<std::size_t>(number);
    const Result<std::uint64_t> bytes = PullLayer(
        host, path, layers[index]["digest"], diff_ids[index],
        CompressionOf(layers[index]["mediaType"]), fmt::format("{}/{}", directory, number));
    const std::lock_guard lock(mutex);
    if (!bytes.ok()) {
      failed = bytes.status();
      return;
    }
    pulled.tar_mb += static_cast<double>(*bytes) / 1e6;
    pulled.compressed_mb += layers[index]["size"].get<double>() / 1e6;
  });
  CRISP_TRY(failed);
  pulled.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return pulled;
}

}  // namespace crisp::bench
