#include "train/weights.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <set>
#include <string>

namespace carousel {
namespace {

// The file must hold the parameters and no other tensors.
void check_names(const SafetensorsFile& file, const ParameterSet& parameters) {
  std::string problems;
  std::set<std::string> known;
  for (const Parameter& p : parameters.all()) {
    known.insert(p.spec.name);
    if (!file.contains(p.spec.name)) {
      problems += fmt::format("\n  missing: {} {}", p.spec.name, p.spec.shape);
    } else if (file.info(p.spec.name).shape != p.spec.shape) {
      problems += fmt::format("\n  {}: shape {}, expected {}", p.spec.name,
                              file.info(p.spec.name).shape, p.spec.shape);
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
}

// The name and the shape of elements [begin, end) of a parameter: its own if that is all of it.
std::pair<std::string, Shape> piece_of(const Parameter& p, std::int64_t begin, std::int64_t end) {
  if (end - begin == p.spec.shape.numel()) return {p.spec.name, p.spec.shape};
  return {fmt::format("{}[{}:{}]", p.spec.name, begin, end), {end - begin}};
}

// Elements [begin, end) of a weight or moment: a tensor, or one of a file.
struct Piece {
  Tensor tensor;
  const SafetensorsFile* file = nullptr;
  std::string name;  ///< in the file
  Shape shape;
  std::string of;  ///< "<parameter>", "exp_avg.<parameter>"
  std::int64_t begin = 0, end = 0;
  bool whole = true;

  /// Overwrites `to` with elements from `from` on, counted as begin and end are.
  void read(std::int64_t from, Tensor to) const {
    if (file != nullptr) {
      file->read_range_into(name, from - begin, to);
    } else {
      to.copy_(tensor.range(from - begin, to.shape()));
    }
  }
};

// A name "of[begin:end]" is a piece; every other name is whole.
Piece parse_piece(const std::string& name, const Shape& shape) {
  Piece piece{.name = name, .shape = shape, .of = name, .end = shape.numel()};
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

using Pieces = std::map<std::string, std::vector<Piece>, std::less<>>;

void add_pieces(Pieces& pieces, const SafetensorsFile& file) {
  for (const std::string& name : file.names()) {
    Piece piece = parse_piece(name, file.info(name).shape);
    piece.file = &file;
    pieces[piece.of].push_back(std::move(piece));
  }
}

// What keeps the pieces from covering a tensor of that shape exactly once; empty if nothing.
std::string problem_of_pieces(std::vector<Piece>& pieces, const std::string& name,
                              const Shape& shape) {
  if (pieces.empty()) return fmt::format("\n  missing: {} {}", name, shape);
  std::ranges::sort(pieces, {}, &Piece::begin);
  std::int64_t covered = 0;
  for (const Piece& piece : pieces) {
    const Shape& expected =
        piece.whole ? shape : Shape{std::max<std::int64_t>(0, piece.end - piece.begin)};
    if (piece.shape != expected) {
      return fmt::format("\n  {}: shape {}, expected {}", piece.name, piece.shape, expected);
    }
    if (piece.begin != covered) break;
    covered = piece.end;
  }
  if (covered == shape.numel()) return "";
  return fmt::format("\n  {}: the pieces do not cover its {} elements once", name, shape.numel());
}

// Elements [begin, begin + to.numel()) from the pieces that hold them.
void copy_pieces(const std::vector<Piece>& pieces, std::int64_t begin, const Tensor& to) {
  const std::int64_t end = begin + to.numel();
  for (const Piece& piece : pieces) {
    const std::int64_t from = std::max(begin, piece.begin);
    const std::int64_t until = std::min(end, piece.end);
    if (from < until) piece.read(from, to.range(from - begin, {until - from}));
  }
}

}  // namespace

std::vector<NamedTensor> named_weights(const ParameterSet& parameters, const Tensor& masters) {
  std::vector<NamedTensor> out;
  for (const Parameter& p : parameters.all()) {
    for_each_part(parameters.master_parts(), p,
                  [&](std::int64_t begin, std::int64_t end, std::int64_t local) {
                    auto [name, shape] = piece_of(p, begin, end);
                    out.push_back({std::move(name), masters.range(local, shape)});
                  });
  }
  return out;
}

std::vector<TensorSource> whole_weights(
    const ParameterSet& parameters, const std::vector<NamedTensor>& mine,
    const std::function<const std::vector<SafetensorsFile>&()>& others) {
  const auto pieces = std::make_shared<Pieces>();
  const auto collect = [=] {
    for (const NamedTensor& t : mine) {
      Piece piece = parse_piece(t.name, t.tensor.shape());
      piece.tensor = t.tensor;
      (*pieces)[piece.of].push_back(std::move(piece));
    }
    for (const SafetensorsFile& file : others()) add_pieces(*pieces, file);
  };
  std::vector<TensorSource> sources;
  for (const Parameter& p : parameters.all()) {
    const DType dtype = parameters.master().dtype();
    const auto make = [=, name = p.spec.name, shape = p.spec.shape] {
      if (pieces->empty()) collect();
      std::vector<Piece>& held = (*pieces)[name];
      if (const std::string problem = problem_of_pieces(held, name, shape); !problem.empty()) {
        throw CheckpointError("the weights that the processes hold are not a whole:{}", problem);
      }
      const Tensor out = Tensor::empty(shape, dtype);
      copy_pieces(held, 0, out);
      return out;
    };
    sources.push_back({p.spec.name, dtype, p.spec.shape, make});
  }
  return sources;
}

std::vector<NamedTensor> named_moments(const AdamW& optimizer, const ParameterSet& parameters,
                                       const Tensor& m, const Tensor& v) {
  std::vector<NamedTensor> out;
  for (const Parameter& p : parameters.all()) {
    for_each_part(optimizer.owned(), p,
                  [&](std::int64_t begin, std::int64_t end, std::int64_t local) {
                    const auto [name, shape] = piece_of(p, begin, end);
                    out.push_back({"exp_avg." + name, m.range(local, shape)});
                    out.push_back({"exp_avg_sq." + name, v.range(local, shape)});
                  });
  }
  return out;
}

void load_weights(const SafetensorsFile& file, ParameterSet& parameters) {
  check_names(file, parameters);
  for (const Parameter& p : parameters.all()) {
    for_each_part(parameters.master_parts(), p,
                  [&](std::int64_t begin, std::int64_t end, std::int64_t local) {
                    file.read_range_into(p.spec.name, begin,
                                         parameters.master().range(local, {end - begin}));
                  });
    if (!parameters.masters_whole()) {
      Tensor narrow = parameters.compute().range(p.offset, p.spec.shape);
      file.read_into(p.spec.name, narrow);
    }
  }
  if (parameters.masters_whole()) parameters.refresh_compute();
}

void load_moments(const std::vector<SafetensorsFile>& files, const AdamW& optimizer,
                  const ParameterSet& parameters) {
  Pieces pieces;
  for (const SafetensorsFile& file : files) add_pieces(pieces, file);
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
    for_each_part(
        optimizer.owned(), p, [&](std::int64_t begin, std::int64_t end, std::int64_t local) {
          const Shape shape{end - begin};
          copy_pieces(pieces["exp_avg." + p.spec.name], begin, optimizer.m().range(local, shape));
          copy_pieces(pieces["exp_avg_sq." + p.spec.name], begin,
                      optimizer.v().range(local, shape));
        });
  }
}

}  // namespace carousel
