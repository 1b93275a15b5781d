#include "services/imaged/registry/client.h"

#include <algorithm>
#include <condition_variable>
#include <optional>

#include "libs/base/try.h"
#include "services/imaged/core/manifest.h"
#include "services/imaged/registry/source.h"

namespace crisp::imaged {
namespace {

class ResponseReader final : public BlobReader {
 public:
  /// `broke` is set when the stream breaks: the next try is then somebody else's.
  ResponseReader(http::Response response, std::optional<std::uint64_t> total,
                 std::atomic<bool>& broke)
      : response_(std::move(response)), total_(total), broke_(broke) {}
  Result<std::size_t> Read(const CallContext& cc, std::span<char> into) override {
    Result<std::size_t> count = response_.Read(cc, into);
    if (count.code() == Code::kUnavailable) broke_ = true;
    return count;
  }
  std::optional<std::uint64_t> total() const override { return total_; }

 private:
  http::Response response_;
  const std::optional<std::uint64_t> total_;
  std::atomic<bool>& broke_;
};

}  // namespace

Status Pause(const CallContext& cc, std::chrono::nanoseconds duration) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, cc.stop(), std::min(duration, cc.Remaining()), [] { return false; });
  return cc.Check();
}

RegistryClient::RegistryClient(const ref::ImageRef& image,
                               std::vector<std::unique_ptr<Source>> sources)
    : image_(image.ToString()), tag_(image.tag), sources_(std::move(sources)) {}
RegistryClient::~RegistryClient() = default;

Result<std::unique_ptr<RegistryClient>> RegistryClient::Open(http::Client& client, Hosts& hosts,
                                                             const ref::ImageRef& image,
                                                             Credentials credentials) {
  std::vector<std::unique_ptr<Source>> sources;
  for (Endpoint& endpoint : CRISP_TRY(hosts.Find(image)))
    sources.push_back(std::make_unique<Source>(client, hosts, std::move(endpoint), credentials));
  return std::unique_ptr<RegistryClient>(new RegistryClient(image, std::move(sources)));
}

/// The failure of all: the code is the registry's own, which is the last. Of a registry that cannot
/// be had it is kUnknown: only then does the kubelet look at the message's first word (and crid
/// would take kUnavailable for imaged's absence).
Status RegistryClient::Failure(const std::vector<std::pair<const Source*, Status>>& answers) const {
  if (answers.empty())
    return FailedPrecondition("{}: no endpoint of the configuration may be asked for it", image_);
  Code code = answers.back().second.code();
  std::string text = image_ + ": ";
  if (code == Code::kUnavailable) {
    code = Code::kUnknown;
    text.insert(0, "RegistryUnavailable: ");
  }
  for (std::size_t i = 0; i < answers.size(); ++i)
    text += fmt::format("{}{}: {}", i > 0 ? "; " : "", answers[i].first->Name(),
                        answers[i].second.message());
  return {code, std::move(text)};
}

template <typename T>
Result<T> RegistryClient::Ask(const CallContext& cc, bool by_digest,
                              const std::function<Result<T>(Source&)>& question, bool optional) {
  std::vector<Source*> order;
  for (const bool failed : {false, true})
    for (const auto& source : sources_)
      if (source->failed == failed &&
          (by_digest ? source->endpoint().can_pull : source->endpoint().can_resolve))
        order.push_back(source.get());
  std::vector<std::pair<const Source*, Status>> answers;
  for (Source* source : order) {
    Result<T> answer = question(*source);
    if (answer.ok()) return answer;
    CRISP_TRY(cc.Check().While("{}: {}", image_, source->Name()));
    if (!optional || answer.code() != Code::kNotFound) source->failed = true;
    answers.emplace_back(source, std::move(answer).status());
  }
  // As the configuration has them, so that the registry itself is the last.
  std::sort(answers.begin(), answers.end(), [this](const auto& a, const auto& b) {
    const auto place = [this](const Source* source) {
      return std::find_if(sources_.begin(), sources_.end(),
                          [source](const auto& each) { return each.get() == source; });
    };
    return place(a.first) < place(b.first);
  });
  return Failure(answers);
}

