#include "errors.hpp"

#include <iostream>

namespace vitcli {

int run_and_report(int (*story)(int, char**), int argc, char** argv) {
  try {
    return story(argc, argv);
  } catch (const Failure& failure) {
    std::cerr << "error: " << failure.what() << '\n';
    if (!failure.help.empty()) std::cerr << "help: " << failure.help << '\n';
    return failure.exit_code;
  } catch (const std::exception& error) {  // from the library of the runtime
    std::cerr << "error: " << error.what() << '\n';
    return 2;
  }
}

}  // namespace vitcli
