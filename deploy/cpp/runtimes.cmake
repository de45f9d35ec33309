# Finds the library of each runtime: in the place that -D… names, otherwise in the Python package of that name.

# Sets `directory` to that of an installed Python package; the package is not imported.
function(find_python_package package directory)
  set(code "import importlib.util as u; print(next(iter(u.find_spec('${package}').submodule_search_locations)))")
  execute_process(COMMAND ${PYTHON} -c "${code}"
    OUTPUT_VARIABLE found ERROR_QUIET RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(failed)
    message(FATAL_ERROR "${PYTHON} has no package ${package}: "
      "name another interpreter with -DPYTHON=…, or the place of the library (README.md)")
  endif()
  set(${directory} ${found} PARENT_SCOPE)
endfunction()

if(RUNTIME STREQUAL "openvino")
  if(NOT OpenVINO_DIR)
    find_python_package(openvino package)
    set(OpenVINO_DIR ${package}/cmake)
  endif()
  find_package(OpenVINO REQUIRED COMPONENTS Runtime)
  target_link_libraries(classify PRIVATE openvino::runtime)

elseif(RUNTIME STREQUAL "onnxruntime")
  # The Python package has no headers, so this is the official release or a system installation.
  set(ONNXRUNTIME_DIR "" CACHE PATH "the unpacked release of ONNX Runtime: include/ and lib/")
  find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h
    HINTS ${ONNXRUNTIME_DIR}/include PATH_SUFFIXES onnxruntime onnxruntime/core/session)
  find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_DIR}/lib)
  if(NOT ONNXRUNTIME_INCLUDE_DIR OR NOT ONNXRUNTIME_LIBRARY)
    message(FATAL_ERROR "ONNX Runtime was not found: unpack an official release and name it by -DONNXRUNTIME_DIR=…")
  endif()
  target_include_directories(classify SYSTEM PRIVATE ${ONNXRUNTIME_INCLUDE_DIR})
  target_link_libraries(classify PRIVATE ${ONNXRUNTIME_LIBRARY})

elseif(RUNTIME STREQUAL "aoti")
  # Not by find_package(Torch), which wants a CUDA toolkit wherever PyTorch was built with CUDA.
  set(TORCH_DIR "" CACHE PATH "the directory of the Python package torch, or an unpacked libtorch")
  if(NOT TORCH_DIR)
    find_python_package(torch TORCH_DIR)
  endif()
  target_include_directories(classify SYSTEM PRIVATE
    ${TORCH_DIR}/include ${TORCH_DIR}/include/torch/csrc/api/include)
  target_compile_features(classify PRIVATE cxx_std_20)
  set_source_files_properties(runtime_aoti.cpp PROPERTIES COMPILE_OPTIONS -O1)
  # libtorch.so refers to the libraries for CUDA if there are any; nothing here refers to it, so the linker must keep it
  target_link_libraries(classify PRIVATE -Wl,--no-as-needed
    ${TORCH_DIR}/lib/libtorch.so ${TORCH_DIR}/lib/libtorch_cpu.so ${TORCH_DIR}/lib/libc10.so)

elseif(RUNTIME STREQUAL "executorch")
  if(NOT executorch_DIR)
    find_python_package(executorch package)
    set(executorch_DIR ${package}/lib/cmake/executorch)
  endif()
  find_package(executorch REQUIRED)
  target_include_directories(classify SYSTEM PRIVATE ${EXECUTORCH_INCLUDE_DIRS})
  target_compile_definitions(classify PRIVATE ${EXECUTORCH_COMPILE_DEFINITIONS})
  target_link_libraries(classify PRIVATE ${EXECUTORCH_LIBRARIES} ${EXECUTORCH_QUANTIZED_KERNELS_LIBRARY})
  set_target_properties(classify PROPERTIES BUILD_RPATH ${EXECUTORCH_RUNTIME_LIBRARY_DIR})

elseif(RUNTIME STREQUAL "native")
  # No library, only threads. Each file of kernels is compiled for its kind of processor; the program chooses at its start.
  find_package(Threads REQUIRED)
  add_library(native STATIC
    native/fastvit.cpp native/kernels.cpp native/kernels_emulated.cpp native/kernels_portable.cpp native/linear.cpp
    native/tensors.cpp native/threads.cpp native/vit.cpp)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    target_sources(native PRIVATE
      native/kernels_avx2.cpp native/kernels_avx512.cpp native/kernels_avx512_bf16.cpp)
    set(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mprefer-vector-width=512)
    set_source_files_properties(native/kernels_avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
    set_source_files_properties(native/kernels_avx512.cpp PROPERTIES COMPILE_OPTIONS "${avx512}")
    set_source_files_properties(native/kernels_avx512_bf16.cpp PROPERTIES COMPILE_OPTIONS "${avx512};-mavx512bf16")
  endif()
  # the note is about vectors as arguments between files; here they stay within one
  target_compile_options(native PRIVATE -Wno-psabi)
  target_link_libraries(native PUBLIC vitcli Threads::Threads)
  target_link_libraries(classify PRIVATE native)
endif()
