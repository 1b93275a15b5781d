#pragma once

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cri/v1/api.grpc.pb.h"
#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "crisp/imaged/v1/imaged.grpc.pb.h"
#include "crisp/netd/v1/netd.grpc.pb.h"
#include "crisp/rund/v1/rund.grpc.pb.h"
#include "crisp/rund/v1/stats.grpc.pb.h"
#include "libs/base/ids.h"

// Daemons that answer as a test tells them, over real sockets. `calls` is the order of what was
// asked of all three; a hook by method name answers in place of the daemon when it returns an
// error, or holds it up.
namespace crisp::crid::fake {

struct Script {
  using Hook = std::function<grpc::Status(grpc::ServerContext&)>;

  grpc::Status Enter(const std::string& method, grpc::ServerContext& context) {
    Hook hook;
    {
      std::lock_guard lock(mutex);
      calls.push_back(method);
      if (auto found = hooks.find(method); found != hooks.end()) hook = found->second;
    }
    changed.notify_all();
    return hook ? hook(context) : grpc::Status::OK;
  }
  void On(const std::string& method, Hook hook) {
    std::lock_guard lock(mutex);
    hooks[method] = std::move(hook);
  }
  void Fail(const std::string& method, grpc::StatusCode code, const std::string& message) {
    On(method, [code, message](grpc::ServerContext&) { return grpc::Status(code, message); });
  }
  std::vector<std::string> Calls() {
    std::lock_guard lock(mutex);
    return calls;
  }
  int Count(const std::string& method) {
    std::lock_guard lock(mutex);
    return static_cast<int>(std::count(calls.begin(), calls.end(), method));
  }
  /// Waits (at most 10 s) until the method was called that often.
  bool WaitFor(const std::string& method, int times = 1) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(10), [&] {
      return std::count(calls.begin(), calls.end(), method) >= times;
    });
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> calls;
  std::map<std::string, Hook> hooks;
};

/// Holds a method until it is opened.
class Gate {
 public:
  Script::Hook Hook() {
    return [this](grpc::ServerContext&) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::seconds(20), [this] { return open_; });
      return grpc::Status::OK;
    };
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

class About final : public daemon::v1::Daemon::Service {
  grpc::Status Info(grpc::ServerContext*, const daemon::v1::InfoRequest*,
                    daemon::v1::InfoResponse* out) override {
    out->set_version("0.1.0");
    return grpc::Status::OK;
  }
};

/// A gRPC server on a unix socket that can be started again after a Stop.
class Listener {
 public:
  void Start(const std::string& socket, std::initializer_list<grpc::Service*> services) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    for (grpc::Service* service : services) builder.RegisterService(service);
    server_ = builder.BuildAndStart();
  }
  void Stop() {
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
    server_ = nullptr;
  }

 private:
  std::unique_ptr<grpc::Server> server_;
};

/// rund's records, kept over restarts of its server.
class Rund {
 public:
  explicit Rund(Script& script)
      : script_(script),
        pods_(*this),
        containers_(*this),
        records_(*this),
        node_(*this),
        stats_(*this) {}

