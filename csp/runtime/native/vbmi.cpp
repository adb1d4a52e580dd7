// x86-64 with AVX-512 VNNI, VBMI and VBMI2 (Intel since Ice Lake, AMD since Zen 4): one instruction fetches 64 bytes from
// a bank, and one spreads the codes of a mask.
#include <immintrin.h>

#define CSP_WIDTH 64
#include "api.h"
#include "vectors.h"

namespace {

const int64_t TABLE = CSP_BANK;

inline void arrange(const uint8_t *codes, uint8_t *table) { __builtin_memcpy(table, codes, CSP_BANK); }

inline __m512i fetch(__m512i low, __m512i high, __m512i places) { return _mm512_permutex2var_epi8(low, places, high); }

// Calls take(i, codes) for the eight times 64 codes of each octet.
template <class Take>
inline const uint8_t *each_octet(const uint8_t *data, int64_t octets, Take take) {
  for (int64_t o = 0; o < octets; o++) {
    const uint8_t *from = data + 64;
    for (int i = 0; i < 8; i++) {
      uint64_t mask;
      __builtin_memcpy(&mask, data + 8 * i, 8);
      if (i % 2 == 0) _mm_prefetch((const char *)from + 2048, _MM_HINT_T0);
      take(8 * o + i, _mm512_maskz_expand_epi8(mask, _mm512_loadu_si512(from)));
      from += __builtin_popcountll(mask);
    }
    data = from;
  }
  return data;
}

const uint8_t *spread(const uint8_t *data, int64_t octets, uint8_t *to) {
  return each_octet(data, octets, [to](int64_t i, __m512i w) { _mm512_storeu_si512(to + 64 * i, w); });
}

const uint8_t *masks(const uint8_t *data, int64_t octets, const uint8_t *codes, int32_t *sums) {
  __m512i sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  data = each_octet(data, octets, [&](int64_t i, __m512i w) {
    int32_t four;
    __builtin_memcpy(&four, codes + 4 * i, 4);
    sum[i % 2] = _mm512_dpbusd_epi32(sum[i % 2], _mm512_set1_epi32(four), w);
  });
  _mm512_storeu_si512(sums, _mm512_add_epi32(sum[0], sum[1]));
  return data;
}

}  // namespace

#include "avx512.h"
#include "body.h"

extern "C" const Kernels csp_vbmi = CSP_TABLE;
