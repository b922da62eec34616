#include "train/weights.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <string>

namespace carousel {
namespace {

// Reads every tensor of `wanted` from the file, which must hold these and no others.
void load_exactly(const SafetensorsFile& file, std::vector<NamedTensor> wanted) {
  std::string problems;
  std::set<std::string> known;
  for (const NamedTensor& t : wanted) {
    known.insert(t.name);
    if (!file.contains(t.name)) {
      problems += fmt::format("\n  missing: {} {}", t.name, t.tensor.shape());
    } else if (file.info(t.name).shape != t.tensor.shape()) {
      problems += fmt::format("\n  {}: shape {}, expected {}", t.name, file.info(t.name).shape,
                              t.tensor.shape());
    }
  }
  for (const std::string& name : file.names()) {
    if (!known.contains(name)) {
      problems += fmt::format("\n  unexpected: {} {}", name, file.info(name).shape);
    }
  }
  if (!problems.empty()) {
    throw CheckpointError(
        "'{}' does not fit this model:{}\ncheck the model section of the configuration",
        file.path().string(), problems);
  }
  for (NamedTensor& t : wanted) file.read_into(t.name, t.tensor);
}

// Calls visit(begin, end, local) for each part of the parameter that the optimizer owns: elements
// [begin, end) of the parameter, whose moments begin at `local`.
template <class Visit>
void for_each_owned(const AdamW& optimizer, const Parameter& p, Visit&& visit) {
  std::int64_t local = 0;
  for (const ArenaRange& part : optimizer.owned()) {
    const std::int64_t begin = std::max(part.begin, p.offset);
    const std::int64_t end = std::min(part.end, p.offset + p.spec.shape.numel());
    if (begin < end) visit(begin - p.offset, end - p.offset, local + begin - part.begin);
    local += part.size();
  }
}

// A tensor of a file that holds elements [begin, end) of a moment.
struct Piece {
  const SafetensorsFile* file = nullptr;
  std::string name;  ///< in the file
  std::string of;    ///< "exp_avg.<parameter>"
  std::int64_t begin = 0, end = 0;
  bool whole = true;
};

// A name "of[begin:end]" is a piece; every other name is whole.
Piece parse_piece(const SafetensorsFile& file, const std::string& name) {
  Piece piece{&file, name, name, 0, file.info(name).shape.numel(), true};
  const std::size_t open = name.rfind('[');
  const std::size_t colon = name.rfind(':');
  if (!name.ends_with(']') || open == std::string::npos || colon == std::string::npos ||
      colon < open) {
    return piece;
  }
  const auto number = [&](std::size_t from, std::size_t to, std::int64_t& value) {
    const char* last = name.data() + to;
    const auto [end, error] = std::from_chars(name.data() + from, last, value);
    return error == std::errc() && end == last && value >= 0;
  };
  std::int64_t begin = 0;
  std::int64_t end = 0;
  if (number(open + 1, colon, begin) && number(colon + 1, name.size() - 1, end)) {
    piece.of = name.substr(0, open);
    piece.begin = begin;
    piece.end = end;
    piece.whole = false;
  }
  return piece;
}

// What keeps the pieces from covering a moment of that shape exactly once; empty if nothing.
std::string problem_of_pieces(std::vector<Piece>& pieces, const std::string& name,
                              const Shape& shape) {
  if (pieces.empty()) return fmt::format("\n  missing: {} {}", name, shape);
  std::ranges::sort(pieces, {}, &Piece::begin);
  std::int64_t covered = 0;
  for (const Piece& piece : pieces) {
    const Shape& stored = piece.file->info(piece.name).shape;
    const Shape& expected =
        piece.whole ? shape : Shape{std::max<std::int64_t>(0, piece.end - piece.begin)};
    if (stored != expected) {
      return fmt::format("\n  {}: shape {}, expected {}", piece.name, stored, expected);
    }
    if (piece.begin != covered) break;
    covered = piece.end;
  }
  if (covered == shape.numel()) return "";
  return fmt::format("\n  {}: the pieces do not cover its {} elements once", name, shape.numel());
}

// Elements [begin, begin + to.numel()) of a moment from the pieces that hold them.
void copy_pieces(const std::vector<Piece>& pieces, std::int64_t begin, const Tensor& to) {
  const std::int64_t end = begin + to.numel();
  for (const Piece& piece : pieces) {
    const std::int64_t from = std::max(begin, piece.begin);
    const std::int64_t until = std::min(end, piece.end);
    if (from >= until) continue;
    const Tensor values = piece.file->load_as(piece.name, to.dtype());
    to.range(from - begin, {until - from}).copy_(values.range(from - piece.begin, {until - from}));
  }
}

}  // namespace

std::vector<NamedTensor> named_weights(const ParameterSet& parameters, const Tensor& masters) {
  std::vector<NamedTensor> out;
  for (const Parameter& p : parameters.all()) {
    out.push_back({p.spec.name, masters.range(p.offset, p.spec.shape)});
  }
  return out;
}

std::vector<NamedTensor> named_moments(const AdamW& optimizer, const ParameterSet& parameters,
                                       const Tensor& m, const Tensor& v) {
  std::vector<NamedTensor> out;
  for (const Parameter& p : parameters.all()) {
    for_each_owned(optimizer, p, [&](std::int64_t begin, std::int64_t end, std::int64_t local) {
      const bool whole = end - begin == p.spec.shape.numel();
      const std::string name =
          whole ? p.spec.name : fmt::format("{}[{}:{}]", p.spec.name, begin, end);
      const Shape shape = whole ? p.spec.shape : Shape{end - begin};
      out.push_back({"exp_avg." + name, m.range(local, shape)});
      out.push_back({"exp_avg_sq." + name, v.range(local, shape)});
    });
  }
  return out;
}

void load_weights(const SafetensorsFile& file, ParameterSet& parameters) {
  load_exactly(file, named_weights(parameters, parameters.master()));
  parameters.refresh_compute();
}

void load_moments(const std::vector<SafetensorsFile>& files, const AdamW& optimizer,
                  const ParameterSet& parameters) {
  std::map<std::string, std::vector<Piece>, std::less<>> pieces;
  for (const SafetensorsFile& file : files) {
    for (const std::string& name : file.names()) {
      const Piece piece = parse_piece(file, name);
      pieces[piece.of].push_back(piece);
    }
  }
  std::string problems;
  for (const Parameter& p : parameters.all()) {
    for (const char* kind : {"exp_avg.", "exp_avg_sq."}) {
      problems += problem_of_pieces(pieces[kind + p.spec.name], kind + p.spec.name, p.spec.shape);
    }
  }
  for (const auto& entry : pieces) {
    const std::string& name = entry.first;
    const auto known = [&](const Parameter& p) {
      return name == "exp_avg." + p.spec.name || name == "exp_avg_sq." + p.spec.name;
    };
    if (std::ranges::none_of(parameters.all(), known)) {
      problems += fmt::format("\n  unexpected: {}", name);
    }
  }
  if (!problems.empty()) {
    throw CheckpointError(
        "'{}' does not fit this model:{}\ncheck the model section of the configuration",
        files.front().path().string(), problems);
  }
  for (const Parameter& p : parameters.all()) {
    for_each_owned(optimizer, p, [&](std::int64_t begin, std::int64_t end, std::int64_t local) {
      const Shape shape{end - begin};
      copy_pieces(pieces["exp_avg." + p.spec.name], begin, optimizer.m().range(local, shape));
      copy_pieces(pieces["exp_avg_sq." + p.spec.name], begin, optimizer.v().range(local, shape));
    });
  }
}

}  // namespace carousel
