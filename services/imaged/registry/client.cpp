#include "services/imaged/registry/client.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "libs/base/try.h"
#include "services/imaged/core/manifest.h"
#include "services/imaged/registry/source.h"

namespace crisp::imaged {
namespace {

/// What a 206 says that it brings (RFC 9110, 14.4).
struct ContentRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::optional<std::uint64_t> total;  // "*": it does not say
};

/// "bytes 0-99/1234". Nothing for any other text.
std::optional<ContentRange> ParseContentRange(std::string_view text) {
  ContentRange range;
  const auto skip = [&text](std::string_view what) {
    if (!text.starts_with(what)) return false;
    text.remove_prefix(what.size());
    return true;
  };
  const auto number = [&text](std::uint64_t& into) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return error == std::errc();
  };
  if (!skip("bytes ") || !number(range.first) || !skip("-") || !number(range.last) || !skip("/"))
    return std::nullopt;
  if (text == "*") return range;
  if (!number(range.total.emplace()) || !text.empty()) return std::nullopt;
  return range;
}

class ResponseReader final : public BlobReader {
 public:
  /// `skip`: of a server that sends all again, what the caller has. `broke` is set when the stream
  /// breaks: the next try is then somebody else's.
  ResponseReader(http::Response response, std::optional<std::uint64_t> total, bool is_range,
                 std::uint64_t skip, std::atomic<bool>& broke)
      : response_(std::move(response)),
        total_(total),
        is_range_(is_range),
        skip_(skip),
        broke_(broke) {}
  Result<std::size_t> Read(const CallContext& cc, std::span<char> into) override {
    Status skipped = Skip(cc);
    Result<std::size_t> count =
        skipped.ok() ? response_.Read(cc, into) : Result<std::size_t>(std::move(skipped));
    if (count.code() == Code::kUnavailable) broke_ = true;
    return count;
  }
  std::optional<std::uint64_t> total() const override { return total_; }
  bool is_range() const override { return is_range_; }
  std::string version() const override { return response_.Header("ETag"); }
  std::string from() const override { return response_.url().HostPort(); }

 private:
  /// Not before somebody reads: a stream that breaks there is a broken one, not a registry that is
  /// away.
  Status Skip(const CallContext& cc) {
    std::string scratch;
    while (skip_ > 0) {
      scratch.resize(std::size_t{64} << 10U);
      const auto step = static_cast<std::size_t>(std::min<std::uint64_t>(skip_, scratch.size()));
      const std::size_t got = CRISP_TRY(response_.Read(cc, {scratch.data(), step}));
      if (got == 0) return Unavailable("it ends before what was had of it already");
      skip_ -= got;
    }
    return Status::Ok();
  }

  http::Response response_;
  const std::optional<std::uint64_t> total_;
  const bool is_range_;
  std::uint64_t skip_;
  std::atomic<bool>& broke_;
};

}  // namespace

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
    Source::Document document = CRISP_TRY(source.GetWhole(
        cc, "/manifests/" + tag_or_digest, {{"Accept", std::string(ManifestAccept())}},
        "manifest " + tag_or_digest, limit));
    FetchedManifest manifest;
    manifest.media_type = document.response.Header("Content-Type");
    manifest.body = CRISP_TRY(SignedPayload(std::move(document.body)).While("manifest"));
    manifest.digest = digest::Sha256Digest(manifest.body);
    // What was asked for by digest must be it; else the registry's own word must be true.
    const std::string expected =
        by_digest ? tag_or_digest : document.response.Header("Docker-Content-Digest");
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
    const std::string what = "blob " + digest.str();
    Source::Document document =
        CRISP_TRY(source.GetWhole(cc, "/blobs/" + digest.str(), {}, what, limit));
    const digest::Digest found = digest::Sha256Digest(document.body);
    if (found != digest)
      return DataLoss("the blob {} has the digest {}", digest.str(), found.str());
    return std::move(document.body);
  });
}

Result<std::unique_ptr<BlobReader>> RegistryClient::OpenBlob(const CallContext& cc,
                                                             const digest::Digest& digest,
                                                             BlobRange range) {
  using Reader = std::unique_ptr<BlobReader>;
  http::Headers headers;
  if (range.size > 0) {
    headers.emplace_back("Range",
                         fmt::format("bytes={}-{}", range.from, range.from + range.size - 1));
  } else if (range.from > 0) {
    headers.emplace_back("Range", fmt::format("bytes={}-", range.from));
  }
  return Ask<Reader>(cc, true, [&](Source& source) -> Result<Reader> {
    http::Response response =
        CRISP_TRY(source.Get(cc, "/blobs/" + digest.str(), headers, "blob " + digest.str()));
    std::optional<std::uint64_t> total = response.content_length();
    bool is_range = false;
    std::uint64_t skip = 0;
    if (response.status() == 206) {
      const auto sent = ParseContentRange(response.Header("Content-Range"));
      if (!sent || sent->first != range.from ||
          (range.size > 0 && sent->last != range.from + range.size - 1))
        return Unavailable("answers with the wrong range of {}", digest.str());
      if (total) *total += range.from;
      if (sent->total || range.size > 0) total = sent->total;
      is_range = range.size > 0;
    } else if (range.size == 0) {
      skip = range.from;
    }
    return Reader(std::make_unique<ResponseReader>(std::move(response), total, is_range, skip,
                                                   source.failed));
  });
}

}  // namespace crisp::imaged
