#include "services/rund/streaming/descriptor.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <utility>

#include "libs/log/log.h"
#include "libs/loop/loop.h"
#include "libs/os/pipe.h"

namespace crisp::rund::streaming {

namespace asio = boost::asio;
using boost::system::error_code;

struct Descriptor::Impl {
  explicit Impl(asio::io_context& io) : stream(io) {}
  void Wait(asio::posix::stream_descriptor::wait_type kind, std::function<void()> fn) {
    if (!stream.is_open()) return;
    stream.async_wait(kind,
                      [open = std::weak_ptr(this->open), fn = std::move(fn)](const error_code&) {
                        // An error the next read or write will meet as well. Closed meanwhile: not
                        // told.
                        if (open.lock()) fn();
                      });
  }
  asio::posix::stream_descriptor stream;
  std::shared_ptr<int> open = std::make_shared<int>();
};

Descriptor::Descriptor(loop::Loop& loop, os::UniqueFd fd)
    : impl_(std::make_unique<Impl>(loop.io())) {
  log::IfError("make a stream non-blocking", os::SetNonBlocking(fd.get()));
  error_code error;
  impl_->stream.assign(fd.get(), error);
  if (error) {
    log::Error("a stream cannot be watched", {{"error", error.message()}});
    return;  // closed: whoever reads it sees the end
  }
  fd.release();
}

Descriptor::~Descriptor() { Close(); }

int Descriptor::fd() const { return impl_->stream.is_open() ? impl_->stream.native_handle() : -1; }

void Descriptor::WhenReadable(std::function<void()> fn) {
  impl_->Wait(asio::posix::stream_descriptor::wait_read, std::move(fn));
}

void Descriptor::WhenWritable(std::function<void()> fn) {
  impl_->Wait(asio::posix::stream_descriptor::wait_write, std::move(fn));
}

void Descriptor::Close() {
  impl_->open.reset();
  error_code ignored;
  impl_->stream.close(ignored);
}

}  // namespace crisp::rund::streaming
