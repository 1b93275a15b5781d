#pragma once

#include <chrono>
#include <vector>

#include "libs/os/unique_fd.h"

namespace crisp::rpc {

/// Tells the clients of HTTP/2 connections that these take no new calls (GOAWAY), while the server
/// goes on to serve those that come nevertheless: a client sends its next call on a new connection.
/// Returns when all have heard it, at the latest after `limit` (who does not read does not hear).
///
/// gRPC says the same, but only once its server is shut down; a call that is on its way then is
/// lost, and its client cannot know that it was not begun. `connections` are descriptors of ours
/// for the sockets that gRPC serves. The frame goes out when nothing else is on its way, so that it
/// does not fall into the midst of a frame of gRPC's.
void SayGoodbye(const std::vector<os::UniqueFd>& connections, std::chrono::milliseconds limit);

/// The other side has closed the connection, or our server has.
bool HungUp(const os::UniqueFd& connection);

}  // namespace crisp::rpc
