// Any 64-bit machine: plain loops, the oracle of the others.
#define CSP_WIDTH 16
#include "api.h"
#include "loads.h"
#include "vectors.h"

namespace {

const int64_t TABLE = CSP_BANK;

inline void arrange(const uint8_t *codes, uint8_t *table) { __builtin_memcpy(table, codes, CSP_BANK); }

const uint8_t *dense(const uint8_t *data, int64_t quads, const uint8_t *codes, int32_t *sums) {
  for (int lane = 0; lane < CSP_LANES; lane++) sums[lane] = 0;
  for (int64_t q = 0; q < quads; q++, data += 64)
    for (int lane = 0; lane < 16; lane++)
      for (int s = 0; s < 4; s++) sums[lane] += (int)(int8_t)data[4 * lane + s] * codes[4 * q + s];
  return data;
}

const uint8_t *banks(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *tables, int32_t *sums) {
  for (int lane = 0; lane < CSP_LANES; lane++) sums[lane] = 0;
  for (int64_t b = 0; b < count; b++, tables += TABLE)
    for (int step = 0; step < steps[b]; step++, data += 128)
      for (int i = 0; i < 64; i++) sums[i / 4] += (int)(int8_t)data[64 + i] * tables[input_of(data[i])];
  return data;
}

const uint8_t *quads(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *codes, int32_t *sums) {
  for (int lane = 0; lane < CSP_LANES; lane++) sums[lane] = 0;
  for (int64_t b = 0; b < count; b++, codes += CSP_BANK)
    for (int step = 0; step < steps[b]; step++, data += 80)
      for (int i = 0; i < 64; i++) sums[i / 4] += (int)(int8_t)data[16 + i] * codes[4 * data[i / 4] + i % 4];
  return data;
}

const uint8_t *chunks(const uint8_t *data, int64_t count, const uint8_t *codes, int32_t *sums) {
  const uint8_t *weights = data + count;
  for (int64_t i = 0; i < count; i++, weights += CSP_CHUNK) {
    sums[i] = 0;
    for (int k = 0; k < CSP_CHUNK; k++) sums[i] += (int)(int8_t)weights[k] * codes[CSP_CHUNK * data[i] + k];
  }
  return weights;
}

}  // namespace

#include "masks.h"
#include "body.h"

extern "C" const Kernels csp_portable = CSP_TABLE;
