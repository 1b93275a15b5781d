#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/status.h"
#include "libs/loop/loop.h"
#include "libs/work/pool.h"
#include "services/rund/streaming/backend.h"
#include "services/rund/streaming/descriptor.h"
#include "services/rund/streaming/outlet.h"
#include "services/rund/streaming/target.h"

namespace crisp::rund::streaming {

/// All attaches of one container, over one connection to its monitor.
///
/// conmon makes that necessary. It writes to its clients one after the other and waits for each,
/// and the container, its log and the other clients wait with it: so this is always read, whoever
/// of ours takes it or not. To conmon the end of any connection, also of one that only listens, is
/// the end of stdin for a container with stdin_once; here it is the end of the first client's that
/// has a stdin. And each connection that has gone costs conmon a descriptor until the container
/// writes something: so this one stays when the last client leaves, and goes when the container
/// writes and nobody is there. With stdin_once it never goes before the container does. (When this
/// process goes, it does: such a container's stdin ends with the rund that somebody was attached
/// by.)
///
/// Streaming thread only. Owned by Share::hubs and by its clients; gone from there once it is over.
class AttachHub final : public std::enable_shared_from_this<AttachHub> {
 public:
  struct Times {
    /// In all, how long the container may be slowed down for clients that are behind, so that they
    /// miss nothing of a burst. What was used of it comes back thirty times slower.
    std::chrono::nanoseconds patience = std::chrono::seconds(1);
    /// After the end of a client's stdin: whoever still answers to it within this is heard.
    std::chrono::nanoseconds quiet = std::chrono::milliseconds(500);
  };
  /// What all of them share; outlives them.
  struct Share {
    loop::Loop& loop;
    work::Pool& pool;
    const Backend& backend;
    Times times = {};
    Outlet::Share outlets = {};
    std::map<std::string, std::shared_ptr<AttachHub>> hubs = {};  // by container
  };

  /// One attach.
  class Client {
   public:
    virtual ~Client() = default;
    /// Now it may Write().
    virtual void OnAttached() = 0;
    virtual void OnOutput(bool is_stderr, Packet& packet) = 0;
    /// Write() takes input again.
    virtual void OnInputRoom() = 0;
    /// It will miss something should more come now.
    virtual bool behind() const = 0;
    /// Ok: the container has ended. The last call.
    virtual void OnEnd(const Status& why) = 0;
  };

  /// The container's, made when there is none.
  static std::shared_ptr<AttachHub> Of(Share& share, const std::string& container_id);
  AttachHub(const AttachHub&) = delete;
  AttachHub& operator=(const AttachHub&) = delete;

  /// OnAttached or OnEnd follows, perhaps at once.
  void Join(const std::shared_ptr<Client>& client);
  void Leave(const Client& client);
  /// Null until it is attached.
  const AttachedContainer* container() const { return container_ ? &*container_ : nullptr; }
  /// How much of the input the container's stdin has taken; 0: OnInputRoom follows.
  std::size_t Write(std::string_view input);
  /// A client's stdin has ended, or such a client has gone. Of a container with stdin_once it was
  /// the last input.
  void EndInput();
  void Resize(TerminalSize size);
  /// A client has taken some of what waited for it.
  void OnTaken();

 private:
  AttachHub(Share& share, std::string container_id)
      : share_(share),
        id_(std::move(container_id)),
        patience_left_(share.times.patience),
        patience_since_(std::chrono::steady_clock::now()) {}
  void Connect();
  void OnConnected(Result<AttachedContainer> made);
  void Read();
  void ReadLater();
  void AwaitOutput();
  void Spread(bool is_stderr, std::string_view bytes);
  bool SomebodyIsBehind() const;
  bool BeginPause();
  void EndPause();
  void OnPauseEnd();
  void ApplySize();
  void End(const Status& why);
  std::vector<std::shared_ptr<Client>> Clients() const;

  Share& share_;
  const std::string id_;
  std::vector<std::weak_ptr<Client>> clients_;
  std::optional<AttachedContainer> container_;  // its socket has moved to:
  DescriptorPtr socket_;
  std::optional<TerminalSize> size_;
  loop::Timer pause_;
  std::chrono::nanoseconds patience_left_;
  SteadyTime patience_since_;
  bool connecting_ = false;
  bool reading_later_ = false;
  bool turn_ = false;  // a pause is over: one packet is read whoever is behind
  bool awaiting_room_ = false;
  bool input_over_ = false;
  bool over_ = false;
};

}  // namespace crisp::rund::streaming
