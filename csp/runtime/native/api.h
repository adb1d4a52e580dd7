// What the library offers: a table of functions for each instruction set, and two that pack a matrix.
//
// Outputs stand in groups of 16, one lane of a vector each, and inputs in banks of 128. Activations are unsigned bytes,
// round(x / scale) + 128; the sums of the codes take the 128 away again.
#pragma once
#include <stdint.h>

#define CSP_LANES 16
#define CSP_BANK 128
#define CSP_CHUNK 16
#define CSP_OCTET 32

#if defined(__GNUC__)
#define CSP_PUBLIC extern "C" __attribute__((visibility("default")))
#else
#error "csp's kernels need GCC or Clang"
#endif

enum Layout { DENSE = 0, BANKS = 1, QUADS = 2, CHUNKS = 3, MASKS = 4 };

// A matrix [inputs, outputs], packed. In the order of groups, then banks:
//   DENSE int8: for each 4 inputs, 16 lanes x 4 codes; float: for each input, 16 lanes.
//   BANKS int8: `steps` times 64 places (lane x 4 slots) and their 64 codes; float: 16 places and 16 floats a slot.
//     A place is an input of the bank: bits 0-5 are its low six, bits 6 and 7 both its seventh.
//   QUADS int8: `steps` times 16 places (which 4 inputs of the bank, one for each lane) and their 64 codes.
// `steps` has one count for each group and bank; slots that nothing fills hold the code 0 at place 0.
//   CHUNKS int8, in the order of groups only: the numbers of all chunks of 16 inputs that the 16 outputs have, one output
//     after the other and then filled up to fours, and 16 codes of each. `steps` has one count for each output.
//   MASKS int8: for each 32 inputs, 8 masks of 4 inputs, 16 lanes x 4 bits, then the codes that they name in the order of
//     their bits. There are no `steps`; 64 bytes behind the data may be read.
struct Packed {
  int32_t layout, floats, inputs, outputs;
  const uint8_t *data;
  const uint8_t *steps;
  const float *scale;    // of each output, padded to whole groups; int8 only
  const int32_t *sums;   // of its codes, likewise
};

// x W + bias, where bias may be null; W is two factors where `first` is not null.
struct Layer {
  const Packed *first, *last;
  const float *bias;
};

struct Kernels {
  // y[batch, outputs] = x[batch, inputs] W + bias, where bias may be null
  int (*linear)(const Packed *, const float *bias, const float *x, int64_t batch, float *y);
  // h and c are read and written; out[steps, width] is every h
  int (*lstm)(const Packed *input, const Packed *recurrent, const float *bias, const float *x, int64_t steps, float *h,
              float *c, float *out);
  // one step from gates[4 width]; h is written, c is read and written
  void (*step)(const float *gates, int64_t width, float *h, float *c);
  // out = norm(x) scale + bias, plus `added` where it is not null
  void (*norm)(const float *x, int64_t rows, int64_t width, const float *scale, const float *bias, const float *added,
               float *out);
  void (*tanh_of_sum)(const float *a, const float *b, int64_t count, float *out);
  void (*silu)(const float *x, int64_t count, float *out);
  // rows of 2 width -> rows of width: the first half times the sigmoid of the second
  void (*gate)(const float *x, int64_t rows, int64_t width, float *out);
  // out[rows, width] = sum over k of x[row + k, width] taps[k, width]; x has rows + taps - 1 rows
  void (*depthwise)(const float *x, int64_t rows, int64_t width, const float *taps, int64_t count, float *out);
  // Scaled dot products: row r of q[rows, heads, size] sees the first counts[r] > 0 of `most` places. Its memory, `stride`
  // floats behind that of the row before, is keys[most, heads, size], then values[most, heads, size].
  int (*attend)(const float *q, const float *memory, const int64_t *counts, int64_t rows, int64_t most, int64_t heads,
                int64_t size, int64_t stride, float *out);
  // Several layers of norm(x): out[layer, rows, outputs], all with as many outputs
  int (*project)(const float *x, int64_t rows, int64_t width, const float *scale, const float *bias, const Layer *layers,
                 int64_t count, float *out);
  // out[rows, width] = x + share two[1](silu(two[0](norm(x))))
  int (*feed)(const float *x, int64_t rows, int64_t width, const float *scale, const float *bias, const Layer *two,
              float share, float *out);
  // x[rows, heads, size] in place: pairs (i, i + size / 2) of numbers turn by cos[rows, size / 2] and sin
  void (*rotate)(float *x, int64_t rows, int64_t heads, int64_t size, const float *cos, const float *sin);
};

extern "C" const Kernels csp_portable;  // its hidden name; csp_kernels(0) finds it
#if defined(__x86_64__)
extern "C" const Kernels csp_avx2, csp_avx512, csp_vbmi;
#endif
