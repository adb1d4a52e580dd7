// What all sets with AVX-512 share. Before it a file defines TABLE, `arrange` and
//   fetch(low, high, places)                64 activations of a bank, whose table is two registers, at 64 places
#pragma once
#include <immintrin.h>

#include "api.h"

namespace {

const uint8_t *dense(const uint8_t *data, int64_t quads, const uint8_t *codes, int32_t *sums) {
  __m512i even = _mm512_setzero_si512(), odd = even;
  int32_t four[2];
  int64_t q = 0;
  for (; q + 1 < quads; q += 2, data += 128) {
    __builtin_memcpy(four, codes + 4 * q, 8);
    even = _mm512_dpbusd_epi32(even, _mm512_set1_epi32(four[0]), _mm512_loadu_si512(data));
    odd = _mm512_dpbusd_epi32(odd, _mm512_set1_epi32(four[1]), _mm512_loadu_si512(data + 64));
  }
  if (q < quads) {
    __builtin_memcpy(four, codes + 4 * q, 4);
    even = _mm512_dpbusd_epi32(even, _mm512_set1_epi32(four[0]), _mm512_loadu_si512(data));
    data += 64;
  }
  _mm512_storeu_si512(sums, _mm512_add_epi32(even, odd));
  return data;
}

const uint8_t *banks(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *tables, int32_t *sums) {
  __m512i even = _mm512_setzero_si512(), odd = even;  // two chains, so that products need not wait for one another
  for (int64_t b = 0; b < count; b++, tables += TABLE) {
    __m512i low = _mm512_loadu_si512(tables), high = _mm512_loadu_si512(tables + 64);
    int step = 0;
    for (; step + 1 < steps[b]; step += 2, data += 256) {
      for (int line = 0; line < 256; line += 64) _mm_prefetch((const char *)data + 4096 + line, _MM_HINT_T0);
      __m512i first = fetch(low, high, _mm512_loadu_si512(data));
      __m512i second = fetch(low, high, _mm512_loadu_si512(data + 128));
      even = _mm512_dpbusd_epi32(even, first, _mm512_loadu_si512(data + 64));
      odd = _mm512_dpbusd_epi32(odd, second, _mm512_loadu_si512(data + 192));
    }
    if (step < steps[b]) {
      for (int line = 0; line < 128; line += 64) _mm_prefetch((const char *)data + 4096 + line, _MM_HINT_T0);
      even = _mm512_dpbusd_epi32(even, fetch(low, high, _mm512_loadu_si512(data)), _mm512_loadu_si512(data + 64));
      data += 128;
    }
  }
  _mm512_storeu_si512(sums, _mm512_add_epi32(even, odd));
  return data;
}

const uint8_t *quads(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *codes, int32_t *sums) {
  __m512i sum = _mm512_setzero_si512();
  for (int64_t b = 0; b < count; b++, codes += CSP_BANK) {
    __m512i low = _mm512_loadu_si512(codes), high = _mm512_loadu_si512(codes + 64);
    for (int step = 0; step < steps[b]; step++, data += 80) {
      _mm_prefetch((const char *)data + 4096, _MM_HINT_T0);
      _mm_prefetch((const char *)data + 4136, _MM_HINT_T0);
      __m512i places = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)data));
      __m512i seen = _mm512_permutex2var_epi32(low, places, high);
      sum = _mm512_dpbusd_epi32(sum, seen, _mm512_loadu_si512(data + 16));
    }
  }
  _mm512_storeu_si512(sums, sum);
  return data;
}

inline __m128i chunk(const uint8_t *codes, uint8_t number) {
  return _mm_loadu_si128((const __m128i *)(codes + CSP_CHUNK * number));
}

const uint8_t *chunks(const uint8_t *data, int64_t count, const uint8_t *codes, int32_t *sums) {
  const uint8_t *weights = data + count;
  for (int64_t i = 0; i < count; i += 4, weights += 64) {
    _mm_prefetch((const char *)weights + 2048, _MM_HINT_T0);
    __m512i seen = _mm512_castsi128_si512(chunk(codes, data[i]));
    seen = _mm512_inserti32x4(seen, chunk(codes, data[i + 1]), 1);
    seen = _mm512_inserti32x4(seen, chunk(codes, data[i + 2]), 2);
    seen = _mm512_inserti32x4(seen, chunk(codes, data[i + 3]), 3);
    __m512i four = _mm512_dpbusd_epi32(_mm512_setzero_si512(), seen, _mm512_loadu_si512(weights));
    four = _mm512_add_epi32(four, _mm512_maskz_shuffle_epi32(0xffff, four, (_MM_PERM_ENUM)0x4e));
    four = _mm512_add_epi32(four, _mm512_maskz_shuffle_epi32(0xffff, four, (_MM_PERM_ENUM)0xb1));
    __m512i packed = _mm512_maskz_compress_epi32(0x1111, four);
    _mm_storeu_si128((__m128i *)(sums + i), _mm512_maskz_extracti32x4_epi32(0xf, packed, 0));
  }
  return weights;
}

// Sixteen floats at sixteen places: four permutations of 32 each, of which bits 5 and 7 of a place choose one.
inline __m512 fetch_floats(const __m512 *x, __m512i place) {
  __mmask16 second = _mm512_test_epi32_mask(place, _mm512_set1_epi32(32));
  __mmask16 later = _mm512_test_epi32_mask(place, _mm512_set1_epi32(128));
  __m512 first = _mm512_permutex2var_ps(x[0], place, x[1]), third = _mm512_permutex2var_ps(x[4], place, x[5]);
  first = _mm512_mask_blend_ps(second, first, _mm512_permutex2var_ps(x[2], place, x[3]));
  third = _mm512_mask_blend_ps(second, third, _mm512_permutex2var_ps(x[6], place, x[7]));
  return _mm512_mask_blend_ps(later, first, third);
}

const uint8_t *banks_float(const uint8_t *data, const uint8_t *steps, int64_t count, const float *x, float *sums) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t b = 0; b < count; b++, x += CSP_BANK) {
    __m512 bank[8];
    for (int i = 0; i < 8; i++) bank[i] = _mm512_loadu_ps(x + 16 * i);
    for (int step = 0; step < steps[b]; step++, data += 80) {
      __m512i place = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)data));
      sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(data + 16), fetch_floats(bank, place)));
    }
  }
  _mm512_storeu_ps(sums, sum);
  return data;
}

}  // namespace