  void Start(const std::string& socket) {
    {
      std::lock_guard lock(mutex_);
      stopping_ = false;
    }
    listener_.Start(socket, {&pods_, &containers_, &records_, &node_, &stats_, &info_});
  }
  void Stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    listener_.Stop();
  }
  ~Rund() { Stop(); }

  std::size_t pod_count() {
    std::lock_guard lock(mutex_);
    return pod_table_.size();
  }
  /// Of the last CreateContainer.
  runtime::v1::ContainerConfig last_config() {
    std::lock_guard lock(mutex_);
    return last_config_;
  }
  std::size_t container_count() {
    std::lock_guard lock(mutex_);
    return container_table_.size();
  }

 private:
  std::uint64_t PutPod(rund::v1::PodEntry entry) {
    runtime::v1::PodSandbox item;
    item.set_id(entry.id());
    *item.mutable_metadata() = entry.metadata();
    item.set_state(entry.phase() == rund::v1::LIVE ? runtime::v1::SANDBOX_READY
                                                   : runtime::v1::SANDBOX_NOTREADY);
    if (entry.phase() == rund::v1::LIVE || entry.phase() == rund::v1::STOPPED) {
      entry.set_list_item(item.SerializeAsString());
    }
    rund::v1::WatchEvent event;
    *event.add_pods() = entry;
    pod_table_[entry.id()] = std::move(entry);
    return Tell(std::move(event));
  }
  std::uint64_t PutContainer(rund::v1::ContainerEntry entry, runtime::v1::ContainerState state) {
    runtime::v1::Container item;
    item.set_id(entry.id());
    item.set_pod_sandbox_id(entry.pod_id());
    *item.mutable_metadata() = entry.metadata();
    item.set_state(state);
    if (entry.phase() == rund::v1::LIVE) entry.set_list_item(item.SerializeAsString());
    rund::v1::WatchEvent event;
    *event.add_containers() = entry;
    container_table_[entry.id()] = std::move(entry);
    return Tell(std::move(event));
  }
  std::uint64_t Tell(rund::v1::WatchEvent event) {
    event.set_seq(++seq_);
    events_.push_back(std::move(event));
    changed_.notify_all();
    return seq_;
  }

  class Pods final : public rund::v1::Pods::Service {
   public:
    explicit Pods(Rund& owner) : o_(owner) {}
    grpc::Status ReservePod(grpc::ServerContext* c, const rund::v1::ReservePodRequest* r,
                            rund::v1::ReservePodResponse* out) override {
      if (auto s = o_.script_.Enter("ReservePod", *c); !s.ok()) return s;
      std::lock_guard lock(o_.mutex_);
      for (const auto& [id, pod] : o_.pod_table_) {
        if (pod.metadata().SerializeAsString() != r->metadata().SerializeAsString()) continue;
        out->set_pod_id(id);
        out->set_phase(pod.phase());
        out->set_seq(o_.seq_);
        return grpc::Status::OK;
      }
      rund::v1::PodEntry entry;
      entry.set_id(r->pod_id());
      entry.set_phase(rund::v1::RESERVED);
      *entry.mutable_metadata() = r->metadata();
      out->set_pod_id(r->pod_id());
      out->set_phase(rund::v1::RESERVED);
      out->set_seq(o_.PutPod(std::move(entry)));
      return grpc::Status::OK;
    }
    grpc::Status PreparePod(grpc::ServerContext* c, const rund::v1::PreparePodRequest* r,
                            rund::v1::PreparePodResponse* out) override {
      const auto& options = r->config().linux().security_context().namespace_options();
      if (options.userns_options().uids_size() > 0) out->set_userns_path("/run/userns");
      return o_.script_.Enter("PreparePod", *c);
    }
    grpc::Status StartPod(grpc::ServerContext* c, const rund::v1::StartPodRequest* r,
                          rund::v1::StartPodResponse* out) override {
      if (auto s = o_.script_.Enter("StartPod", *c); !s.ok()) return s;
      return Phase(r->pod_id(), rund::v1::LIVE, *out);
    }
    grpc::Status StopPod(grpc::ServerContext* c, const rund::v1::StopPodRequest* r,
                         rund::v1::StopPodResponse* out) override {
      if (auto s = o_.script_.Enter("StopPod", *c); !s.ok()) return s;
      return Phase(r->pod_id(), rund::v1::STOPPED, *out);
    }
    grpc::Status RemovePod(grpc::ServerContext* c, const rund::v1::RemovePodRequest* r,
                           rund::v1::RemovePodResponse* out) override {
      if (auto s = o_.script_.Enter("RemovePod", *c); !s.ok()) return s;
      std::lock_guard lock(o_.mutex_);
      const auto pod = o_.pod_table_.find(r->pod_id());
      if (r->if_half_made() && pod != o_.pod_table_.end() &&
          pod->second.phase() == rund::v1::LIVE) {
        return {grpc::StatusCode::ABORTED, "it runs"};
      }
      rund::v1::WatchEvent event;
      o_.pod_table_.erase(r->pod_id());
      event.add_removed_pod_ids(r->pod_id());
      for (auto at = o_.container_table_.begin(); at != o_.container_table_.end();) {
        if (at->second.pod_id() != r->pod_id()) {
          ++at;
          continue;
        }
        out->add_container_ids(at->first);
        event.add_removed_container_ids(at->first);
        at = o_.container_table_.erase(at);
      }
      out->set_seq(o_.Tell(std::move(event)));
      return grpc::Status::OK;
    }
    grpc::Status PodStatus(grpc::ServerContext* c, const runtime::v1::PodSandboxStatusRequest* r,
                           runtime::v1::PodSandboxStatusResponse* out) override {
      if (auto s = o_.script_.Enter("PodStatus", *c); !s.ok()) return s;
      out->mutable_status()->set_id(r->pod_sandbox_id());
      return grpc::Status::OK;
    }

   private:
    template <typename Response>
    grpc::Status Phase(const std::string& id, rund::v1::Phase phase, Response& out) {
      std::lock_guard lock(o_.mutex_);
      auto found = o_.pod_table_.find(id);
      if (found == o_.pod_table_.end()) return {grpc::StatusCode::NOT_FOUND, "no pod"};
      rund::v1::PodEntry entry = found->second;
      entry.set_phase(phase);
      out.set_seq(o_.PutPod(std::move(entry)));
      return grpc::Status::OK;
    }
    Rund& o_;
  };

  class Containers final : public rund::v1::Containers::Service {
   public:
    explicit Containers(Rund& owner) : o_(owner) {}
    grpc::Status ReserveContainer(grpc::ServerContext* c,
                                  const rund::v1::ReserveContainerRequest* r,
                                  rund::v1::ReserveContainerResponse* out) override {
      if (auto s = o_.script_.Enter("ReserveContainer", *c); !s.ok()) return s;
      std::lock_guard lock(o_.mutex_);
      for (const auto& [id, container] : o_.container_table_) {
        if (container.pod_id() != r->pod_id() ||
            container.metadata().SerializeAsString() != r->metadata().SerializeAsString()) {
          continue;
        }
        out->set_container_id(id);
        out->set_phase(container.phase());
        out->set_seq(o_.seq_);
        return grpc::Status::OK;
      }
      rund::v1::ContainerEntry entry;
      entry.set_id(r->container_id());
      entry.set_pod_id(r->pod_id());
      entry.set_phase(rund::v1::RESERVED);
      *entry.mutable_metadata() = r->metadata();
      out->set_container_id(r->container_id());
      out->set_phase(rund::v1::RESERVED);
      out->set_seq(o_.PutContainer(std::move(entry), runtime::v1::CONTAINER_CREATED));
      return grpc::Status::OK;
    }
    grpc::Status CreateContainer(grpc::ServerContext* c, const rund::v1::CreateContainerRequest* r,
                                 rund::v1::CreateContainerResponse* out) override {
      if (r->restore()) o_.script_.Enter("restores", *c);
      if (auto s = o_.script_.Enter("CreateContainer", *c); !s.ok()) return s;
      {
        std::lock_guard lock(o_.mutex_);
        o_.last_config_ = r->config();
      }
      return State(r->container_id(), runtime::v1::CONTAINER_CREATED, *out);
    }
    grpc::Status StageCheckpoint(grpc::ServerContext* c, const rund::v1::StageCheckpointRequest* r,
                                 rund::v1::StageCheckpointResponse* out) override {
      out->set_image_id("base id");
      out->set_image_name("base:1");
      return o_.script_.Enter("stage " + (r->has_archive() ? r->archive() : r->image().image_id()),
                              *c);
    }
    grpc::Status CheckpointContainer(grpc::ServerContext* c,
                                     const runtime::v1::CheckpointContainerRequest* r,
                                     runtime::v1::CheckpointContainerResponse*) override {
      return o_.script_.Enter("checkpoint " + r->container_id() + " to " + r->location(), *c);
    }
    grpc::Status StartContainer(grpc::ServerContext* c, const rund::v1::StartContainerRequest* r,
                                rund::v1::StartContainerResponse* out) override {
      if (auto s = o_.script_.Enter("StartContainer", *c); !s.ok()) return s;
      return State(r->container_id(), runtime::v1::CONTAINER_RUNNING, *out);
    }
    grpc::Status StopContainer(grpc::ServerContext* c, const rund::v1::StopContainerRequest* r,
                               rund::v1::StopContainerResponse* out) override {
      if (auto s = o_.script_.Enter("StopContainer", *c); !s.ok()) return s;
      if (c->IsCancelled()) return {grpc::StatusCode::CANCELLED, "cancelled"};
      const auto answer = State(r->container_id(), runtime::v1::CONTAINER_EXITED, *out);
      o_.script_.Enter("stopped", *c);
      return answer;
    }
    grpc::Status UpdateContainerResources(grpc::ServerContext* c,
                                          const runtime::v1::UpdateContainerResourcesRequest* r,
                                          runtime::v1::UpdateContainerResourcesResponse*) override {
      return o_.script_.Enter("update " + r->container_id(), *c);
    }
    grpc::Status RemoveContainer(grpc::ServerContext* c, const rund::v1::RemoveContainerRequest* r,
                                 rund::v1::RemoveContainerResponse* out) override {
      if (auto s = o_.script_.Enter("RemoveContainer", *c); !s.ok()) return s;
      std::lock_guard lock(o_.mutex_);
      o_.container_table_.erase(r->container_id());
      rund::v1::WatchEvent event;
      event.add_removed_container_ids(r->container_id());
      out->set_seq(o_.Tell(std::move(event)));
      return grpc::Status::OK;
    }
    grpc::Status ContainerStatus(grpc::ServerContext* c,
                                 const runtime::v1::ContainerStatusRequest* r,
                                 runtime::v1::ContainerStatusResponse* out) override {
      if (auto s = o_.script_.Enter("ContainerStatus", *c); !s.ok()) return s;
      out->mutable_status()->set_id(r->container_id());
      return grpc::Status::OK;
    }

   private:
    template <typename Response>
    grpc::Status State(const std::string& id, runtime::v1::ContainerState state, Response& out) {
      std::lock_guard lock(o_.mutex_);
      auto found = o_.container_table_.find(id);
      if (found == o_.container_table_.end()) return {grpc::StatusCode::NOT_FOUND, "no container"};
      rund::v1::ContainerEntry entry = found->second;
      entry.set_phase(rund::v1::LIVE);
      out.set_seq(o_.PutContainer(std::move(entry), state));
      return grpc::Status::OK;
    }
    Rund& o_;
  };

  class Records final : public rund::v1::Records::Service {
   public:
    explicit Records(Rund& owner) : o_(owner) {}
    grpc::Status Watch(grpc::ServerContext* context, const rund::v1::WatchRequest*,
                       grpc::ServerWriter<rund::v1::WatchEvent>* writer) override {
      std::unique_lock lock(o_.mutex_);
      rund::v1::WatchEvent snapshot;
      snapshot.set_snapshot(true);
      snapshot.set_seq(o_.seq_);
      for (const auto& [id, pod] : o_.pod_table_) *snapshot.add_pods() = pod;
      for (const auto& [id, container] : o_.container_table_) {
        *snapshot.add_containers() = container;
      }
      std::size_t next = o_.events_.size();
      lock.unlock();
      writer->Write(snapshot);
      lock.lock();
      while (!o_.stopping_ && !context->IsCancelled()) {
        if (next == o_.events_.size()) {
          o_.changed_.wait_for(lock, std::chrono::milliseconds(20));
          continue;
        }
        const rund::v1::WatchEvent event = o_.events_[next++];
        lock.unlock();
        writer->Write(event);
        lock.lock();
      }
      return grpc::Status::OK;
    }

   private:
    Rund& o_;
  };

  class Node final : public rund::v1::Node::Service {
   public:
    explicit Node(Rund& owner) : o_(owner) {}
    grpc::Status NodeStatus(grpc::ServerContext* c, const rund::v1::NodeStatusRequest*,
                            rund::v1::NodeStatusResponse* out) override {
      if (auto s = o_.script_.Enter("NodeStatus", *c); !s.ok()) return s;
      out->add_handlers();
      out->set_cgroup_driver(runtime::v1::CGROUPFS);
      return grpc::Status::OK;
    }

   private:
    Rund& o_;
  };

  /// Of every container and pod in the table, whatever its state.
  class Stats final : public rund::v1::Stats::Service {
   public:
    explicit Stats(Rund& owner) : o_(owner) {}
    grpc::Status ContainerStats(grpc::ServerContext* c, const runtime::v1::ContainerStatsRequest* r,
                                runtime::v1::ContainerStatsResponse* out) override {
      if (auto s = o_.script_.Enter("ContainerStats", *c); !s.ok()) return s;
      out->mutable_stats()->mutable_attributes()->set_id(r->container_id());
      return grpc::Status::OK;
    }
    grpc::Status ListContainerStats(grpc::ServerContext* c,
                                    const runtime::v1::ListContainerStatsRequest*,
                                    runtime::v1::ListContainerStatsResponse* out) override {
      if (auto s = o_.script_.Enter("ListContainerStats", *c); !s.ok()) return s;
      std::lock_guard lock(o_.mutex_);
      for (const auto& [id, container] : o_.container_table_) {
        out->add_stats()->mutable_attributes()->set_id(id);
      }
      return grpc::Status::OK;
    }
    grpc::Status PodSandboxStats(grpc::ServerContext* c,
                                 const runtime::v1::PodSandboxStatsRequest* r,
                                 runtime::v1::PodSandboxStatsResponse* out) override {
      if (auto s = o_.script_.Enter("PodSandboxStats", *c); !s.ok()) return s;
      out->mutable_stats()->mutable_attributes()->set_id(r->pod_sandbox_id());
      return grpc::Status::OK;
    }
    grpc::Status ListPodSandboxStats(grpc::ServerContext* c,
                                     const runtime::v1::ListPodSandboxStatsRequest*,
                                     runtime::v1::ListPodSandboxStatsResponse* out) override {
      if (auto s = o_.script_.Enter("ListPodSandboxStats", *c); !s.ok()) return s;
      std::lock_guard lock(o_.mutex_);
      for (const auto& [id, pod] : o_.pod_table_) {
        out->add_stats()->mutable_attributes()->set_id(id);
      }
      return grpc::Status::OK;
    }
    grpc::Status ListMetricDescriptors(grpc::ServerContext* c,
                                       const runtime::v1::ListMetricDescriptorsRequest*,
                                       runtime::v1::ListMetricDescriptorsResponse* out) override {
      if (auto s = o_.script_.Enter("ListMetricDescriptors", *c); !s.ok()) return s;
      out->add_descriptors()->set_name("m");
      return grpc::Status::OK;
    }
    grpc::Status ListPodSandboxMetrics(grpc::ServerContext* c,
                                       const runtime::v1::ListPodSandboxMetricsRequest*,
                                       runtime::v1::ListPodSandboxMetricsResponse* out) override {
      if (auto s = o_.script_.Enter("ListPodSandboxMetrics", *c); !s.ok()) return s;
      std::lock_guard lock(o_.mutex_);
      for (const auto& [id, pod] : o_.pod_table_) out->add_pod_metrics()->set_pod_sandbox_id(id);
      return grpc::Status::OK;
    }

   private:
    Rund& o_;
  };

  Script& script_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::uint64_t seq_ = 100;
  std::vector<rund::v1::WatchEvent> events_;
  std::map<std::string, rund::v1::PodEntry> pod_table_;
  std::map<std::string, rund::v1::ContainerEntry> container_table_;
  runtime::v1::ContainerConfig last_config_;
  Pods pods_;
  Containers containers_;
  Records records_;
  Node node_;
  Stats stats_;
  About info_;
  Listener listener_;
};

