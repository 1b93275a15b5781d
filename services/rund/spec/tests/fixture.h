#pragma once

#include <string>

#include "libs/testing/test_root.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

/// A container's inputs on a node that allows everything, with a small rootfs in a temporary tree.
struct SpecFixture {
  SpecFixture() {
    root.Write("rootfs/etc/passwd",
               "root:x:0:0:root:/root:/bin/sh\n"
               "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
               "web:x:1000:1001:Web:/srv/web:/bin/sh\n"
               "broken:line\n");
    root.Write("rootfs/etc/group",
               "root:x:0:\nweb:x:1001:\nstaff:x:50:web,other\nvideo:x:44:other,web\n");
    config.mutable_metadata()->set_name("main");
    config.add_command("/bin/app");
    sandbox.mutable_metadata()->set_name("web-0");
    sandbox.mutable_metadata()->set_namespace_("shop");
    sandbox.mutable_metadata()->set_uid("5f0c");
    image.set_image_id("sha256:" + std::string(64, 'c'));
    pod_files.netns_path = "/run/crisp/netns/1";
    pod_files.ipcns_path = "/run/crisp/ipcns/1";
    pod_files.utsns_path = "/run/crisp/utsns/1";
    pod_files.hostname = "web-0";
    defaults.host.bounding_capabilities = ~std::uint64_t{0};
    defaults.host.controllers = {"cpu", "memory", "hugetlb", "pids"};
    defaults.host.swap_accounting = true;
    defaults.host.resctrl = root / "resctrl";
    defaults.host.dev_root = root / "dev";
    defaults.host.mountinfo = root.Write("mountinfo", "20 1 8:1 / / rw - ext4 /dev/vda rw\n");
    defaults.capabilities = {"CHOWN", "CAP_KILL", "setuid"};
    runtime = {"runc", "/usr/bin/runc", "1.1.5", false, true};
  }

  SpecInputs Inputs() const {
    return {ContainerId(std::string(64, 'a')),
            PodId(std::string(64, 'b')),
            config,
            sandbox,
            image,
            pod_files,
            root / "rootfs",
            "/kubepods/pod5f0c/crisp-aaa",
            runtime,
            root / "volumes",
            target_pid_ns,
            root / "mounts"};
  }
  Result<BuiltSpec> Build() const {
    SpecInputs inputs = Inputs();
    auto labels = ContainerLabels(defaults.selinux, config, sandbox, pod_files.selinux_level);
    if (!labels.ok()) return labels.status();
    inputs.labels = *std::move(labels);
    return BuildSpec(CallContext(), inputs, defaults);
  }

  runtime::v1::LinuxContainerSecurityContext& security() {
    return *config.mutable_linux()->mutable_security_context();
  }
  runtime::v1::Mount& AddMount(const std::string& container_path, const std::string& host_path) {
    runtime::v1::Mount& mount = *config.add_mounts();
    mount.set_container_path(container_path);
    mount.set_host_path(host_path);
    return mount;
  }

  testing::TestRoot root;
  runtime::v1::ContainerConfig config;
  runtime::v1::PodSandboxConfig sandbox;
  crisp::imaged::v1::PrepareResponse image;
  PodFiles pod_files;
  SpecDefaults defaults;
  RuntimeInfo runtime;
  std::string target_pid_ns;
};

}  // namespace crisp::rund
