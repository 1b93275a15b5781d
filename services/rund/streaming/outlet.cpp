#include "services/rund/streaming/outlet.h"

namespace crisp::rund::streaming {

bool Outlet::MayKeep() const {
  const OutletLimits& limits = share_.limits;
  return bytes_ < limits.always || (bytes_ < limits.one && share_.waiting < limits.all);
}

void Outlet::Put(Packet& packet) {
  if (!stream_ || stream_->gone()) return;
  if (leaving_out_) {
    left_out_ += packet.bytes().size();
  } else if (kept_.empty() && HasRoom()) {
    stream_->Send(packet.bytes());
  } else if (MayKeep()) {
    Add(packet.Keep());
  } else {
    leaving_out_ = true;
    left_out_ = packet.bytes().size();
  }
}

void Outlet::Say(std::string_view text) {
  if (!stream_ || stream_->gone()) return;
  if (kept_.empty() && HasRoom()) return stream_->Send(text);
  Add(Packet(text).Keep());
}

void Outlet::Add(const Packet::Kept& piece) {
  kept_.push_back(piece);
  bytes_ += piece->size();
  share_.waiting += piece->size();
}

void Outlet::SendFirst() {
  // Whatever the stream's handlers do to us meanwhile.
  const Packet::Kept piece = std::move(kept_.front());
  kept_.pop_front();
  bytes_ -= piece->size();
  share_.waiting -= piece->size();
  stream_->Send(*piece);
}

void Outlet::OnRoom() {
  if (!stream_) return;
  if (stream_->gone()) return Clear();
  while (!kept_.empty() && HasRoom()) SendFirst();
  if (kept_.empty() && HasRoom()) EndGap();
}

void Outlet::Finish() {
  if (!stream_) return;
  while (!kept_.empty() && !stream_->gone()) SendFirst();
  EndGap();
}

void Outlet::EndGap() {
  if (!std::exchange(leaving_out_, false)) return;
  on_gap_(std::exchange(left_out_, 0));
}

void Outlet::Clear() {
  if (bytes_ > 0) share_.waiting -= bytes_;
  kept_.clear();
  bytes_ = 0;
}

}  // namespace crisp::rund::streaming
