#include "core/comm/gloo/interruptible_context.h"

#include <gloo/common/error.h>
#include <gloo/transport/context.h>

#include <mutex>
#include <set>
#include <utility>
#include <vector>

namespace carousel::comm {

// Makes buffers that pass all on to the TCP transport's.
class InterruptibleContext::Transport final : public gloo::transport::Context {
 public:
  explicit Transport(std::shared_ptr<gloo::transport::Context> tcp)
      : gloo::transport::Context(tcp->rank, tcp->size), tcp_(std::move(tcp)) {}

  std::unique_ptr<gloo::transport::Pair>& getPair(int peer) override { return tcp_->getPair(peer); }
  std::unique_ptr<gloo::transport::Pair>& createPair(int peer) override {
    return tcp_->createPair(peer);
  }
  std::unique_ptr<gloo::transport::UnboundBuffer> createUnboundBuffer(void* data,
                                                                      std::size_t bytes) override;
  void interrupt();

 private:
  friend class Buffer;

  std::shared_ptr<gloo::transport::Context> tcp_;
  std::mutex mutex_;
  std::set<Buffer*> buffers_;
  bool interrupted_ = false;
};

class InterruptibleContext::Buffer final : public gloo::transport::UnboundBuffer {
 public:
  Buffer(Transport& transport, void* data, std::size_t bytes)
      : UnboundBuffer(data, bytes),
        transport_(transport),
        tcp_(transport.tcp_->createUnboundBuffer(data, bytes)) {
    const std::lock_guard lock(transport_.mutex_);
    transport_.buffers_.insert(this);
    if (transport_.interrupted_) abort();
  }
  ~Buffer() override {
    const std::lock_guard lock(transport_.mutex_);
    transport_.buffers_.erase(this);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  bool waitRecv(int* rank, std::chrono::milliseconds timeout) override {
    return completed(tcp_->waitRecv(rank, timeout));
  }
  bool waitSend(int* rank, std::chrono::milliseconds timeout) override {
    return completed(tcp_->waitSend(rank, timeout));
  }
  void abortWaitRecv() override { tcp_->abortWaitRecv(); }
  void abortWaitSend() override { tcp_->abortWaitSend(); }
  void send(int rank, std::uint64_t slot, std::size_t offset, std::size_t bytes) override {
    tcp_->send(rank, slot, offset, bytes);
  }
  void recv(int rank, std::uint64_t slot, std::size_t offset, std::size_t bytes) override {
    tcp_->recv(rank, slot, offset, bytes);
  }
  void recv(std::vector<int> ranks, std::uint64_t slot, std::size_t offset,
            std::size_t bytes) override {
    tcp_->recv(std::move(ranks), slot, offset, bytes);
  }

  // Ends the wait at hand or, if there is none, the next one.
  void abort() {
    tcp_->abortWaitRecv();
    tcp_->abortWaitSend();
  }

 private:
  // gloo's collectives do not look at what a wait returns.
  static bool completed(bool result) {
    if (!result) throw gloo::Exception("interrupted");
    return result;
  }

  Transport& transport_;
  std::unique_ptr<gloo::transport::UnboundBuffer> tcp_;
};

std::unique_ptr<gloo::transport::UnboundBuffer>
InterruptibleContext::Transport::createUnboundBuffer(void* data, std::size_t bytes) {
  return std::make_unique<Buffer>(*this, data, bytes);
}

void InterruptibleContext::Transport::interrupt() {
  const std::lock_guard lock(mutex_);
  interrupted_ = true;
  for (Buffer* buffer : buffers_) buffer->abort();
}

void InterruptibleContext::connect(gloo::rendezvous::Store& store,
                                   std::shared_ptr<gloo::transport::Device>& device) {
  connectFullMesh(store, device);
  transport_ = std::make_shared<Transport>(transportContext_);
  transportContext_ = transport_;
}

void InterruptibleContext::interrupt() { transport_->interrupt(); }

}  // namespace carousel::comm
