#include "services/rund/rpc/records_service.h"

namespace crisp::rund {

RecordsService::RecordsService(State& state) : state_(state) {
  state_.SetListener([this](const EventRef& event) { readers_.Publish(event); });
}

RecordsService::~RecordsService() { state_.SetListener(nullptr); }

grpc::ServerWriteReactor<v1::WatchEvent>* RecordsService::Watch(
    grpc::CallbackServerContext* context, const v1::WatchRequest* /*request*/) {
  grpc::ServerWriteReactor<v1::WatchEvent>* reactor = nullptr;
  state_.WithSnapshot(
      [&](const EventRef& snapshot) { reactor = readers_.Open(context, snapshot); });
  return reactor;
}

void RecordsService::Close() { readers_.Close(Unavailable("rund stops")); }

}  // namespace crisp::rund
