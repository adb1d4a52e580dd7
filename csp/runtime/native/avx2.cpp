// x86-64 with AVX2: activations widened to 32 bits, fetched by gathers, multiplied two at a time.
#include <immintrin.h>

#include "api.h"
#include "vectors.h"

namespace {

const int64_t TABLE = 1024;  // an int for each place, with a hole where bit 6 would be set

// At place p stands its activation, in the low half of an int.
inline void arrange(const uint8_t *codes, uint8_t *table) {
  for (int i = 0; i < CSP_BANK; i += 8) {
    __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + i)));
    _mm256_storeu_si256((__m256i *)(table + 4 * ((i & 63) | (i >> 6) << 7)), wide);
  }
}

inline __m256i codes_at(__m256i codes, int slot) {  // of the lanes' int8 codes, as ints
  return _mm256_srai_epi32(_mm256_slli_epi32(codes, 24 - 8 * slot), 24);
}

inline __m256i pair(__m256i first, __m256i second) {  // two 16-bit halves
  return _mm256_or_si256(_mm256_and_si256(first, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32(second, 16));
}

// Eight lanes of 4 activations times 4 codes.
inline __m256i products(__m256i sum, __m256i seen01, __m256i seen23, __m256i codes) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(seen01, pair(codes_at(codes, 0), codes_at(codes, 1))));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(seen23, pair(codes_at(codes, 2), codes_at(codes, 3))));
}

inline __m256i bytes(__m256i quad, int slot) { return _mm256_and_si256(_mm256_srli_epi32(quad, 8 * slot), _mm256_set1_epi32(255)); }

inline __m256i load32(const uint8_t *from) { return _mm256_loadu_si256((const __m256i *)from); }

inline void put(Ints *sums, __m256i low, __m256i high) {
  _mm256_storeu_si256((__m256i *)sums, low);
  _mm256_storeu_si256((__m256i *)sums + 1, high);
}

// The same four activations for all lanes.
inline __m256i of_all(__m256i sum, __m256i quad, __m256i codes) {
  return products(sum, pair(bytes(quad, 0), bytes(quad, 1)), pair(bytes(quad, 2), bytes(quad, 3)), codes);
}

const uint8_t *dense(const uint8_t *data, int64_t quads, const uint8_t *codes, Ints *sums) {
  __m256i low = _mm256_setzero_si256(), high = low;
  for (int64_t q = 0; q < quads; q++, data += 64) {
    int32_t four;
    __builtin_memcpy(&four, codes + 4 * q, 4);
    __m256i quad = _mm256_set1_epi32(four);
    low = of_all(low, quad, load32(data));
    high = of_all(high, quad, load32(data + 32));
  }
  put(sums, low, high);
  return data;
}

inline __m256i seen(const uint8_t *table, __m256i places, int slot) {
  return _mm256_i32gather_epi32((const int *)table, bytes(places, slot), 4);
}

inline __m256i from_table(__m256i sum, const uint8_t *table, __m256i places, __m256i codes) {
  __m256i seen01 = pair(seen(table, places, 0), seen(table, places, 1));
  __m256i seen23 = pair(seen(table, places, 2), seen(table, places, 3));
  return products(sum, seen01, seen23, codes);
}

const uint8_t *banks(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *tables, Ints *sums) {
  __m256i low = _mm256_setzero_si256(), high = low;
  for (int64_t b = 0; b < count; b++, tables += TABLE)
    for (int step = 0; step < steps[b]; step++, data += 128) {
      low = from_table(low, tables, load32(data), load32(data + 64));
      high = from_table(high, tables, load32(data + 32), load32(data + 96));
    }
  put(sums, low, high);
  return data;
}

const uint8_t *quads(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *codes, Ints *sums) {
  __m256i low = _mm256_setzero_si256(), high = low;
  for (int64_t b = 0; b < count; b++, codes += CSP_BANK)
    for (int step = 0; step < steps[b]; step++, data += 80) {
      __m256i first = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)data));
      __m256i second = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(data + 8)));
      low = of_all(low, _mm256_i32gather_epi32((const int *)codes, first, 4), load32(data + 16));
      high = of_all(high, _mm256_i32gather_epi32((const int *)codes, second, 4), load32(data + 48));
    }
  put(sums, low, high);
  return data;
}

inline __m256i inputs_of(const uint8_t *places) {
  __m256i place = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)places));
  __m256i high = _mm256_slli_epi32(_mm256_srli_epi32(place, 7), 6);
  return _mm256_or_si256(_mm256_and_si256(place, _mm256_set1_epi32(63)), high);
}

const uint8_t *banks_float(const uint8_t *data, const uint8_t *steps, int64_t count, const float *x, Floats *sums) {
  __m256 low = _mm256_setzero_ps(), high = low;
  for (int64_t b = 0; b < count; b++, x += CSP_BANK)
    for (int step = 0; step < steps[b]; step++, data += 80) {
      const float *w = (const float *)(data + 16);
      low = _mm256_add_ps(low, _mm256_mul_ps(_mm256_loadu_ps(w), _mm256_i32gather_ps(x, inputs_of(data), 4)));
      high = _mm256_add_ps(high, _mm256_mul_ps(_mm256_loadu_ps(w + 8), _mm256_i32gather_ps(x, inputs_of(data + 8), 4)));
    }
  _mm256_storeu_ps((float *)sums, low);
  _mm256_storeu_ps((float *)sums + 8, high);
  return data;
}

}  // namespace

#include "body.h"

extern "C" const Kernels csp_avx2 = CSP_TABLE;
