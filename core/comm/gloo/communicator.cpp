#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/alltoall.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <csignal>

#include "core/comm/backends.h"
#include "core/comm/cpu_communicator.h"
#include "core/comm/gloo/interruptible_context.h"

namespace carousel::comm {
namespace {

// gloo's rendezvous through our store; a failure that the monitor hears of ends its waits.
class Rendezvous final : public gloo::rendezvous::Store {
 public:
  Rendezvous(comm::Store& store, Monitor& monitor, Milliseconds timeout)
      : store_(store), monitor_(monitor), timeout_(timeout) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    store_.set("gloo/" + key, {data.data(), data.size()});
  }

  std::vector<char> get(const std::string& key) override {
    const std::string value = await(key, timeout_);
    return {value.begin(), value.end()};
  }

  void wait(const std::vector<std::string>& keys) override { wait(keys, timeout_); }
  void wait(const std::vector<std::string>& keys, const Milliseconds& timeout) override {
    for (const std::string& key : keys) await(key, std::min(timeout, timeout_));
  }

 private:
  std::string await(const std::string& key, Milliseconds timeout) {
    const auto deadline = Clock::now() + timeout;
    for (;;) {
      if (auto value = store_.get("gloo/" + key, Milliseconds{200})) return std::move(*value);
      if (monitor_.failure() || Clock::now() >= deadline) {
        throw PeerError("gloo's address '{}' did not come", key);
      }
    }
  }

  comm::Store& store_;
  Monitor& monitor_;
  Milliseconds timeout_;
};

class GlooCommunicator final : public CpuCommunicator {
 public:
  GlooCommunicator(const GroupOptions& options, std::unique_ptr<comm::Store> store)
      : CpuCommunicator(options, std::move(store)) {
    // gloo writes to connections that a dying peer may have closed: an error of the call, not the
    // end of the process.
    std::signal(SIGPIPE, SIG_IGN);
    const Monitor::Ticket ticket = monitor().enter("connecting the ranks");
    start_monitor();
    try {
      plainly([&] { connect(); });
    } catch (const std::exception& e) {
      const std::string problem = monitor().explain(ticket, e.what());
      stop_monitor();
      throw PeerError("{}", problem);
    }
    start_worker();
  }

  ~GlooCommunicator() override {
    stop_monitor();
    stop_worker();
  }

  const char* backend() const override { return "gloo"; }

 private:
  void connect() {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = store().local_address();
    auto device = gloo::transport::tcp::CreateDevice(attributes);
    auto context = std::make_shared<InterruptibleContext>(rank(), world_size());
    context->setTimeout(options().timeout);
    Rendezvous rendezvous(store(), monitor(), options().timeout);
    context->connect(rendezvous, device);
    const std::lock_guard lock(mutex_);
    context_ = std::move(context);
  }

  void all_reduce_now(void* data, std::int64_t count, DType type) override {
    gloo::AllreduceOptions call(context_);
    if (type == DType::kF32) {
      call.setOutput(static_cast<float*>(data), static_cast<std::size_t>(count));
      call.setReduceFunction(static_cast<Reduction*>(&gloo::sum<float>));
    } else {
      call.setOutput(static_cast<double*>(data), static_cast<std::size_t>(count));
      call.setReduceFunction(static_cast<Reduction*>(&gloo::sum<double>));
    }
    plainly([&] { gloo::allreduce(call); });
  }

  void all_to_all_now(const void* from, void* to, std::size_t block_bytes) override {
    const std::size_t bytes = block_bytes * static_cast<std::size_t>(world_size());
    gloo::AlltoallOptions call(context_);
    call.setInput(static_cast<char*>(const_cast<void*>(from)), bytes);
    call.setOutput(static_cast<char*>(to), bytes);
    plainly([&] { gloo::alltoall(call); });
  }

  void all_gather_now(void* data, std::size_t block_bytes) override {
    gloo::AllgatherOptions call(context_);
    call.setOutput(static_cast<char*>(data), block_bytes * static_cast<std::size_t>(world_size()));
    plainly([&] { gloo::allgather(call); });
  }

  void broadcast_now(void* data, std::size_t bytes, int root) override {
    gloo::BroadcastOptions call(context_);
    call.setOutput(static_cast<char*>(data), bytes);
    call.setRoot(root);
    plainly([&] { gloo::broadcast(call); });
  }

  void interrupt() noexcept override {
    const std::lock_guard lock(mutex_);
    if (context_ != nullptr) context_->interrupt();
  }

  // Runs call(); its errors lose the place in gloo's source that they begin with.
  template <class Call>
  void plainly(Call&& call) {
    try {
      call();
    } catch (const gloo::Exception& e) {
      const std::string text = e.what();
      const std::size_t end = text.starts_with('[') ? text.find("] ") : std::string::npos;
      throw PeerError("{}", end == std::string::npos ? text : text.substr(end + 2));
    }
  }

  using Reduction = void(void*, const void*, const void*, std::size_t);

  std::mutex mutex_;  // of context_, which interrupt() uses from other threads
  std::shared_ptr<InterruptibleContext> context_;
};

}  // namespace

std::unique_ptr<Communicator> make_gloo(const GroupOptions& options, std::unique_ptr<Store> store) {
  return std::make_unique<GlooCommunicator>(options, std::move(store));
}

bool has_gloo() { return true; }

}  // namespace carousel::comm
