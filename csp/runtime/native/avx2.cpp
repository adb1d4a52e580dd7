// x86-64 with AVX2: a bank of activations lies in eight tables of 16 bytes, each shuffled, and the right one is kept.
// Gathers are avoided: on CPUs whose microcode guards them, one takes as long as fifty additions.
#include <immintrin.h>

#define CSP_WIDTH 32
#include "api.h"
#include "vectors.h"

namespace {

const int64_t TABLE = CSP_BANK;

inline void arrange(const uint8_t *codes, uint8_t *table) { __builtin_memcpy(table, codes, CSP_BANK); }

inline __m256i load32(const uint8_t *from) { return _mm256_loadu_si256((const __m256i *)from); }

inline void put(int32_t *sums, __m256i low, __m256i high) {
  _mm256_storeu_si256((__m256i *)sums, low);
  _mm256_storeu_si256((__m256i *)sums + 1, high);
}

// Eight lanes of 4 activations times 4 codes, widened to 16 bits: the even ones, then the odd ones.
inline __m256i products(__m256i sum, __m256i seen, __m256i codes) {
  __m256i even = _mm256_madd_epi16(_mm256_and_si256(seen, _mm256_set1_epi16(0xff)),
                                   _mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 8));
  __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(seen, 8), _mm256_srai_epi16(codes, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

const uint8_t *dense(const uint8_t *data, int64_t quads, const uint8_t *codes, int32_t *sums) {
  __m256i low = _mm256_setzero_si256(), high = low;
  for (int64_t q = 0; q < quads; q++, data += 64) {
    int32_t four;
    __builtin_memcpy(&four, codes + 4 * q, 4);
    low = products(low, _mm256_set1_epi32(four), load32(data));
    high = products(high, _mm256_set1_epi32(four), load32(data + 32));
  }
  put(sums, low, high);
  return data;
}

// 32 activations at 32 places: a place outside a table gets its top bit set, and a shuffle makes that zero.
inline __m256i fetch(const __m256i *tables, __m256i places) {
  __m256i seen = _mm256_setzero_si256();
  for (int t = 0; t < 8; t++) {
    __m256i within = _mm256_sub_epi8(places, _mm256_set1_epi8((char)((t & 3) * 16 + (t >> 2) * 192)));
    within = _mm256_adds_epu8(within, _mm256_set1_epi8(0x70));
    seen = _mm256_or_si256(seen, _mm256_shuffle_epi8(tables[t], within));
  }
  return seen;
}

const uint8_t *banks(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *bytes, int32_t *sums) {
  __m256i low = _mm256_setzero_si256(), high = low;
  for (int64_t b = 0; b < count; b++, bytes += TABLE) {
    __m256i tables[8];
    for (int t = 0; t < 8; t++) tables[t] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes + t));
    for (int step = 0; step < steps[b]; step++, data += 128) {
      _mm_prefetch((const char *)data + 4096, _MM_HINT_T0);
      _mm_prefetch((const char *)data + 4160, _MM_HINT_T0);
      low = products(low, fetch(tables, load32(data)), load32(data + 64));
      high = products(high, fetch(tables, load32(data + 32)), load32(data + 96));
    }
  }
  put(sums, low, high);
  return data;
}

// Eight quads at eight places of 32.
inline __m256i fetch_quads(const __m256i *tables, const uint8_t *places) {
  __m256i place = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)places));
  __m256i table = _mm256_srli_epi32(place, 3), seen = _mm256_setzero_si256();
  for (int t = 0; t < 4; t++) {
    __m256i here = _mm256_cmpeq_epi32(table, _mm256_set1_epi32(t));
    seen = _mm256_or_si256(seen, _mm256_and_si256(here, _mm256_permutevar8x32_epi32(tables[t], place)));
  }
  return seen;
}

const uint8_t *quads(const uint8_t *data, const uint8_t *steps, int64_t count, const uint8_t *codes, int32_t *sums) {
  __m256i low = _mm256_setzero_si256(), high = low;
  for (int64_t b = 0; b < count; b++, codes += CSP_BANK) {
    __m256i tables[4];
    for (int t = 0; t < 4; t++) tables[t] = load32(codes + 32 * t);
    for (int step = 0; step < steps[b]; step++, data += 80) {
      low = products(low, fetch_quads(tables, data), load32(data + 16));
      high = products(high, fetch_quads(tables, data + 8), load32(data + 48));
    }
  }
  put(sums, low, high);
  return data;
}

inline __m256i two(const uint8_t *codes, const uint8_t *numbers) {
  __m128i second = _mm_loadu_si128((const __m128i *)(codes + CSP_CHUNK * numbers[1]));
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(codes + CSP_CHUNK * numbers[0]))), second, 1);
}

const uint8_t *chunks(const uint8_t *data, int64_t count, const uint8_t *codes, int32_t *sums) {
  const uint8_t *weights = data + count;
  for (int64_t i = 0; i < count; i += 4, weights += 64) {
    __m256i zero = _mm256_setzero_si256();
    __m256i low = products(zero, two(codes, data + i), load32(weights));
    __m256i high = products(zero, two(codes, data + i + 2), load32(weights + 32));
    __m256i pairs = _mm256_hadd_epi32(low, high);  // chunks 0, 0, 2, 2 and 1, 1, 3, 3
    pairs = _mm256_hadd_epi32(pairs, pairs);       // 0, 2, 0, 2 and 1, 3, 1, 3
    __m128i even = _mm256_castsi256_si128(pairs), odd = _mm256_extracti128_si256(pairs, 1);
    _mm_storeu_si128((__m128i *)(sums + i), _mm_unpacklo_epi32(even, odd));
  }
  return weights;
}

}  // namespace

#include "loads.h"
#include "masks.h"
#include "body.h"

extern "C" const Kernels csp_avx2 = CSP_TABLE;
