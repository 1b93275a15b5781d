#include "libs/daemon/operations.h"

#include <utility>

#include "crisp/daemon/v1/daemon.pb.h"

namespace crisp::daemon {
namespace {

void Fill(work::StageView stage, v1::Stage& out) {
  out.set_what(std::move(stage.what));
  out.set_peer(std::move(stage.peer));
  out.set_how_far(std::move(stage.how_far));
  out.set_process(stage.process);
  out.set_thread(stage.thread);
  out.set_parent(stage.parent);
  out.set_began(stage.began.count());
  out.set_took(stage.took.count());
  out.set_under_way(stage.under_way);
}

void Fill(work::OperationView operation, v1::Operation& out) {
  out.set_times(work::StagesText(operation));
  out.set_kind(std::move(operation.kind));
  for (std::string& subject : operation.subjects) out.add_subjects(std::move(subject));
  out.set_request_id(std::move(operation.request_id));
  out.set_started_at(operation.started.time_since_epoch().count());
  out.set_took(operation.took.count());
  out.set_thread(operation.thread);
  for (work::StageView& stage : operation.stages) Fill(std::move(stage), *out.add_stages());
  out.set_code(static_cast<int>(operation.outcome.code()));
  out.set_error(operation.outcome.message());
  out.set_failures(operation.times);
}

}  // namespace

void TellOperations(const work::Operations& operations, const v1::OperationsRequest& request,
                    v1::OperationsResponse& response) {
  const std::string& wanted = request.request_id();
  const auto is_wanted = [&wanted](const work::OperationView& operation) {
    return wanted.empty() || operation.request_id == wanted;
  };
  for (work::OperationView& operation : operations.UnderWay()) {
    if (is_wanted(operation)) Fill(std::move(operation), *response.add_under_way());
  }
  for (work::OperationView& operation : operations.Failed()) {
    if (is_wanted(operation)) Fill(std::move(operation), *response.add_failed());
  }
}

}  // namespace crisp::daemon
