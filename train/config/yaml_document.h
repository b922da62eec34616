// One YAML document from untrusted text.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>

namespace carousel {

/// Parses `text`, which holds one document, or none (then the node is null). Throws
/// YAML::Exception with mark and message if it is not valid, nested deeper than yaml-cpp's limit of
/// some hundred levels, or goes on after the document.
YAML::Node parse_document(const std::string& text);

}  // namespace carousel
