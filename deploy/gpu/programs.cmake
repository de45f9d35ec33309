# `classify` and `logits` for the native format, with a device: SYCL or CUDA. README.md says how each is configured.
add_library(device STATIC
  ${CMAKE_CURRENT_LIST_DIR}/runtime_device.cpp ${CMAKE_CURRENT_LIST_DIR}/vit.cpp native/tensors.cpp)
target_include_directories(device PUBLIC ${CMAKE_CURRENT_LIST_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(device PUBLIC vitcli)
include(${CMAKE_CURRENT_LIST_DIR}/../${RUNTIME}/device.cmake)
foreach(program classify logits)
  add_executable(${program} ${program}.cpp)
  target_link_libraries(${program} PRIVATE device)
endforeach()
