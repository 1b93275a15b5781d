#pragma once

#include <string>

#include "crisp/imaged/v1/imaged.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/imaged/core/archives.h"

namespace crisp::imaged {

/// crisp.imaged.v1.Archives: images from and to tar streams.
class ArchivesService final : public v1::Archives::CallbackService {
 public:
  ArchivesService(work::Pool& pool, Archives& archives) : pool_(pool), archives_(archives) {}

  grpc::ServerReadReactor<v1::ImportRequest>* Import(grpc::CallbackServerContext* context,
                                                     v1::ImportResponse* response) override;
  grpc::ServerWriteReactor<v1::ExportChunk>* Export(grpc::CallbackServerContext* context,
                                                    const v1::ExportRequest* request) override;

 private:
  work::Pool& pool_;
  Archives& archives_;
};

}  // namespace crisp::imaged
