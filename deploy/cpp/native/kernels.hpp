// The inner loops, once for each kind of processor; which one is used is decided when the program starts.
//
// A matrix product reads both factors in units of four bytes along the common side: one float, two bfloat16 or int16,
// or four int8. The right factor is packed into panels of `panel` columns: (panels, units, panel) units, filled with
// zeros.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vitcli::native {

// How the numbers of a matrix product are stored in units of four bytes.
enum class Encoding {
  floats,   // one float
  rounded,  // one float, rounded to bfloat16: for processors without an instruction for bfloat16
  bf16,     // two bfloat16, summed in float
  int16,    // two whole numbers of -127 to 127, summed in int32: for processors without VNNI
  int8,     // four; those of the left factor are stored as uint8, 128 larger
};

enum class Activation { none, gelu, gelu_tanh, quick_gelu, relu, silu, tanh, sigmoid };

// What becomes of the sums of a product before they are stored.
struct Epilogue {
  const float* bias = nullptr;            // (columns,)
  const float* column_scale = nullptr;    // (columns,) of whole numbers
  const float* row_scale = nullptr;       // (rows,) of whole numbers
  const std::int32_t* offsets = nullptr;  // (columns,) to be subtracted from whole numbers
  Activation activation = Activation::none;
  bool adds = false;  // to what is there, after the activation
};

// A depthwise convolution with zero padding of size / 2; output channel o is a filter of input channel o mod channels.
struct Depthwise {
  const float *input, *weight, *bias;  // (height, width, channels), (size, size, outputs), (outputs,)
  float* output;                       // (ceil(height / stride), ceil(width / stride), outputs)
  int height, width, channels, outputs, size, stride;
};

struct Kernels {
  const char* name;
  int panel;
  Encoding bf16, int8;  // how this processor multiplies these types

  // (rows, units) times one panel -> (rows, columns) of `output`, columns <= panel. Strides are in units and floats.
  void (*multiply)(Encoding, const void* left, std::size_t left_stride, const void* panel, int rows, int units,
                   int columns, float* output, std::size_t output_stride, const Epilogue&);
  // One row of `count` numbers in an encoding, filled to whole units; returns the scale of whole numbers.
  float (*encode)(Encoding, const float* row, int count, void* output);
  // (row - mean) / sqrt(variance + eps), times weight plus bias if there are any.
  void (*layer_norm)(const float* row, int count, float eps, const float* weight, const float* bias, float* output);
  // exp(row - maximum) in place; returns the sum.
  float (*exponentials)(float* row, int count);
  void (*activate)(Activation, float* values, std::size_t count);
  void (*depthwise)(const Depthwise&, int output_row);
};

// The fastest kernels for this processor, or those that the environment variable VITCLI_KERNELS names.
// Throws BadUse for a name that is not one of them, or not for this processor.
const Kernels& kernels();

// Each in a file of its own, compiled for that processor; `emulated` has the shapes of AVX-512 for any processor.
extern const Kernels PORTABLE, EMULATED;
#if defined(__x86_64__)
extern const Kernels AVX2, AVX512, AVX512_BF16;
#endif

}  // namespace vitcli::native
