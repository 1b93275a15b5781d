#include "services/rund/streaming/attach_hub.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace crisp::rund::streaming {
namespace {

using std::chrono::steady_clock;

// conmon's: a tag, and at most 8192 bytes.
constexpr std::size_t kMaxPacket = 8193;
constexpr char kStdout = 2;
constexpr char kStderr = 3;
// Well below what conmon reads of a packet (32 KiB; the rest would be lost).
constexpr std::size_t kMaxInput = std::size_t{16} << 10U;
constexpr int kPacketsAtOnce = 64;
// Between two packets while somebody is behind: conmon serves its log and its orders in between.
constexpr std::chrono::milliseconds kPause{2};
// What was used of the patience comes back so much slower.
constexpr int kRefill = 30;
constexpr std::chrono::seconds kConnectTime{60};

}  // namespace

std::shared_ptr<AttachHub> AttachHub::Of(Share& share, const std::string& container_id) {
  std::shared_ptr<AttachHub>& hub = share.hubs[container_id];
  // NOLINTNEXTLINE(cppcoreguidelines-owning-memory): its constructor is private
  if (!hub) hub.reset(new AttachHub(share, container_id));
  return hub;
}

std::vector<std::shared_ptr<AttachHub::Client>> AttachHub::Clients() const {
  std::vector<std::shared_ptr<Client>> clients;
  for (const std::weak_ptr<Client>& weak : clients_) {
    if (auto client = weak.lock()) clients.push_back(std::move(client));
  }
  return clients;
}

void AttachHub::Join(const std::shared_ptr<Client>& client) {
  clients_.push_back(client);
  if (container_) return client->OnAttached();
  if (!std::exchange(connecting_, true)) Connect();
}

void AttachHub::Leave(const Client& client) {
  // Those that have gone without a word too.
  std::erase_if(clients_, [&client](const std::weak_ptr<Client>& weak) {
    const auto other = weak.lock();
    return !other || other.get() == &client;
  });
  OnTaken();
}

void AttachHub::Connect() {
  const auto cc = CallContext::Background(kConnectTime, "attach");
  // The last one to hold the hub is the loop.
  const auto tell = [](std::shared_ptr<AttachHub> self, Result<AttachedContainer> made) {
    loop::Loop& loop = self->share_.loop;
    auto kept = std::make_shared<Result<AttachedContainer>>(std::move(made));
    loop.Post([self = std::move(self), kept] { self->OnConnected(std::move(*kept)); });
  };
  const Status submitted = share_.pool.Submit(
      work::Lane::kStream, cc,
      [self = shared_from_this(), cc, tell]() mutable {
        auto made = self->share_.backend.attach(cc, self->id_);
        tell(std::move(self), std::move(made));
      },
      [self = shared_from_this(), tell](const Status& why) mutable { tell(std::move(self), why); });
  if (!submitted.ok()) tell(shared_from_this(), submitted);
}

void AttachHub::OnConnected(Result<AttachedContainer> made) {
  if (over_) return;
  if (!made.ok()) return End(made.status());
  container_ = *std::move(made);
  socket_ = std::make_shared<Descriptor>(share_.loop, std::move(container_->socket));
  ApplySize();
  for (const auto& client : Clients()) client->OnAttached();
  Read();
}

bool AttachHub::SomebodyIsBehind() const {
  return std::any_of(clients_.begin(), clients_.end(), [](const std::weak_ptr<Client>& weak) {
    const auto client = weak.lock();
    return client && client->behind();
  });
}