Result<FetchedManifest> RegistryClient::Manifest(const CallContext& cc,
                                                 const std::string& tag_or_digest, Bytes limit) {
  const bool by_digest = tag_or_digest.starts_with("sha256:");
  const auto question = [&](Source& source) -> Result<FetchedManifest> {
    http::Response response = CRISP_TRY(source.Get(cc, "/manifests/" + tag_or_digest,
                                                   {{"Accept", std::string(ManifestAccept())}},
                                                   "manifest " + tag_or_digest));
    FetchedManifest manifest;
    manifest.media_type = response.Header("Content-Type");
    manifest.body = CRISP_TRY(response.ReadAll(cc, limit).While("manifest"));
    manifest.body = CRISP_TRY(SignedPayload(std::move(manifest.body)).While("manifest"));
    manifest.digest = digest::Sha256Digest(manifest.body);
    // What was asked for by digest must be it; else the registry's own word must be true.
    const std::string expected =
        by_digest ? tag_or_digest : response.Header("Docker-Content-Digest");
    if (expected.starts_with("sha256:") && expected != manifest.digest.str())
      return DataLoss("the manifest {} has the digest {}", expected, manifest.digest.str());
    return manifest;
  };
  // Another tag than the image's is a signature's.
  const bool optional = !by_digest && tag_or_digest != tag_;
  return Ask<FetchedManifest>(cc, by_digest, question, optional);
}

Result<std::string> RegistryClient::Blob(const CallContext& cc, const digest::Digest& digest,
                                         Bytes limit) {
  return Ask<std::string>(cc, true, [&](Source& source) -> Result<std::string> {
    http::Response response =
        CRISP_TRY(source.Get(cc, "/blobs/" + digest.str(), {}, "blob " + digest.str()));
    std::string body = CRISP_TRY(response.ReadAll(cc, limit).While("blob"));
    const digest::Digest found = digest::Sha256Digest(body);
    if (found != digest)
      return DataLoss("the blob {} has the digest {}", digest.str(), found.str());
    return body;
  });
}

Result<std::unique_ptr<BlobReader>> RegistryClient::OpenBlob(const CallContext& cc,
                                                             const digest::Digest& digest,
                                                             std::uint64_t offset) {
  using Reader = std::unique_ptr<BlobReader>;
  http::Headers headers;
  if (offset > 0) headers.emplace_back("Range", fmt::format("bytes={}-", offset));
  return Ask<Reader>(cc, true, [&](Source& source) -> Result<Reader> {
    http::Response response =
        CRISP_TRY(source.Get(cc, "/blobs/" + digest.str(), headers, "blob " + digest.str()));
    std::optional<std::uint64_t> total = response.content_length();
    if (offset == 0)
      return Reader(std::make_unique<ResponseReader>(std::move(response), total, source.failed));
    if (response.status() == 206) {
      const std::string range = response.Header("Content-Range");
      if (!range.starts_with(fmt::format("bytes {}-", offset)))
        return Unavailable("answers with the wrong range of {}", digest.str());
      if (total) *total += offset;
      return Reader(std::make_unique<ResponseReader>(std::move(response), total, source.failed));
    }
    // A server without ranges sends all of it again: what we have is read past.
    std::string scratch(std::size_t{64} << 10U, '\0');
    for (std::uint64_t left = offset; left > 0;) {
      const std::size_t count = CRISP_TRY(response.Read(
          cc, {scratch.data(),
               static_cast<std::size_t>(std::min<std::uint64_t>(left, scratch.size()))}));
      if (count == 0) return Unavailable("the blob {} ends early", digest.str());
      left -= count;
    }
    return Reader(std::make_unique<ResponseReader>(std::move(response), total, source.failed));
  });
}

}  // namespace crisp::imaged
