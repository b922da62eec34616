#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "core/base/log.h"
#include "core/kernels/matmul.h"
#include "data/tokenizer.h"
#include "optim/schedule.h"
#include "train/distributed/checkpoint_parts.h"
#include "train/environment.h"
#include "train/generation.h"
#include "train/interchange/published_model.h"
#include "train/model_factory.h"
#include "train/peak_flops.h"
#include "train/resume.h"
#include "train/run_file.h"
#include "train/step.h"
#include "train/weights.h"

namespace carousel {
namespace {

using Clock = std::chrono::steady_clock;

bool due(std::int64_t every, std::int64_t step) { return every > 0 && step % every == 0; }

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

Trainer::Trainer(const Config& config)
    : config_(config),
      directory_(config.output_dir),
      launch_(detect_launch_environment()),
      progress_(config.logging.every) {
  allow_tf32 = config_.tf32;
  if (!first()) log::set_level(log::level::warn);
  told_once(launch_, [&] {
    check_shares(config_, launch_.world_size);
    device_ = device_of_process(config.device, launch_);
    group_ = join_group(config_, launch_, device_);
  });
  stop_.emplace();  // until here a signal ends the process, as there is nothing to save
  peak_flops_ =
      peak_flops(backend_for(device_.type).name(device_), config_.precision, config_.tf32);
  if (peak_flops_) *peak_flops_ *= launch_.world_size;
  telling_others([&] { set_up(); });
}

template <class Work>
void Trainer::telling_others(Work&& work) {
  try {
    work();
  } catch (const Preempted&) {
    throw;  // all ranks stop at one step
  } catch (const std::exception& e) {
    if (group_) group_->communicator().abort(e.what());
    throw;
  }
}

void Trainer::set_up() {
  if (first()) open_run_directory();
  const auto checkpoint = checkpoint_to_resume();
  if (checkpoint) require_same_config(*checkpoint, config_);
  dataset_ = open_dataset(config_.data,
                          {.seed = static_cast<std::uint64_t>(config_.seed),
                           .eval_batches = config_.eval.batches,
                           .vocab_size = config_.model.vocab_size.value_or(0)},
                          checkpoint ? tokenizer_to_keep(*checkpoint) : nullptr);
  if (checkpoint) require_same_data(*checkpoint, dataset_);
  if (first() && config_.sample.every > 0) {
    sample_prompt_ = dataset_.tokenizer->encode(config_.sample.prompt, {.name = "sample.prompt"});
  }
  model_ = make_model(config_.model, dataset_.train->vocab_size());
  if (group_) {
    parallel_.emplace(model_->parameters(), group_->communicator(), parallel_options(config_),
                      config_.precision);
    optimizer_.emplace(model_->parameters(), config_.optim, parallel_->owned());
  } else {
    model_->parameters().materialise(device_, config_.precision);
    optimizer_.emplace(model_->parameters(), config_.optim);
  }
  if (checkpoint) {
    restore(*checkpoint);
  } else {
    model_->parameters().initialise(static_cast<std::uint64_t>(config_.seed));
  }
  if (config_.checkpoint.async && (first() || sharded())) {
    std::vector<Tensor> sources{optimizer_->m(), optimizer_->v()};
    if (first() || !model_->parameters().masters_whole()) {
      sources.push_back(model_->parameters().master());
    }
    snapshot_.emplace(std::move(sources));
  }
  if (first()) {
    // Only now: a start that is refused leaves those of the run that is there.
    write_run_file(directory_ / "config.yaml", to_yaml(config_));
    write_environment(directory_ / "env.json");
    records_.emplace(config_, step_,
                     run_facts(config_, *model_, dataset_, device_, launch_.world_size));
  }
  report_start(checkpoint ? &*checkpoint : nullptr);
}

// Rank 0 chooses; the others open the same one.
std::optional<Checkpoint> Trainer::checkpoint_to_resume() {
  std::optional<Checkpoint> checkpoint;
  if (first()) {
    Beginning beginning = choose_beginning(config_, directory_ / "checkpoints");
    checkpoint = std::move(beginning.checkpoint);
    resumed_from_ = std::move(beginning.resumed_from);
  }
  if (!group_) return checkpoint;
  const std::string path =
      communicator()->gather(checkpoint ? checkpoint->path().string() : "", "checkpoint")[0];
  if (!first() && !path.empty()) checkpoint = Checkpoint::open(path);
  return checkpoint;
}

void Trainer::open_run_directory() {
  std::error_code error;
  std::filesystem::create_directories(directory_, error);
  if (error) {
    throw UsageError("cannot create the run directory '{}': {}; choose another output_dir",
                     directory_.string(), error.message());
  }
  lock_.emplace(directory_, DirectoryLock::Mode::kTry);
  if (!lock_->held()) {
    throw UsageError(
        "another process is training in '{}'; wait for it or choose another output_dir",
        directory_.string());
  }
  init_logging((directory_ / "train.log").string());
}

void Trainer::report_start(const Checkpoint* beginning) const {
  log::info("run directory {}", directory_.string());
  log::info("{} parameters on {}, {}", model_->parameters().count(), to_string(device_),
            name_of(config_.precision));
  if (group_) {
    log::info("{} processes over {}{}", launch_.world_size, group_->communicator().backend(),
              sharded() ? ", optimizer sharded" : "");
  }
  log::info("train on {}", dataset_.train->describe(config_.steps));
  if (dataset_.validation != nullptr) log::info("validate on {}", dataset_.validation->describe());
  if (step_ >= config_.steps) {
    log::info("step {} of {} is done already; raise steps to go on", step_, config_.steps);
  } else if (beginning != nullptr && is_imported(*beginning)) {
    log::info("beginning with the weights of {}", beginning->path().string());
  } else if (beginning != nullptr) {
    log::info("resuming at step {} of {}, from {}", step_ + 1, config_.steps,
              beginning->path().string());
  }
}

void Trainer::restore(const Checkpoint& checkpoint) {
  load_weights(checkpoint.model(), model_->parameters());
  if (is_imported(checkpoint)) return;
  load_moments(checkpoint.optimizer(), *optimizer_, model_->parameters());
  step_ = saved_step_ = checkpoint.step();
}

void Trainer::run() {
  telling_others([&] {
    try {
      train();
    } catch (const NonFiniteError&) {
      in_flight_.settle();  // all ranks come here, and what they are saving is good
      throw;
    }
  });
}

void Trainer::train() {
  // The evaluation in which a stop or a crash came; not that of a model nobody has trained.
  if (step_ > 0 && evaluation_due(step_) && !evaluated_before()) evaluate_now(step_);
  const auto begin = Clock::now();
  const std::int64_t begun_at = step_;
  while (step_ < config_.steps) {
    StepReport report = train_step(step_ + 1);
    ++step_;
    const double mean = seconds_since(begin) / static_cast<double>(step_ - begun_at);
    report.eta_seconds = mean * static_cast<double>(config_.steps - step_);
    if (first()) {
      records_->write(step_record(report));
      progress_.show(report);
    }
    in_flight_.check();
    after_step(step_);
    if (step_ < config_.steps) stop_for(group_ ? signal_ : stop_signal());
  }
  save_last("finished");
}

// Whether metrics.jsonl has the evaluation of the step that the run is resumed at.
bool Trainer::evaluated_before() {
  const bool mine = first() && records_->evaluated();
  return group_ ? communicator()->gather(mine ? "yes" : "", "evaluated")[0] == "yes" : mine;
}

void Trainer::stop_for(int signal) {
  if (signal == 0) return;
  save_last("stopped on request");
  throw Preempted(
      "stopped by the signal '{}' after step {}, which is saved; start again to continue",
      ::strsignal(signal), step_);
}

// Of the signals that ranks have got the largest.
int Trainer::stop_signal() {
  const double mine = stop_->requested();
  if (!group_) return static_cast<int>(mine);
  const Tensor signals = communicator()->gather_values({&mine, 1}, "stop signals");
  const std::vector<double> all = signals.to_vector<double>();
  communicator()->check();
  return static_cast<int>(std::ranges::max(all));
}

Batch Trainer::load(std::int64_t step) const {
  const BatchSource& source = *dataset_.train;
  const std::int64_t share = source.batch_size() / launch_.world_size;
  return source.batch(step - 1, share * launch_.rank, share * (launch_.rank + 1));
}

StepReport Trainer::train_step(std::int64_t step) {
  const auto begin = Clock::now();
  const double lr = learning_rate(config_.optim.lr, config_.schedule, step - 1, config_.steps);
  const Next now = next_.step == step ? std::move(next_) : Next{step, load(step), std::nullopt};
  const auto prepare = [&]() -> std::vector<double> {
    next_ = {};
    if (step < config_.steps) next_ = {step + 1, load(step + 1), std::nullopt};
    return {static_cast<double>(next_.batch.target_count), static_cast<double>(stop_->requested())};
  };
  const StepResult result = run_step(*model_, *optimizer_, now.batch,
                                     {.seed = static_cast<std::uint64_t>(config_.seed),
                                      .step = step,
                                      .lr = lr,
                                      .micro_batch_size = config_.micro_batch_size.value_or(0),
                                      .recompute = config_.recompute,
                                      .deterministic = config_.distributed.deterministic,
                                      .targets = now.targets,
                                      .before_update =
                                          [this] {
                                            if (snapshot_) snapshot_->hold_up();
                                          },
                                      .meanwhile = prepare,
                                      .parallel = parallel_ ? &*parallel_ : nullptr});
  next_.targets = 0.0;
  signal_ = 0;
  for (const std::vector<double>& of_rank : result.told) {
    *next_.targets += of_rank[0];
    signal_ = std::max(signal_, static_cast<int>(of_rank[1]));
  }
  const std::int64_t tokens = now.batch.tokens.numel() * launch_.world_size;
  return {.step = step,
          .steps = config_.steps,
          .loss = result.loss,
          .gradient_norm = result.gradient_norm,
          .lr = lr,
          .seconds = seconds_since(begin),
          .tokens = tokens,
          .training_flops = 3.0 * model_->forward_flops_per_token(dataset_.train->seq_len()) *
                            static_cast<double>(tokens),
          .peak_flops = peak_flops_,
          .memory_bytes = memory_in_use(device_)};
}

bool Trainer::evaluation_due(std::int64_t step) const {
  return dataset_.validation != nullptr && (due(config_.eval.every, step) || step == config_.steps);
}

void Trainer::after_step(std::int64_t step) {
  if (evaluation_due(step)) evaluate_now(step);
  if (due(config_.checkpoint.every, step)) save(step, true);
  if (due(config_.sample.every, step)) sample_now(step);
}

void Trainer::evaluate_now(std::int64_t step) {
  const EvalResult result =
      evaluate(*model_, *dataset_.validation, config_.micro_batch_size.value_or(0),
               dataset_.tokenizer.get(), communicator(), [this] { stop_if_asked(); });
  if (first()) {
    records_->write(eval_record(step, result));
    records_->report("training", step);
  }
  log::info("validation at step {}: {}", step, to_string(result));
}

void Trainer::sample_now(std::int64_t step) {
  if (!first()) {  // rank 0 writes it
    for (std::int64_t token = 0; token < config_.sample.tokens; ++token) stop_if_asked();
    return;
  }
  StreamDecoder decoder(*dataset_.tokenizer);
  std::string text = config_.sample.prompt;
  for (const std::int32_t token : sample_prompt_) decoder.push(token);
  generate(*model_, sample_prompt_, config_.sample.tokens,
           {.temperature = config_.sample.temperature,
            .vocab_size = dataset_.tokenizer->vocab_size(),
            .seed = static_cast<std::uint64_t>(config_.seed + step)},
           [&](std::int32_t token) {
             text += decoder.push(token);
             stop_if_asked();
             return true;
           });
  log::info("sample at step {}:\n{}", step, text + decoder.finish());
}

void Trainer::save(std::int64_t step, bool background) {
  if (saved_step_ == step || !(first() || sharded())) return;
  const auto begin = Clock::now();
  in_flight_.finish(fmt::format("the checkpoint of step {}", step));
  saved_step_ = step;
  if (background && snapshot_) {
    snapshot_->take();
    in_flight_.start(step, [this, write = checkpoint_writer(step, true)] {
      snapshot_->wait();
      write();
    });
  } else {
    checkpoint_writer(step, false)();
  }
  if (first()) records_->write(checkpoint_record(step, seconds_since(begin)));
}

void Trainer::save_last(const std::string& state) {
  save(step_, false);
  in_flight_.finish("the end of the run");
  if (first()) records_->report(state, step_);
  // Launchers may end the other processes when the first has ended.
  if (group_) communicator()->barrier("last checkpoint");
}

// What writes this rank's part of the checkpoint, from the weights and moments themselves or from
// their snapshot; it starts no collective and touches nothing else that training changes.
std::function<void()> Trainer::checkpoint_writer(std::int64_t step, bool from_snapshot) {
  const auto arena = [&](const Tensor& t) { return from_snapshot ? snapshot_->of(t) : t; };
  const ParameterSet& parameters = model_->parameters();
  CheckpointContents contents;
  contents.optimizer =
      named_moments(*optimizer_, parameters, arena(optimizer_->m()), arena(optimizer_->v()));
  const bool whole = parameters.masters_whole();
  if (first() || !whole) contents.model = named_weights(parameters, arena(parameters.master()));
  if (sharded()) {
    const std::int64_t save = saves_++;
    if (!first()) {
      return [this, save, contents = std::move(contents)] {
        write_checkpoint_part(*communicator(), save, contents.optimizer, contents.model);
      };
    }
    contents.optimizer_file = optimizer_part_name(0, launch_.world_size);
    const auto parts = std::make_shared<CheckpointParts>(*communicator(), save);
    contents.peers = parts;
    if (!whole) {
      contents.streamed_model = whole_weights(
          parameters, std::exchange(contents.model, {}),
          [parts]() -> const std::vector<SafetensorsFile>& { return parts->weights(); });
    }
  }
  ModelConfig published = config_.model;
  published.vocab_size = model_->vocab_size();
  contents.config_json = published_config(published);
  contents.tokenizer_json = dataset_.tokenizer->to_json().dump();
  contents.trainer = {{"step", step},
                      {"samples", step * dataset_.train->batch_size()},
                      {"seed", config_.seed},
                      {"world_size", launch_.world_size}};
  contents.trainer.update(resume_record(config_, dataset_, resumed_from_));
  return [path = directory_ / "checkpoints", keep = config_.checkpoint.keep, step,
          contents = std::move(contents)] {
    save_checkpoint(path, step, contents);
    prune_checkpoints(path, keep);
  };
}

}  // namespace carousel
