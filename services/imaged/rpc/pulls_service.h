#pragma once

#include "crisp/imaged/v1/imaged.grpc.pb.h"
#include "libs/loop/loop.h"
#include "libs/work/pool.h"
#include "services/imaged/core/pull.h"

namespace crisp::imaged {

/// crisp.imaged.v1.Pulls: PullImage with progress.
class PullsService final : public v1::Pulls::CallbackService {
 public:
  PullsService(work::Pool& pool, loop::Loop& loop, Puller& puller)
      : pool_(pool), loop_(loop), puller_(puller) {}

  grpc::ServerWriteReactor<v1::PullEvent>* Pull(
      grpc::CallbackServerContext* context, const runtime::v1::PullImageRequest* request) override;

 private:
  work::Pool& pool_;
  loop::Loop& loop_;
  Puller& puller_;
};

}  // namespace crisp::imaged
