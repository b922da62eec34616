#include "train/checkpoint/background_save.h"

#include <chrono>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"

namespace carousel {
namespace {

bool ended(const std::future<void>& result) {
  return result.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

}  // namespace

BackgroundSave::~BackgroundSave() { settle(); }

void BackgroundSave::start(std::int64_t step, std::function<void()> save) {
  CAROUSEL_CHECK(!result_.valid(), "step {} is to be saved while step {} is", step, step_);
  step_ = step;
  result_ = std::async(std::launch::async, std::move(save));
}

void BackgroundSave::check() {
  if (result_.valid() && ended(result_)) result_.get();
}

void BackgroundSave::finish(std::string_view who) {
  if (!result_.valid()) return;
  if (!ended(result_)) {
    log::info("{} waits for the checkpoint of step {}, which is still being written", who, step_);
  }
  result_.get();
}

void BackgroundSave::settle() noexcept {
  try {
    finish("the end of the run");
  } catch (const std::exception& e) {
    log::error("the checkpoint of step {} was not saved: {}", step_, e.what());
  }
}

}  // namespace carousel
