#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "crisp/daemon/v1/daemon.pb.h"
#include "libs/loop/loop.h"
#include "libs/rpc/peer.h"
#include "libs/work/pool.h"
#include "services/crid/core/backends.h"
#include "services/crid/core/view.h"

namespace crisp::crid {

struct PeersOptions {
  std::string run_root;  // <run_root>/{imaged,netd,rund}/<instance>.sock, rund/<instance>.records
  std::chrono::nanoseconds peer_wait = std::chrono::seconds(5);
  /// How long Status waits for daemons that are away, and for an answer of those that are not.
  std::chrono::nanoseconds status_wait = std::chrono::seconds(1);
  std::chrono::nanoseconds status_answer = std::chrono::seconds(3);
};

/// Finds the other daemons by their sockets, keeps a channel to each and a Watch stream to each
/// rund, which feeds the view. Sockets that appear take work at once. A rund is known, and waited
/// for, as long as it has a socket or the mark that it may have records: what a stopped one has is
/// not nobody's. Any thread.
class Peers final : public Backends {
 public:
  /// `on_change` runs (on the loop or a gRPC thread: it must not block) when a daemon has come
  /// (back): the time to reconcile.
  Peers(PeersOptions options, View& view, loop::Loop& loop, std::function<void()> on_change);
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;
  ~Peers() override;

  /// Looks at the directories and watches them from now on.
  Status Start();
  /// From now on nobody waits for a daemon that is away: we stop.
  void Close();

  std::vector<std::shared_ptr<Rund>> Runds() override;
  std::shared_ptr<Rund> RundOf(const std::string& instance) override;
  Netd& netd() override;
  Imaged& imaged() override;

  /// For raw passing on: the instance to use now (the first one that is there, else the first).
  rpc::Peer ImagedPeer() const;
  bool ImagedReady() const { return ImagedPeer().Ready(); }
  bool NetdReady() const;
  /// Nothing for an instance that is not known.
  std::optional<rpc::Peer> RundPeer(const std::string& instance) const;

  /// CRI StopContainer to a rund, without a thread while it waits. It goes on when the caller has
  /// left; `done` runs once, on any thread.
  void StopContainer(work::Pool& pool, const CallContext& cc, const std::string& instance,
                     const std::string& id, std::int64_t grace_seconds,
                     std::function<void(Result<rund::v1::StopContainerResponse>)> done);

  /// A raw unary call to a rund, on this thread.
  Result<grpc::ByteBuffer> CallRaw(const CallContext& cc, const std::string& instance,
                                   const std::string& method, const grpc::ByteBuffer& request,
                                   rpc::CallOptions options) const;
  /// The same to any peer.
  static Result<grpc::ByteBuffer> CallRaw(const CallContext& cc, const rpc::Peer& peer,
                                          const std::string& method,
                                          const grpc::ByteBuffer& request,
                                          rpc::CallOptions options);

  struct DaemonInfo {
    std::string name;  // "rund/1"
    Result<crisp::daemon::v1::InfoResponse> info;
  };
  /// What each daemon that we know says of itself.
  std::vector<DaemonInfo> Infos(const CallContext& cc) const;
  /// What a daemon ("netd/1") is at for this request, asked for a moment; "": nothing is known.
  std::string WordsOf(const std::string& name, const std::string& request_id) const;

 private:
  class Group;
  class RundClient;
  class StopAttempts;
  class NetdClient;
  class ImagedClient;

  /// What there is of a rund in the directory of its sockets.
  struct RundFiles {
    bool socket = false;
    bool records = false;
  };

  std::vector<rpc::Peer> All() const;
  void OnRundFile(const std::string& name, loop::DirEvent event);
  void AddRund(const std::string& instance);
  void ForgetRund(const std::string& instance);
  Status Watch(const std::string& service,
               const std::function<void(const std::string&, loop::DirEvent)>& handler);

  const PeersOptions options_;
  View& view_;
  loop::Loop& loop_;
  const std::function<void()> on_change_;
  std::stop_source closed_;
  std::shared_ptr<Group> imaged_group_;
  std::shared_ptr<Group> netd_group_;
  std::unique_ptr<NetdClient> netd_;
  std::unique_ptr<ImagedClient> imaged_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<RundClient>> runds_;
  std::map<std::string, RundFiles> rund_files_;
  std::vector<loop::DirWatch> watches_;
};

}  // namespace crisp::crid