class Netd final : public netd::v1::Network::Service {
 public:
  explicit Netd(Script& script) : script_(script) {}
  ~Netd() override { Stop(); }
  void Start(const std::string& socket) { listener_.Start(socket, {this, &info_}); }
  void Stop() { listener_.Stop(); }

 private:
  grpc::Status Attach(grpc::ServerContext* c, const netd::v1::AttachRequest* r,
                      netd::v1::AttachResponse* out) override {
    out->set_netns_path("/run/netns/" + r->pod_id());
    out->add_ips("10.0.0.2");
    if (!r->userns_path().empty()) script_.Enter("in " + r->userns_path(), *c);
    return script_.Enter("Attach", *c);
  }
  grpc::Status Detach(grpc::ServerContext* c, const netd::v1::DetachRequest*,
                      netd::v1::DetachResponse*) override {
    return script_.Enter("Detach", *c);
  }
  grpc::Status Status(grpc::ServerContext*, const netd::v1::StatusRequest*,
                      netd::v1::StatusResponse* out) override {
    out->set_ready(true);
    return grpc::Status::OK;
  }
  grpc::Status Reconcile(grpc::ServerContext* c, const netd::v1::ReconcileRequest* r,
                         netd::v1::ReconcileResponse*) override {
    return script_.Enter("Reconcile pods " + std::to_string(r->live_pod_ids_size()), *c);
  }

