#include "services/crid/metrics_http.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>

namespace crisp::crid {
namespace {

constexpr std::string_view kType = "text/plain; version=0.0.4; charset=utf-8";
constexpr std::chrono::seconds kTimeout{5};

bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= 32 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

http::ServerResponse Text(int status, std::string body) {
  http::ServerResponse response;
  response.status = status;
  response.body = std::move(body) + "\n";
  return response;
}

}  // namespace

http::Handler MetricsHandler(daemon::Daemon& daemon) {
  return [&daemon](const http::ServerRequest& request, const http::Respond& respond) {
    std::string_view path = request.target;
    path = path.substr(0, path.find('?'));
    if (path == "/metrics") {
      return daemon.RenderMetrics([respond](Result<std::string> page) {
        if (!page.ok()) return respond(Text(503, page.status().message()));
        http::ServerResponse response;
        response.content_type = kType;
        response.body = *std::move(page);
        respond(std::move(response));
      });
    }
    constexpr std::string_view kPrefix = "/metrics/";
    const std::string_view rest = path.starts_with(kPrefix) ? path.substr(kPrefix.size()) : "";
    const std::size_t slash = rest.find('/');
    if (slash == std::string_view::npos || !IsName(rest.substr(0, slash)) ||
        !IsName(rest.substr(slash + 1))) {
      return respond(Text(404, "here are /metrics and /metrics/<service>/<instance>"));
    }
    const std::string name(rest);
    http::GetUnix(daemon.loop(),
                  daemon.settings().MetricsSocket(rest.substr(0, slash), rest.substr(slash + 1)),
                  "/metrics", kTimeout, [respond, name](Result<http::ServerResponse> answer) {
                    if (!answer.ok())
                      return respond(Text(502, name + ": " + answer.status().message()));
                    respond(*std::move(answer));
                  });
  };
}

}  // namespace crisp::crid
