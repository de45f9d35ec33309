# nvcc compiles one file. cuBLASLt is that of the toolkit, or of the Python packages of PyTorch for CUDA (-DPYTHON=…).
find_program(NVCC nvcc HINTS /usr/local/cuda/bin REQUIRED)
set(CUDA_ARCHITECTURES "80;90" CACHE STRING "compute capabilities to compile for; others translate at the first start")
find_path(CUBLASLT_INCLUDE_DIR cublasLt.h HINTS /usr/local/cuda/include)
find_library(CUBLASLT_LIBRARY cublasLt HINTS /usr/local/cuda/lib64)
if(NOT CUBLASLT_INCLUDE_DIR OR NOT CUBLASLT_LIBRARY)
  execute_process(COMMAND ${PYTHON} -c "import glob, nvidia; print(sorted(glob.glob(nvidia.__path__[0] + '/cu1*'))[-1])"
    OUTPUT_VARIABLE package OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_path(CUBLASLT_INCLUDE_DIR cublasLt.h HINTS ${package}/include)
  file(GLOB found ${package}/lib/libcublasLt.so.*)
  set(CUBLASLT_LIBRARY ${found} CACHE FILEPATH "the library cublasLt" FORCE)
endif()
if(NOT CUBLASLT_INCLUDE_DIR OR NOT CUBLASLT_LIBRARY)
  message(FATAL_ERROR "cublasLt was not found: name an interpreter with PyTorch for CUDA by -DPYTHON=…, or the toolkit")
endif()

set(flags -std=c++17 -O3 --expt-relaxed-constexpr)
foreach(architecture ${CUDA_ARCHITECTURES})
  list(APPEND flags -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET CUDA_ARCHITECTURES -1 last)
list(APPEND flags -gencode arch=compute_${last},code=compute_${last})
set(object ${CMAKE_CURRENT_BINARY_DIR}/device_cuda.o)
add_custom_command(OUTPUT ${object}
  COMMAND ${NVCC} ${flags} -I${CMAKE_CURRENT_LIST_DIR} -I${CMAKE_CURRENT_LIST_DIR}/../gpu -I${CMAKE_CURRENT_SOURCE_DIR}
    -I${CUBLASLT_INCLUDE_DIR} -c ${CMAKE_CURRENT_LIST_DIR}/device_cuda.cu -o ${object}
  DEPENDS ${CMAKE_CURRENT_LIST_DIR}/device_cuda.cu ${CMAKE_CURRENT_LIST_DIR}/kernels.cuh
    ${CMAKE_CURRENT_LIST_DIR}/../gpu/device.hpp)
target_sources(device PRIVATE ${object})
set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)

# The runtime of CUDA is linked statically; it needs these of the system.
get_filename_component(nvcc_folder ${NVCC} REALPATH)
get_filename_component(nvcc_folder ${nvcc_folder} DIRECTORY)
find_library(CUDART_LIBRARY cudart_static HINTS ${nvcc_folder}/../lib64 /usr/local/cuda/lib64 REQUIRED)
find_package(Threads REQUIRED)
target_link_libraries(device PUBLIC ${CUBLASLT_LIBRARY} ${CUDART_LIBRARY} Threads::Threads ${CMAKE_DL_LIBS} rt)
