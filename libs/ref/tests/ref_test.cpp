#include "libs/ref/ref.h"

#include <catch2/catch.hpp>
#include <utility>
#include <vector>

namespace crisp::ref {
namespace {

const std::string kHex(64, 'a');

TEST_CASE("Names get their normal form") {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"busybox", "docker.io/library/busybox:latest"},
      {"busybox:1.36", "docker.io/library/busybox:1.36"},
      {"me/app", "docker.io/me/app:latest"},
      {"docker.io/busybox", "docker.io/library/busybox:latest"},
      {"index.docker.io/me/app", "docker.io/me/app:latest"},
      {"quay.io/a/b/c:v1", "quay.io/a/b/c:v1"},
      {"localhost/x", "localhost/x:latest"},
      {"localhost:5000/x", "localhost:5000/x:latest"},
      {"127.0.0.1:5000/x:y", "127.0.0.1:5000/x:y"},
      {"[::1]:5000/x", "[::1]:5000/x:latest"},
      {"registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"},
      {"a__b/c-d--e.f_g", "docker.io/a__b/c-d--e.f_g:latest"},
      {"busybox@sha256:" + kHex, "docker.io/library/busybox@sha256:" + kHex},
      {"quay.io/a:t@sha256:" + kHex, "quay.io/a:t@sha256:" + kHex},
      {"busybox:Tag_1.x-Y", "docker.io/library/busybox:Tag_1.x-Y"}};
  for (const auto& [text, normal] : table) {
    const auto ref = Parse(text);
    INFO(text);
    REQUIRE(ref.ok());
    CHECK(ref->ToString() == normal);
    // The normal form is its own normal form.
    CHECK(Parse(normal).value() == *ref);
  }
}

TEST_CASE("The parts of a reference") {
  const auto ref = Parse("localhost:5000/a/b:t@sha256:" + kHex);
  REQUIRE(ref.ok());
  CHECK(ref->domain == "localhost:5000");
  CHECK(ref->path == "a/b");
  CHECK(ref->Name() == "localhost:5000/a/b");
  CHECK(ref->Tagged() == "localhost:5000/a/b:t");
  CHECK(ref->Digested() == "localhost:5000/a/b@sha256:" + kHex);
  CHECK(Parse("x@sha256:" + kHex)->tag.empty());
}

TEST_CASE("What is no reference is refused with the reason") {
  for (const std::string& bad : {std::string(),
                                 std::string("Busybox"),
                                 std::string("Team/app"),
                                 std::string("a//b"),
                                 std::string("/a"),
                                 std::string("a/"),
                                 std::string("a:"),
                                 std::string("a:-x"),
                                 std::string("a b"),
                                 std::string("a@sha256:12"),
                                 std::string("a@md5:") + kHex,
                                 std::string("a___b"),
                                 std::string("-a"),
                                 std::string("a..b"),
                                 std::string("http://a/b"),
                                 kHex,
                                 std::string(300, 'a'),
                                 std::string("a:") + std::string(129, 't'),
                                 std::string("../etc"),
                                 std::string("x.io:99999999/a"),
                                 std::string("[::1/a"),
                                 std::string("a@sha256:") + kHex + "0",
                                 std::string("a\0b", 3),
                                 std::string("localhost:5000/"),
                                 std::string(":tag")}) {
    INFO(bad);
    CHECK(Parse(bad).code() == Code::kInvalidArgument);
  }
  CHECK(Parse("docker.io/A").status().message().find("lower case") != std::string::npos);
}

TEST_CASE("A registry is the same in whatever case it is written") {
  CHECK(Parse("Quay.IO:5000/team/x:Tag")->ToString() == "quay.io:5000/team/x:Tag");
  CHECK(Parse("LOCALHOST/x")->Name() == "localhost/x");
  CHECK(Parse("Index.Docker.io/x")->Name() == "docker.io/library/x");
  CHECK(LowerDomain("Quay.IO/team") == "quay.io/team");
  CHECK(LowerDomain("*.Example.com") == "*.example.com");
  CHECK(LowerDomain("Q.io/a:TAG") == "q.io/a:TAG");
}

TEST_CASE("Ids and their beginnings are told from names") {
  CHECK(LooksLikeId(kHex));
  CHECK(LooksLikeId("sha256:" + kHex));
  CHECK(LooksLikeId("abc123"));
  CHECK_FALSE(LooksLikeId("busybox"));
  CHECK_FALSE(LooksLikeId("sha256:abc"));
  CHECK_FALSE(LooksLikeId(""));
  CHECK_FALSE(LooksLikeId(kHex + "a"));
}

}  // namespace
}  // namespace crisp::ref
