// For x86-64 with AVX2 and FMA (2013 and later).
#define KERNELS AVX2
#define TITLE "avx2"
#define WIDTH 8
#define ROWS 6
#define VECTORS 2
#define BF16 rounded
#define INT8 int16
#include "kernels.inc"
