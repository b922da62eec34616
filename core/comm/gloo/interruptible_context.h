// gloo's connections, with a way to end the calls that wait for them.
#pragma once

#include <gloo/rendezvous/context.h>

#include <memory>

namespace carousel::comm {

/// Closing connections, or an error on them, does not end every call of gloo's that waits for them
/// before its time-out; interrupt() does. For that, all buffers are known here.
class InterruptibleContext final : public gloo::rendezvous::Context {
 public:
  using gloo::rendezvous::Context::Context;

  /// Connects all ranks with each other.
  void connect(gloo::rendezvous::Store& store, std::shared_ptr<gloo::transport::Device>& device);
  /// From any thread, once connected: calls that wait, and those to come, throw gloo::Exception.
  void interrupt();

 private:
  class Buffer;
  class Transport;
  std::shared_ptr<Transport> transport_;
};

}  // namespace carousel::comm
