// For x86-64 with AVX-512 and VNNI (2019 and later).
#define KERNELS AVX512
#define TITLE "avx512"
#define WIDTH 16
#define ROWS 8
#define VECTORS 3
#define BF16 rounded
#define INT8 int8
#include "kernels.inc"