void AttachHub::Read() {
  if (!socket_ || reading_later_ || pause_) return;
  const auto self = shared_from_this();
  std::array<char, kMaxPacket> packet;
  for (int i = 0; i < kPacketsAtOnce; ++i) {
    if (!std::exchange(turn_, false) && SomebodyIsBehind() && BeginPause()) return;
    const ssize_t n = recv(socket_->fd(), packet.data(), packet.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return AwaitOutput();
    // The monitor ends its side; with our input unread it says ECONNRESET.
    if (n <= 0) return End(Status::Ok());
    if (packet[0] != kStdout && packet[0] != kStderr) continue;
    Spread(packet[0] == kStderr, {packet.data() + 1, static_cast<std::size_t>(n) - 1});
    if (over_) return;
  }
  ReadLater();
}

void AttachHub::ReadLater() {
  reading_later_ = true;
  share_.loop.Post([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->reading_later_ = false;
    self->Read();
  });
}

void AttachHub::AwaitOutput() {
  reading_later_ = true;
  socket_->WhenReadable([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->reading_later_ = false;
    self->Read();
  });
}

void AttachHub::Spread(bool is_stderr, std::string_view bytes) {
  Packet packet(bytes);
  const auto clients = Clients();
  for (const auto& client : clients) client->OnOutput(is_stderr, packet);
  // The monitor finds out when it writes next, and frees what it has kept for us.
  const bool keep = container_->takes_stdin && container_->stdin_once;
  if (clients.empty() && !keep) End(Status::Ok());
}

bool AttachHub::BeginPause() {
  const SteadyTime now = steady_clock::now();
  patience_left_ =
      std::min(share_.times.patience, patience_left_ + (now - patience_since_) / kRefill);
  patience_since_ = now;
  if (patience_left_ < kPause) return false;
  pause_ = share_.loop.After(kPause, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnPauseEnd();
  });
  return true;
}

void AttachHub::EndPause() {
  pause_ = {};
  const SteadyTime now = steady_clock::now();
  patience_left_ -= std::min(patience_left_, now - patience_since_);
  patience_since_ = now;
}

void AttachHub::OnPauseEnd() {
  EndPause();
  turn_ = true;
  Read();
}

void AttachHub::OnTaken() {
  if (!pause_ || SomebodyIsBehind()) return;
  EndPause();
  // Not here: whoever has taken it is in the middle of that.
  ReadLater();
}

std::size_t AttachHub::Write(std::string_view input) {
  // Nobody takes it; the container's end comes by the other direction.
  if (!socket_ || !container_->takes_stdin || input_over_) return input.size();
  ssize_t n = 0;
  do {
    n = send(socket_->fd(), input.data(), std::min(input.size(), kMaxInput),
             MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return static_cast<std::size_t>(n);
  if (errno != EAGAIN) return input.size();
  if (std::exchange(awaiting_room_, true)) return 0;
  socket_->WhenWritable([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->awaiting_room_ = false;
    const auto clients = self->Clients();
    // The next time somebody else is first.
    if (!self->clients_.empty()) {
      std::rotate(self->clients_.begin(), self->clients_.begin() + 1, self->clients_.end());
    }
    for (const auto& client : clients) client->OnInputRoom();
  });
  return 0;
}

void AttachHub::EndInput() {
  if (!socket_ || !container_->takes_stdin || !container_->stdin_once) return;
  if (std::exchange(input_over_, true)) return;
  shutdown(socket_->fd(), SHUT_WR);
  // What others have for it goes nowhere.
  for (const auto& client : Clients()) client->OnInputRoom();
}

void AttachHub::Resize(TerminalSize size) {
  size_ = size;
  ApplySize();
}

void AttachHub::ApplySize() {
  if (!socket_ || !container_->tty || !size_) return;
  const std::string line = fmt::format("1 {} {}\n", size_->height, size_->width);
  // A fifo takes so short a line whole or not at all; the next size comes with the next change.
  static_cast<void>(write(container_->control.get(), line.data(), line.size()) > 0);
}

void AttachHub::End(const Status& why) {
  if (std::exchange(over_, true)) return;
  const auto self = shared_from_this();
  if (socket_) socket_->Close();
  socket_ = nullptr;
  pause_ = {};
  share_.hubs.erase(id_);
  const auto clients = Clients();
  clients_.clear();
  for (const auto& client : clients) client->OnEnd(why);
}

}  // namespace crisp::rund::streaming
