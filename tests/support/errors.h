// Expectations about errors: the type, and what the message must tell.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

namespace carousel::testing {

/// Expects `run()` to throw exactly an E whose message contains all of `parts`.
template <class E, class Run>
void expect_error(Run&& run, std::initializer_list<std::string> parts) {
  try {
    run();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const E& error) {
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "'" << part << "' is not in: " << error.what();
    }
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another type was thrown: " << error.what();
  }
}

/// The message of the E that run() throws; empty if it throws nothing.
template <class E, class Run>
std::string message_of(Run&& run) {
  try {
    run();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

}  // namespace carousel::testing