  Script& script_;
  About info_;
  Listener listener_;
};

class Imaged final : public imaged::v1::Snapshots::Service {
 public:
  explicit Imaged(Script& script) : script_(script), images_(script) {}
  ~Imaged() override { Stop(); }
  void Start(const std::string& socket) { listener_.Start(socket, {this, &images_, &info_}); }
  void Stop() { listener_.Stop(); }

 private:
  class Images final : public runtime::v1::ImageService::Service {
   public:
    explicit Images(Script& script) : script_(script) {}
    grpc::Status ImageStatus(grpc::ServerContext* c, const runtime::v1::ImageStatusRequest* r,
                             runtime::v1::ImageStatusResponse* out) override {
      out->mutable_image()->set_id("id of " + r->image().image());
      return script_.Enter("ImageStatus", *c);
    }
    grpc::Status ListImages(grpc::ServerContext* c, const runtime::v1::ListImagesRequest*,
                            runtime::v1::ListImagesResponse*) override {
      return script_.Enter("ListImages", *c);
    }
    grpc::Status PullImage(grpc::ServerContext* c, const runtime::v1::PullImageRequest*,
                           runtime::v1::PullImageResponse*) override {
      return script_.Enter("PullImage", *c);
    }
    grpc::Status RemoveImage(grpc::ServerContext* c, const runtime::v1::RemoveImageRequest*,
                             runtime::v1::RemoveImageResponse*) override {
      return script_.Enter("RemoveImage", *c);
    }
    grpc::Status ImageFsInfo(grpc::ServerContext* c, const runtime::v1::ImageFsInfoRequest*,
                             runtime::v1::ImageFsInfoResponse*) override {
      return script_.Enter("ImageFsInfo", *c);
    }

