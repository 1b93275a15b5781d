#include "libs/http/url.h"

#include <catch2/catch.hpp>

#include "libs/base/text.h"

namespace crisp::http {
namespace {

TEST_CASE("A URL is taken apart, with the port that its scheme stands for") {
  const Url url = *Url::Parse("HTTPS://Registry.Example.com/v2/a?b=c#d");
  CHECK(url.host == "registry.example.com");
  CHECK(url.port == 443);
  CHECK(url.target == "/v2/a?b=c");
  CHECK(url.HostPort() == "registry.example.com");
  CHECK(url.ForLog() == "https://registry.example.com/v2/a");
  const Url six = *Url::Parse("http://[::1]:5000");
  CHECK(six.host == "::1");
  CHECK(six.HostPort() == "[::1]:5000");
  CHECK(six.target == "/");
  for (const char* bad : {"", "x", "ftp://a/", "http://", "http://a:b/", "http://a:0/",
                          "http://u:p@a/", "http://a b/", "http://[::1", "http://a:1:2/"})
    CHECK_FALSE(Url::Parse(bad).ok());
}

TEST_CASE("A redirect may be absolute, of the same scheme, of the same host, or relative") {
  const Url url = *Url::Parse("https://a:8443/v2/x/blobs/y?z=1");
  CHECK(url.Resolve("http://b/c")->Origin() == "http://b:80");
  CHECK(url.Resolve("//b/c")->Origin() == "https://b:443");
  CHECK(url.Resolve("/c?d")->target == "/c?d");
  CHECK(url.Resolve("c")->target == "/v2/x/blobs/c");
  CHECK(url.Resolve("/c")->port == 8443);
  CHECK_FALSE(url.Resolve("ftp://b/").ok());
  CHECK_FALSE(url.Resolve("/a\r\nX: y").ok());
}

TEST_CASE("Base64 and percent encoding go there and back") {
  CHECK(Base64("user:pass") == "dXNlcjpwYXNz");
  CHECK(Base64("a") == "YQ==");
  CHECK(Base64("ab") == "YWI=");
  CHECK(*FromBase64("YWI=") == "ab");
  CHECK(*FromBase64("YWI") == "ab");
  CHECK_FALSE(FromBase64("Y").ok());
  CHECK_FALSE(FromBase64("Y*==").ok());
  CHECK(PercentEncode("repository:a/b:pull ") == "repository%3Aa%2Fb%3Apull%20");
}

}  // namespace
}  // namespace crisp::http
