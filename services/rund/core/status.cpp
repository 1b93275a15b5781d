#include "services/rund/core/status.h"

#include <csignal>
#include <cstring>
#include <string>
#include <string_view>

#include "libs/base/ids.h"

namespace crisp::rund {

namespace cri = runtime::v1;

bool IsListed(const v1::PodRecord& pod) { return pod.created_at() != 0; }
bool IsListed(const v1::ContainerRecord& container) { return container.created_at() != 0; }
bool Runs(const v1::ContainerRecord* container) {
  return container != nullptr && container->phase() == v1::LIVE &&
         container->state() != cri::CONTAINER_EXITED;
}

const cri::LinuxContainerResources& ResourcesOf(const v1::ContainerRecord& container) {
  // Records of older versions have no field of their own for it.
  return container.has_resources() ? container.resources() : container.config().linux().resources();
}

cri::NamespaceOption NamespacesOf(const cri::PodSandboxConfig& config) {
  return config.linux().security_context().namespace_options();
}

bool IsHostNetwork(const cri::PodSandboxConfig& config) {
  return config.linux().security_context().namespace_options().network() == cri::NODE;
}

namespace {

cri::PodSandboxState StateOf(const v1::PodRecord& pod) {
  return pod.phase() == v1::LIVE ? cri::SANDBOX_READY : cri::SANDBOX_NOTREADY;
}

bool IsImageId(std::string_view text) {
  if (text.starts_with("sha256:")) text.remove_prefix(7);
  return IsFullId(text);
}

// What was asked for stays what is shown; of an id, which is how the kubelet asks, a name.
void FillImage(const v1::ContainerRecord& container, cri::ImageSpec* image) {
  *image = container.config().image();
  if (IsImageId(image->image()) && !container.image_name().empty()) {
    image->set_image(container.image_name());
  }
  if (image->image().empty()) image->set_image(container.image_id());
}

// The CRI counts signals its own way; the real-time ones are in a row in both.
cri::Signal SignalOf(int number) {
  if (number >= SIGRTMIN && number <= SIGRTMAX) {
    return static_cast<cri::Signal>(cri::SIGNAL_SIGRTMIN + (number - SIGRTMIN));
  }
  cri::Signal signal = cri::SIGNAL_RUNTIME_DEFAULT;
  const char* name = sigabbrev_np(number);
  if (name == nullptr || !cri::Signal_Parse(std::string("SIGNAL_SIG") + name, &signal)) {
    return cri::SIGNAL_RUNTIME_DEFAULT;
  }
  return signal;
}

const std::string& ImageRefOf(const v1::ContainerRecord& container) {
  return container.image_ref().empty() ? container.image_id() : container.image_ref();
}

}  // namespace

cri::PodSandbox ListItemOf(const v1::PodRecord& pod) {
  cri::PodSandbox item;
  item.set_id(pod.id());
  *item.mutable_metadata() = pod.metadata();
  item.set_state(StateOf(pod));
  item.set_created_at(pod.created_at());
  *item.mutable_labels() = pod.config().labels();
  *item.mutable_annotations() = pod.config().annotations();
  item.set_runtime_handler(pod.runtime_handler());
  return item;
}

cri::Container ListItemOf(const v1::ContainerRecord& container) {
  cri::Container item;
  item.set_id(container.id());
  item.set_pod_sandbox_id(container.pod_id());
  *item.mutable_metadata() = container.metadata();
  FillImage(container, item.mutable_image());
  item.set_image_ref(ImageRefOf(container));
  item.set_image_id(container.image_id());
  item.set_state(container.state());
  item.set_created_at(container.created_at());
  *item.mutable_labels() = container.config().labels();
  *item.mutable_annotations() = container.config().annotations();
  return item;
}

v1::PodEntry EntryOf(const v1::PodRecord& pod) {
  v1::PodEntry entry;
  entry.set_id(pod.id());
  entry.set_phase(pod.phase());
  *entry.mutable_metadata() = pod.metadata();
  entry.set_host_network(IsHostNetwork(pod.config()));
  if (IsListed(pod)) {
    entry.set_list_item(ListItemOf(pod).SerializeAsString());
    entry.set_status(StatusOf(pod).SerializeAsString());
  }
  return entry;
}

v1::ContainerEntry EntryOf(const v1::ContainerRecord& container) {
  v1::ContainerEntry entry;
  entry.set_id(container.id());
  entry.set_phase(container.phase());
  entry.set_pod_id(container.pod_id());
  *entry.mutable_metadata() = container.metadata();
  if (IsListed(container)) {
    entry.set_list_item(ListItemOf(container).SerializeAsString());
    entry.set_status(StatusOf(container).SerializeAsString());
  }
  return entry;
}

cri::PodSandboxStatus StatusOf(const v1::PodRecord& pod) {
  cri::PodSandboxStatus status;
  status.set_id(pod.id());
  *status.mutable_metadata() = pod.metadata();
  status.set_state(StateOf(pod));
  status.set_created_at(pod.created_at());
  auto* network = status.mutable_network();
  if (!IsHostNetwork(pod.config())) {
    if (pod.ips_size() > 0) network->set_ip(pod.ips(0));
    for (int i = 1; i < pod.ips_size(); ++i) network->add_additional_ips()->set_ip(pod.ips(i));
  }
  *status.mutable_linux()->mutable_namespaces()->mutable_options() = NamespacesOf(pod.config());
  *status.mutable_labels() = pod.config().labels();
  *status.mutable_annotations() = pod.config().annotations();
  status.set_runtime_handler(pod.runtime_handler());
  return status;
}

cri::ContainerStatus StatusOf(const v1::ContainerRecord& container) {
  const cri::ContainerConfig& config = container.config();
  cri::ContainerStatus status;
  status.set_id(container.id());
  *status.mutable_metadata() = container.metadata();
  status.set_state(container.state());
  status.set_created_at(container.created_at());
  status.set_started_at(container.started_at());
  status.set_finished_at(container.finished_at());
  status.set_exit_code(container.exit_code());
  FillImage(container, status.mutable_image());
  status.set_image_ref(ImageRefOf(container));
  status.set_image_id(container.image_id());
  status.set_reason(container.reason());
  status.set_message(container.message());
  *status.mutable_labels() = config.labels();
  *status.mutable_annotations() = config.annotations();
  *status.mutable_mounts() = config.mounts();
  status.set_log_path(container.log_path());
  if (container.has_resources() || config.linux().has_resources()) {
    *status.mutable_resources()->mutable_linux() = ResourcesOf(container);
  }
  if (container.has_user()) *status.mutable_user()->mutable_linux() = container.user();
  status.set_stop_signal(SignalOf(container.stop_signal()));
  return status;
}

Status CheckTakesContainers(const v1::PodRecord* pod, const std::string& id) {
  if (pod == nullptr || !IsListed(*pod)) return NotFound("no pod sandbox {}", id);
  if (pod->phase() != v1::LIVE || pod->stopping()) {
    return FailedPrecondition("pod sandbox {} is not ready: it is stopped or being stopped", id);
  }
  return Status::Ok();
}

}  // namespace crisp::rund
