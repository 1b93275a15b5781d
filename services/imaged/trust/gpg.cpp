#include "services/imaged/trust/gpg.h"

#include <gpgme.h>

#include <cerrno>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <stop_token>
#include <thread>

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

/// Takes a message's plain text, up to a bound: a small message may unpack to any size.
class Payload {
 public:
  Result<Data> Open() {
    static gpgme_data_cbs calls = {nullptr, &Payload::Write, nullptr, nullptr};
    gpgme_data_t data = nullptr;
    CRISP_TRY(Check(::gpgme_data_new_from_cbs(&data, &calls, this), "memory"));
    return Data(data);
  }
  bool overflown() const { return overflown_; }
  std::string Take() { return std::move(text_); }

 private:
  static ssize_t Write(void* handle, const void* bytes, std::size_t count) {
    auto& self = *static_cast<Payload*>(handle);
    if (count > kMaxPayload - self.text_.size()) {
      self.overflown_ = true;
      errno = ENOSPC;
      return -1;
    }
    self.text_.append(static_cast<const char*>(bytes), count);
    return static_cast<ssize_t>(count);
  }

  std::string text_;
  bool overflown_ = false;
};

/// Ends what a context does when the call is over. The library looks at it once a second.
class Watch {
 public:
  Watch(const CallContext& cc, gpgme_ctx_t context)
      : stopped_(cc.stop(), [context] { ::gpgme_cancel_async(context); }),
        timer_([deadline = cc.deadline(), context](const std::stop_token& done) {
          std::mutex mutex;
          std::condition_variable_any never;
          std::unique_lock lock(mutex);
          never.wait_until(lock, done, deadline, [] { return false; });
          if (!done.stop_requested()) ::gpgme_cancel_async(context);
        }) {}

 private:
  const std::stop_callback<std::function<void()>> stopped_;
  const std::jthread timer_;
};

/// The library wants to be asked for its version before all else, once.
void InitOnce() {
  static const char* const version = ::gpgme_check_version(nullptr);
  static_cast<void>(version);
}

}  // namespace

struct GpgKeys::Impl {
  explicit Impl(os::TempDir directory) : home(std::move(directory)) {}

  os::TempDir home;
  Context context;
  std::set<std::string> fingerprints;  // of the keys and their subkeys

  Status ListKeys();
};

Status GpgKeys::Impl::ListKeys() {
  CRISP_TRY(Check(::gpgme_op_keylist_start(context.get(), nullptr, 0), "list the keys"));
  while (true) {
    gpgme_key_t key = nullptr;
    const gpgme_error_t error = ::gpgme_op_keylist_next(context.get(), &key);
    if (::gpgme_err_code(error) == GPG_ERR_EOF) return Status::Ok();
    CRISP_TRY(Check(error, "list the keys"));
    for (gpgme_subkey_t each = key->subkeys; each != nullptr; each = each->next)
      if (each->fpr != nullptr) fingerprints.insert(each->fpr);
    ::gpgme_key_unref(key);
  }
}

GpgKeys::GpgKeys(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GpgKeys::GpgKeys(GpgKeys&&) noexcept = default;
GpgKeys& GpgKeys::operator=(GpgKeys&&) noexcept = default;
GpgKeys::~GpgKeys() = default;

Result<GpgKeys> GpgKeys::Import(const CallContext& cc, const std::string& temp_root,
                                const std::vector<std::string>& keys) {
  CRISP_TRY(cc.Check());
  InitOnce();
  auto impl = std::make_unique<Impl>(CRISP_TRY(os::TempDir::Create(temp_root + "/gpg-")));
  gpgme_ctx_t context = nullptr;
  CRISP_TRY(Check(::gpgme_new(&context), "begin"));
  impl->context.reset(context);
  CRISP_TRY(Check(::gpgme_ctx_set_engine_info(context, GPGME_PROTOCOL_OpenPGP, nullptr,
                                              impl->home.path().c_str()),
                  "set its home"));
  const Watch watch(cc, context);
  for (const std::string& key : keys) {
    const Data data = CRISP_TRY(View(key));
    CRISP_TRY(Check(::gpgme_op_import(context, data.get()), "import a key"));
    const gpgme_import_result_t result = ::gpgme_op_import_result(context);
    if (result == nullptr || result->imported + result->unchanged == 0)
      return InvalidArgument("no public key in it");
  }
  CRISP_TRY(impl->ListKeys());
  return GpgKeys(std::move(impl));
}

Result<std::string> GpgKeys::Verify(const CallContext& cc, std::string_view message) const {
  CRISP_TRY(cc.Check());
  const Data signature = CRISP_TRY(View(message));
  Payload payload;
  const Data plain = CRISP_TRY(payload.Open());
  const gpgme_ctx_t context = impl_->context.get();
  gpgme_error_t error = 0;
  {
    const Watch watch(cc, context);
    error = ::gpgme_op_verify(context, signature.get(), nullptr, plain.get());
  }
  CRISP_TRY(cc.Check());
  if (payload.overflown())
    return PermissionDenied("the message unpacks to more than {} bytes", kMaxPayload);
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
  // gpg may be configured to take a key from the message itself, or to fetch it.
  if (found->fpr == nullptr || !impl_->fingerprints.contains(found->fpr))
    return PermissionDenied("the signature is by none of the keys");
  return payload.Take();
}

}  // namespace crisp::imaged
