// The shapes and encodings of AVX-512 for any processor: slow, but it shows that they are right.
#define KERNELS EMULATED
#define TITLE "emulated"
#define WIDTH 16
#define ROWS 8
#define VECTORS 3
#define BF16 bf16
#define INT8 int8
#include "kernels.inc"
