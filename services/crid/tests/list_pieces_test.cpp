#include "services/crid/core/list_pieces.h"

#include <catch2/catch.hpp>

#include "cri/v1/api.pb.h"

namespace crisp::crid {
namespace {

runtime::v1::ListContainersResponse ListOf(int count, std::size_t id_bytes) {
  runtime::v1::ListContainersResponse list;
  for (int i = 0; i < count; ++i) {
    list.add_containers()->set_id(std::to_string(i) + std::string(id_bytes, 'x'));
  }
  return list;
}

TEST_CASE("A list is cut between its elements, and the pieces together are the list") {
  const auto list = ListOf(100, 300);
  const auto pieces = CutList(list.SerializeAsString(), 4096);
  REQUIRE(pieces.ok());
  CHECK(pieces->size() >= 8);
  runtime::v1::StreamContainersResponse all;
  for (const std::string& piece : *pieces) {
    CHECK(piece.size() <= 4096);
    runtime::v1::StreamContainersResponse part;
    REQUIRE(part.ParseFromString(piece));
    CHECK(part.containers_size() > 0);
    all.MergeFrom(part);
  }
  REQUIRE(all.containers_size() == 100);
  for (int i = 0; i < 100; ++i) CHECK(all.containers(i).id() == list.containers(i).id());
}

TEST_CASE("An element that is larger than a piece is one by itself") {
  const auto pieces = CutList(ListOf(3, 5000).SerializeAsString(), 1000);
  REQUIRE(pieces.ok());
  CHECK(pieces->size() == 3);
}

TEST_CASE("An empty list is no piece; what is no list is an error") {
  CHECK(CutList("")->empty());
  CHECK_FALSE(CutList("\x12\x01x").ok());
  CHECK_FALSE(CutList("\x0a\x05xx").ok());
  CHECK_FALSE(CutList("\x0a\xff\xff\xff\xff\xff\xff").ok());
}

}  // namespace
}  // namespace crisp::crid
