// For x86-64 with AVX-512, VNNI and BF16 (2020 and later).
#define KERNELS AVX512_BF16
#define TITLE "avx512_bf16"
#define WIDTH 16
#define ROWS 8
#define VECTORS 3
#define BF16 bf16
#define INT8 int8
#include "kernels.inc"
