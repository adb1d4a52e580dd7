// Sparse floats by sixteen loads a slot, where no permutation reaches a whole bank.
#pragma once
#include "api.h"
#include "vectors.h"

namespace {

inline int input_of(uint8_t place) { return (place & 63) | (place >> 7) << 6; }

const uint8_t *banks_float(const uint8_t *data, const uint8_t *steps, int64_t count, const float *x, float *sums) {
  float sum[CSP_LANES] = {};
  for (int64_t b = 0; b < count; b++, x += CSP_BANK)
    for (int step = 0; step < steps[b]; step++, data += 80) {
      const float *w = (const float *)(data + 16);
      for (int lane = 0; lane < CSP_LANES; lane++) sum[lane] = sum[lane] + w[lane] * x[input_of(data[lane])];
    }
  __builtin_memcpy(sums, sum, sizeof sum);
  return data;
}

}  // namespace
