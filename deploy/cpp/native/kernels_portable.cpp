// For any processor: vectors of four floats, which the compiler makes of whatever there is.
#define KERNELS PORTABLE
#define TITLE "portable"
#define WIDTH 4
#define ROWS 4
#define VECTORS 2
#define BF16 rounded
#define INT8 int16
#include "kernels.inc"
