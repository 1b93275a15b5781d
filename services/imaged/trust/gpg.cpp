#include "services/imaged/trust/gpg.h"

#include <gpgme.h>

#include "libs/base/try.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kMaxPayload = std::size_t{1} << 20U;

struct FreeContext {
  void operator()(gpgme_ctx_t context) const { ::gpgme_release(context); }
};
using Context = std::unique_ptr<std::remove_pointer_t<gpgme_ctx_t>, FreeContext>;
struct FreeData {
  void operator()(gpgme_data_t data) const { ::gpgme_data_release(data); }
};
using Data = std::unique_ptr<std::remove_pointer_t<gpgme_data_t>, FreeData>;

Status Check(gpgme_error_t error, std::string_view what) {
  if (error == 0) return Status::Ok();
  return Unavailable("gpg: {}: {}", what, ::gpgme_strerror(error));
}

Result<Data> View(std::string_view bytes) {
  gpgme_data_t data = nullptr;
  CRISP_TRY(Check(::gpgme_data_new_from_mem(&data, bytes.data(), bytes.size(), 0), "memory"));
  return Data(data);
}

/// The library wants to be asked for its version before all else, once.
void InitOnce() {
  static const char* const version = ::gpgme_check_version(nullptr);
  static_cast<void>(version);
}

}  // namespace

struct GpgKeys::Impl {
  os::TempDir home;
  Context context;
};

GpgKeys::GpgKeys(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GpgKeys::GpgKeys(GpgKeys&&) noexcept = default;
GpgKeys& GpgKeys::operator=(GpgKeys&&) noexcept = default;
GpgKeys::~GpgKeys() = default;

Result<GpgKeys> GpgKeys::Import(const std::string& temp_root,
                                const std::vector<std::string>& keys) {
  InitOnce();
  auto impl = std::make_unique<Impl>(CRISP_TRY(os::TempDir::Create(temp_root + "/gpg-")));
  gpgme_ctx_t context = nullptr;
  CRISP_TRY(Check(::gpgme_new(&context), "begin"));
  impl->context.reset(context);
  CRISP_TRY(Check(::gpgme_ctx_set_engine_info(context, GPGME_PROTOCOL_OpenPGP, nullptr,
                                              impl->home.path().c_str()),
                  "set its home"));
  for (const std::string& key : keys) {
    const Data data = CRISP_TRY(View(key));
    CRISP_TRY(Check(::gpgme_op_import(context, data.get()), "import a key"));
    const gpgme_import_result_t result = ::gpgme_op_import_result(context);
    if (result == nullptr || result->imported + result->unchanged == 0)
      return InvalidArgument("no public key in it");
  }
  return GpgKeys(std::move(impl));
}

Result<std::string> GpgKeys::Verify(std::string_view message) const {
  const Data signature = CRISP_TRY(View(message));
  gpgme_data_t plain = nullptr;
  CRISP_TRY(Check(::gpgme_data_new(&plain), "memory"));
  Data payload(plain);
  const gpgme_ctx_t context = impl_->context.get();
  const gpgme_error_t error = ::gpgme_op_verify(context, signature.get(), nullptr, plain);
  if (error != 0)
    return PermissionDenied("not an OpenPGP signed message ({})", ::gpgme_strerror(error));
  const gpgme_verify_result_t result = ::gpgme_op_verify_result(context);
  if (result == nullptr || result->signatures == nullptr)
    return PermissionDenied("the message carries no signature");
  if (result->signatures->next != nullptr)
    return PermissionDenied("the message carries several signatures");
  const gpgme_signature_t found = result->signatures;
  if (found->status != 0)
    return PermissionDenied("the signature by key {} is not good: {}",
                            found->fpr == nullptr ? "?" : found->fpr,
                            ::gpgme_strerror(found->status));
  if (found->validity == GPGME_VALIDITY_NEVER || found->wrong_key_usage != 0)
    return PermissionDenied("the key {} may not sign", found->fpr);
  std::size_t size = 0;
  char* text = ::gpgme_data_release_and_get_mem(payload.release(), &size);
  std::string words = text == nullptr ? "" : std::string(text, std::min(size, kMaxPayload));
  ::gpgme_free(text);
  return words;
}

}  // namespace crisp::imaged
