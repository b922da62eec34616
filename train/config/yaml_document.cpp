#include "train/config/yaml_document.h"

#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>

#include <sstream>

namespace carousel {
namespace {

/// Notices where documents start, and nothing else.
class DocumentStarts final : public YAML::EventHandler {
 public:
  YAML::Mark last;

  void OnDocumentStart(const YAML::Mark& mark) override { last = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

/// YAML::Load() ignores what follows the first document, and YAML::LoadAll() never returns when
/// that is a character out of place, such as a comma: it finds empty documents for ever.
void require_end_after_one_document(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  DocumentStarts starts;
  if (parser.HandleNextDocument(starts) && parser.HandleNextDocument(starts)) {
    throw YAML::ParserException(starts.last,
                                "a second document, or a character out of place, starts here");
  }
}

}  // namespace

YAML::Node parse_document(const std::string& text) {
  try {
    require_end_after_one_document(text);
    return YAML::Load(text);
  } catch (const YAML::DeepRecursion& e) {
    throw YAML::ParserException(e.mark, "nested too deeply");
  }
}

}  // namespace carousel
