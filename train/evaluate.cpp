#include "train/evaluate.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>

#include "core/kernels/cross_entropy.h"
#include "train/loss.h"

namespace carousel {
namespace {

// Sums by position, from which all other figures follow.
struct Totals {
  std::vector<double> loss;
  std::vector<std::int64_t> count;
  std::vector<std::int64_t> correct;
  std::int64_t bytes = 0;

  void add_over_ranks(comm::Communicator& communicator) {
    std::vector<double> all = loss;
    all.insert(all.end(), count.begin(), count.end());
    all.insert(all.end(), correct.begin(), correct.end());
    all.push_back(static_cast<double>(bytes));
    communicator.sum_on_host(all, "evaluation");
    const std::size_t n = loss.size();
    for (std::size_t p = 0; p < n; ++p) {
      loss[p] = all[p];
      count[p] = static_cast<std::int64_t>(all[n + p]);
      correct[p] = static_cast<std::int64_t>(all[2 * n + p]);
    }
    bytes = static_cast<std::int64_t>(all[3 * n]);
  }
};

std::vector<double> per_token_loss(const BatchLoss& result) {
  const Tensor host = result.per_token.to(kCpu);
  if (host.dtype() == DType::kF64) return host.to_vector<double>();
  const auto values = host.to_vector<float>();
  return {values.begin(), values.end()};
}

void add_batch(const LanguageModel& model, const Batch& batch, const Tokenizer* tokenizer,
               Totals& totals) {
  const BatchLoss result = batch_loss(model, batch, {});
  const std::vector<double> loss = per_token_loss(result);
  const auto correct = result.correct.to_vector<std::uint8_t>();
  const auto targets = batch.targets.to_vector<std::int32_t>();
  const auto seq = static_cast<std::size_t>(batch.tokens.dim(1));
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] == kIgnoreTarget) continue;
    totals.loss[t % seq] += loss[t];
    ++totals.count[t % seq];
    totals.correct[t % seq] += correct[t];
    if (tokenizer != nullptr) {
      bool at_start = false;  // a word keeps the space in front of it
      totals.bytes += std::ssize(tokenizer->decode_token(targets[t], at_start));
    }
  }
}

}  // namespace

double EvalResult::perplexity() const { return std::exp(loss); }

EvalResult evaluate(const LanguageModel& model, const BatchSource& source, std::int64_t micro_batch,
                    const Tokenizer* tokenizer, comm::Communicator* communicator,
                    const std::function<void()>& between) {
  const NoGrad no_grad;
  // The ids that `none` prints are no text to count bytes of.
  if (tokenizer != nullptr && tokenizer->kind() == "none") tokenizer = nullptr;
  Totals totals;
  totals.loss.resize(static_cast<std::size_t>(source.seq_len()));
  totals.count.resize(totals.loss.size());
  totals.correct.resize(totals.loss.size());
  const std::int64_t ranks = communicator != nullptr ? communicator->world_size() : 1;
  const std::int64_t rank = communicator != nullptr ? communicator->rank() : 0;
  // By default as many as a rank trains on at once: more might not fit in its memory.
  const std::int64_t size =
      micro_batch > 0 ? micro_batch : (source.batch_size() + ranks - 1) / ranks;
  std::int64_t index = 0;  // of the micro-batch
  for (std::int64_t b = 0; b < source.num_batches(); ++b) {
    for (std::int64_t begin = 0; begin < source.batch_size(); begin += size) {
      if (index % ranks == 0 && between) between();
      if (index++ % ranks != rank) continue;
      const Batch batch = source.batch(b, begin, std::min(begin + size, source.batch_size()));
      if (batch.target_count > 0) add_batch(model, batch, tokenizer, totals);
    }
  }
  if (communicator != nullptr) totals.add_over_ranks(*communicator);

  EvalResult result;
  double loss = 0.0;
  for (std::size_t p = 0; p < totals.loss.size(); ++p) {
    loss += totals.loss[p];
    result.targets += totals.count[p];
    result.loss_by_position.push_back(
        totals.count[p] > 0 ? totals.loss[p] / static_cast<double>(totals.count[p]) : 0.0);
  }
  if (result.targets == 0) throw DataError("the validation data has no token to predict");
  result.loss = loss / static_cast<double>(result.targets);
  const auto correct =
      std::accumulate(totals.correct.begin(), totals.correct.end(), std::int64_t{});
  result.accuracy = static_cast<double>(correct) / static_cast<double>(result.targets);
  result.targets_by_position = std::move(totals.count);
  result.correct_by_position = std::move(totals.correct);
  if (totals.bytes > 0) {
    result.bits_per_byte = loss / std::numbers::ln2 / static_cast<double>(totals.bytes);
  }
  return result;
}

std::string by_position(const EvalResult& result) {
  std::string text;
  const std::size_t seq = result.loss_by_position.size();
  for (std::size_t begin = 0, end = 1; begin < seq; begin = end, end *= 2) {
    end = std::min(end, seq);
    double loss = 0.0;
    double targets = 0.0;
    double correct = 0.0;
    for (std::size_t p = begin; p < end; ++p) {
      const auto count = static_cast<double>(result.targets_by_position[p]);
      loss += count * result.loss_by_position[p];
      targets += count;
      correct += static_cast<double>(result.correct_by_position[p]);
    }
    if (targets == 0.0) continue;
    text += fmt::format("  tokens {:>6} to {:>6}  loss {:.4f}  accuracy {:5.1f} %\n", begin + 1,
                        end, loss / targets, 100.0 * correct / targets);
  }
  return text;
}

nlohmann::json eval_record(std::int64_t step, const EvalResult& result) {
  nlohmann::json json = {{"step", step},
                         {"val_loss", result.loss},
                         {"val_perplexity", result.perplexity()},
                         {"val_accuracy", result.accuracy}};
  if (result.bits_per_byte) json["val_bits_per_byte"] = *result.bits_per_byte;
  return json;
}

std::string to_string(const EvalResult& result) {
  std::string text =
      fmt::format("loss {:.4f} | perplexity {:.4g}", result.loss, result.perplexity());
  if (result.bits_per_byte) text += fmt::format(" | {:.3f} bits/byte", *result.bits_per_byte);
  return text +
         fmt::format(" | accuracy {:.1f} % | {} targets", 100.0 * result.accuracy, result.targets);
}

}  // namespace carousel
