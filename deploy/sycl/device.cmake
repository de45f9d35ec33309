# SYCL_DIR: an environment of Python with the packages of README.md, or another place with include/sycl and libsycl.so.
set(SYCL_DIR "" CACHE PATH "the place of include/sycl/sycl.hpp and lib/libsycl.so*")
file(GLOB SYCL_LIBRARIES ${SYCL_DIR}/lib/libsycl.so ${SYCL_DIR}/lib/libsycl.so.[0-9])
if(NOT EXISTS ${SYCL_DIR}/include/sycl/sycl.hpp OR NOT SYCL_LIBRARIES)
  message(FATAL_ERROR "SYCL was not found: name its place by -DSYCL_DIR=… (README.md)")
endif()
list(GET SYCL_LIBRARIES 0 SYCL_LIBRARY)

# The kernels are compiled when the program runs, so the program contains their text.
file(READ ${CMAKE_CURRENT_LIST_DIR}/kernels.cpp KERNELS)
file(GENERATE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/sycl/kernels.inc
  CONTENT "static const char KERNELS[] = R\"KERNELS(${KERNELS})KERNELS\";\n")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/kernels.cpp)

target_sources(device PRIVATE ${CMAKE_CURRENT_LIST_DIR}/device_sycl.cpp)
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/device_sycl.cpp PROPERTIES
  COMPILE_OPTIONS "-isystem${SYCL_DIR}/include;-I${CMAKE_CURRENT_BINARY_DIR}/sycl")
target_link_libraries(device PUBLIC ${SYCL_LIBRARY})
set(CMAKE_BUILD_RPATH ${SYCL_DIR}/lib)
