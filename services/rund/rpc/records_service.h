#pragma once

#include "crisp/rund/v1/rund.grpc.pb.h"
#include "libs/rpc/broadcast.h"
#include "services/rund/core/state.h"

namespace crisp::rund {

/// crisp.rund.v1.Records: the stream of changes. The only listener of the State while it lives.
class RecordsService final : public v1::Records::CallbackService {
 public:
  explicit RecordsService(State& state);
  ~RecordsService() override;

  grpc::ServerWriteReactor<v1::WatchEvent>* Watch(grpc::CallbackServerContext* context,
                                                  const v1::WatchRequest* request) override;
  /// Ends all streams: readers come back to whoever serves then.
  void Close();

 private:
  State& state_;
  rpc::Broadcast<v1::WatchEvent> readers_;
};

}  // namespace crisp::rund
