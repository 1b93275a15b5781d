#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/websocket.hpp>

#include "libs/base/status.h"

// What connections of Boost's have in common, whichever layers they have. For sources, not for
// headers: it costs seconds to read.
namespace crisp::http {

using TlsSocket = boost::asio::ssl::stream<boost::asio::ip::tcp::socket>;

/// The socket at the bottom.
inline boost::asio::ip::tcp::socket& Lowest(boost::asio::ip::tcp::socket& socket) { return socket; }
inline boost::asio::ip::tcp::socket& Lowest(TlsSocket& stream) { return stream.next_layer(); }
template <typename Stream>
boost::asio::ip::tcp::socket& Lowest(boost::beast::websocket::stream<Stream>& stream) {
  return Lowest(stream.next_layer());
}

/// Ok for an end that the other side made, orderly or not; kUnavailable for all others.
inline Status FromStreamError(const boost::system::error_code& error) {
  if (error == boost::asio::error::eof || error == boost::beast::websocket::error::closed ||
      error == boost::asio::ssl::error::stream_truncated) {
    return Status::Ok();
  }
  return Unavailable("the connection broke: {}", error.message());
}

}  // namespace crisp::http
