#pragma once

namespace crisp::rpc {

/// Every server that is built from now on answers grpc.reflection.v1alpha about its services. Once
/// per process. gRPC's own library for it would bring TLS and a synchronous server's thread with
/// it.
void AddReflectionToServers();

}  // namespace crisp::rpc
