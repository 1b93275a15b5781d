#pragma once

#include "crisp/rund/v1/record.pb.h"
#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/status.h"

// From records to what the CRI and the front are told. Pure functions.
namespace crisp::rund {

/// Of a container's `message`. It is text (ToUtf8): another would make the record unreadable.
inline constexpr std::size_t kMaxMessageBytes = 4096;

/// Pods show from StartPod on, containers from CreateContainer on, until they are gone for good.
bool IsListed(const v1::PodRecord& pod);
bool IsListed(const v1::ContainerRecord& container);
/// Created or running: there is a monitor, and an end still to come. Null = there is no such
/// container.
bool Runs(const v1::ContainerRecord* container);

/// What a container may use now.
const runtime::v1::LinuxContainerResources& ResourcesOf(const v1::ContainerRecord& container);

runtime::v1::PodSandbox ListItemOf(const v1::PodRecord& pod);
runtime::v1::Container ListItemOf(const v1::ContainerRecord& container);
v1::PodEntry EntryOf(const v1::PodRecord& pod);
v1::ContainerEntry EntryOf(const v1::ContainerRecord& container);

runtime::v1::PodSandboxStatus StatusOf(const v1::PodRecord& pod);
runtime::v1::ContainerStatus StatusOf(const v1::ContainerRecord& container);

/// Of the pod's configuration.
runtime::v1::NamespaceOption NamespacesOf(const runtime::v1::PodSandboxConfig& config);
bool IsHostNetwork(const runtime::v1::PodSandboxConfig& config);

/// Whether a container may be made in this pod (null = there is none of this id): kNotFound,
/// kFailedPrecondition.
Status CheckTakesContainers(const v1::PodRecord* pod, const std::string& id);

}  // namespace crisp::rund