   private:
    Script& script_;
  };

  grpc::Status Prepare(grpc::ServerContext* c, const imaged::v1::PrepareRequest* r,
                       imaged::v1::PrepareResponse* out) override {
    // An image of a checkpoint is known by its name here.
    if (r->image().starts_with("checkpoint")) {
      out->set_checkpoint_of("c");
      return script_.Enter("Prepare " + r->image(), *c);
    }
    out->set_image_id("sha256:1");
    if (r->image().starts_with("base")) return script_.Enter("Prepare " + r->image(), *c);
    return script_.Enter("Prepare", *c);
  }
  grpc::Status PrepareVolume(grpc::ServerContext* c, const imaged::v1::PrepareVolumeRequest* r,
                             imaged::v1::PrepareVolumeResponse* out) override {
    out->set_image_id("id of " + r->image());
    return script_.Enter("PrepareVolume " + r->image(), *c);
  }
  grpc::Status Release(grpc::ServerContext* c, const imaged::v1::ReleaseRequest*,
                       imaged::v1::ReleaseResponse*) override {
    return script_.Enter("Release", *c);
  }
  grpc::Status Reconcile(grpc::ServerContext* c, const imaged::v1::ReconcileRequest* r,
                         imaged::v1::ReconcileResponse*) override {
    return script_.Enter("Reconcile owners " + std::to_string(r->live_owner_ids_size()), *c);
  }

  Script& script_;
  Images images_;
  About info_;
  Listener listener_;
};

}  // namespace crisp::crid::fake
