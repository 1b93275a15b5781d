#include "services/imaged/registry/retry.h"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <random>

#include "libs/base/try.h"
#include "libs/work/pause.h"

namespace crisp::imaged {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kMaxTries = 4;
constexpr milliseconds kFirstPause{250};
constexpr int kMaxDoublings = 5;
constexpr seconds kLongestPause{30};

/// Retry-After, in seconds or as a date, where the server says so.
std::chrono::nanoseconds PauseAfter(const http::Response& response, int tries) {
  const std::string header = response.Header("Retry-After");
  std::int64_t wanted = 0;
  const auto [end, error] = std::from_chars(header.data(), header.data() + header.size(), wanted);
  if (error != std::errc() || end != header.data() + header.size()) {
    wanted = 0;
    std::tm date{};
    if (::strptime(header.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date) != nullptr)
      wanted = ::timegm(&date) - ::time(nullptr);
  }
  if (wanted > 0) return std::min<seconds>(seconds(wanted), kLongestPause);
  return BackOff(tries);
}

}  // namespace

std::chrono::nanoseconds BackOff(int tries) {
  thread_local std::minstd_rand random(std::random_device{}());
  const milliseconds full = kFirstPause * (1 << std::min(tries, kMaxDoublings));
  return full / 2 + milliseconds(std::uniform_int_distribution<int>(
                        0, static_cast<int>(full.count()) / 2)(random));
}

Result<http::Response> SendPatiently(const CallContext& cc, http::Client& client,
                                     const http::Request& request) {
  for (int tries = 0;; ++tries) {
    Result<http::Response> response = client.Send(cc, request);
    if (!response.ok()) {
      // Nobody there at all is told sooner.
      if (response.code() != Code::kUnavailable || tries + 1 >= kMaxTries - 1) return response;
      CRISP_TRY(work::Pause(cc, BackOff(tries)));
      continue;
    }
    const int status = response->status();
    const bool again = status == 429 || status == 408 || status / 100 == 5;
    if (!again || tries + 1 >= kMaxTries) return response;
    CRISP_TRY(work::Pause(cc, PauseAfter(*response, tries)));
  }
}

}  // namespace crisp::imaged
