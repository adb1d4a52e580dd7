// x86-64 with AVX-512 BW and VNNI: a bank of activations lies in two registers, and a permutation fetches from it.
#include <immintrin.h>

#define CSP_WIDTH 64
#include "api.h"
#include "vectors.h"

namespace {

const int64_t TABLE = CSP_BANK;

// Activations j and j + 64 of a bank share word j: words can be permuted across two registers, bytes only on later CPUs.
inline void arrange(const uint8_t *codes, uint8_t *table) {
  for (int i = 0; i < 64; i += 32) {
    __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(codes + i)));
    __m512i high = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(codes + 64 + i)));
    _mm512_storeu_si512(table + 2 * i, _mm512_or_si512(low, _mm512_slli_epi16(high, 8)));
  }
}

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

// 64 activations at 64 places: the even bytes' words, the odd bytes' words, then the half of each that its place asks.
inline __m512i fetch(__m512i low, __m512i high, __m512i places) {
  __m512i even = _mm512_permutex2var_epi16(low, places, high);
  __m512i odd = _mm512_permutex2var_epi16(low, _mm512_srli_epi16(places, 8), high);
  __m512i lower = _mm512_set1_epi16(0x00ff);
  __m512i firsts = _mm512_ternarylogic_epi64(lower, even, _mm512_slli_epi16(odd, 8), 0xca);
  __m512i seconds = _mm512_ternarylogic_epi64(lower, _mm512_srli_epi16(even, 8), odd, 0xca);
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(places), firsts, seconds);
}

const uint8_t *banks(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *tables, int32_t *sums) {
  __m512i sum = _mm512_setzero_si512();
  for (int64_t b = 0; b < count; b++, tables += TABLE) {
    __m512i low = _mm512_loadu_si512(tables), high = _mm512_loadu_si512(tables + 64);
    for (int step = 0; step < steps[b]; step++, data += 128) {
      _mm_prefetch((const char *)data + 4096, _MM_HINT_T0);
      _mm_prefetch((const char *)data + 4160, _MM_HINT_T0);
      __m512i seen = fetch(low, high, _mm512_loadu_si512(data));
      sum = _mm512_dpbusd_epi32(sum, seen, _mm512_loadu_si512(data + 64));
    }
  }
  _mm512_storeu_si512(sums, sum);
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

#include "body.h"

extern "C" const Kernels csp_avx512 = CSP_TABLE;
