// What the user is told when something is wrong: the message, what to do about it, and the exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace vitcli {

struct Failure : std::runtime_error {
  Failure(int exit_code, const std::string& message, std::string help = "")
      : std::runtime_error(message), exit_code(exit_code), help(std::move(help)) {}

  int exit_code;
  std::string help;
};

// The command line, or the artifact it names.
struct BadUse : Failure {
  explicit BadUse(const std::string& message, std::string help = "") : Failure(2, message, std::move(help)) {}
};

// The image.
struct BadImage : Failure {
  explicit BadImage(const std::string& message, std::string help = "") : Failure(3, message, std::move(help)) {}
};

// Runs `story` and returns its exit code; a failure is printed to stderr.
int run_and_report(int (*story)(int, char**), int argc, char** argv);

}  // namespace vitcli
