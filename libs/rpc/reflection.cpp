#include "libs/rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/server_initializer.h>

#include <set>

#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "libs/rpc/status.h"

namespace crisp::rpc {
namespace {

namespace pb = google::protobuf;
using grpc::reflection::v1alpha::ExtensionRequest;
using grpc::reflection::v1alpha::FileDescriptorResponse;
using grpc::reflection::v1alpha::ServerReflection;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

/// The file and all that it imports, each once.
void AddFiles(const pb::FileDescriptor& file, std::set<std::string>& seen,
              FileDescriptorResponse& out) {
  if (!seen.insert(file.name()).second) return;
  pb::FileDescriptorProto proto;
  file.CopyTo(&proto);
  out.add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file.dependency_count(); ++i) AddFiles(*file.dependency(i), seen, out);
}

void AnswerFile(const pb::FileDescriptor* file, const std::string& what,
                ServerReflectionResponse& answer) {
  if (file == nullptr) {
    answer.mutable_error_response()->set_error_code(static_cast<int>(Code::kNotFound));
    answer.mutable_error_response()->set_error_message(what + " is not known");
    return;
  }
  std::set<std::string> seen;
  AddFiles(*file, seen, *answer.mutable_file_descriptor_response());
}

void AnswerExtension(const ExtensionRequest& asked, ServerReflectionResponse& answer) {
  const pb::DescriptorPool& pool = *pb::DescriptorPool::generated_pool();
  const pb::Descriptor* type = pool.FindMessageTypeByName(asked.containing_type());
  const pb::FieldDescriptor* field =
      type == nullptr ? nullptr : pool.FindExtensionByNumber(type, asked.extension_number());
  AnswerFile(field == nullptr ? nullptr : field->file(), asked.containing_type(), answer);
}

void AnswerExtensionNumbers(const std::string& type_name, ServerReflectionResponse& answer) {
  const pb::DescriptorPool& pool = *pb::DescriptorPool::generated_pool();
  const pb::Descriptor* type = pool.FindMessageTypeByName(type_name);
  if (type == nullptr) return AnswerFile(nullptr, type_name, answer);
  auto& out = *answer.mutable_all_extension_numbers_response();
  out.set_base_type_name(type_name);
  std::vector<const pb::FieldDescriptor*> extensions;
  pool.FindAllExtensions(type, &extensions);
  for (const pb::FieldDescriptor* extension : extensions)
    out.add_extension_number(extension->number());
}

void Answer(const ServerReflectionRequest& request, const std::vector<std::string>& services,
            ServerReflectionResponse& answer) {
  const pb::DescriptorPool& pool = *pb::DescriptorPool::generated_pool();
  answer.Clear();
  answer.set_valid_host(request.host());
  *answer.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      return AnswerFile(pool.FindFileByName(request.file_by_filename()), request.file_by_filename(),
                        answer);
    case ServerReflectionRequest::kFileContainingSymbol:
      return AnswerFile(pool.FindFileContainingSymbol(request.file_containing_symbol()),
                        request.file_containing_symbol(), answer);
    case ServerReflectionRequest::kFileContainingExtension:
      return AnswerExtension(request.file_containing_extension(), answer);
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      return AnswerExtensionNumbers(request.all_extension_numbers_of_type(), answer);
    case ServerReflectionRequest::kListServices:
      for (const std::string& name : services) {
        answer.mutable_list_services_response()->add_service()->set_name(name);
      }
      return;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      answer.mutable_error_response()->set_error_code(static_cast<int>(Code::kInvalidArgument));
      answer.mutable_error_response()->set_error_message("nothing was asked");
      return;
  }
}

/// One caller's stream: read, answer, read. Deletes itself in OnDone.
class Session final
    : public grpc::ServerBidiReactor<ServerReflectionRequest, ServerReflectionResponse> {
 public:
  explicit Session(const std::vector<std::string>& services) : services_(services) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    Answer(request_, services_, response_);
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(ToGrpc(Cancelled("the caller went away")));
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  const std::vector<std::string>& services_;
  ServerReflectionRequest request_;
  ServerReflectionResponse response_;
};

class Service final : public ServerReflection::CallbackService {
 public:
  explicit Service(const std::vector<std::string>& services) : services_(services) {}
  grpc::ServerBidiReactor<ServerReflectionRequest, ServerReflectionResponse>* ServerReflectionInfo(
      grpc::CallbackServerContext* /*context*/) override {
    return new Session(services_);
  }

 private:
  // The server's own list, complete once it has started.
  const std::vector<std::string>& services_;
};

/// gRPC asks each registered plugin when it builds a server; only so is the list of services to be
/// had.
class Plugin final : public grpc::ServerBuilderPlugin {
 public:
  std::string name() override { return "crisp_reflection"; }
  void InitServer(grpc::ServerInitializer* server) override {
    server->RegisterService(std::make_shared<Service>(*server->GetServiceList()));
  }
  void Finish(grpc::ServerInitializer* /*server*/) override {}
  void ChangeArguments(const std::string& /*name*/, void* /*value*/) override {}
};

}  // namespace

void AddReflectionToServers() {
  grpc::ServerBuilder::InternalAddPluginFactory(
      +[]() -> std::unique_ptr<grpc::ServerBuilderPlugin> { return std::make_unique<Plugin>(); });
}

}  // namespace crisp::rpc
