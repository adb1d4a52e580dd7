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

// 64 activations at 64 places: the even bytes' words, the odd bytes' words, then the half of each that its place asks.
inline __m512i fetch(__m512i low, __m512i high, __m512i places) {
  __m512i even = _mm512_permutex2var_epi16(low, places, high);
  __m512i odd = _mm512_permutex2var_epi16(low, _mm512_srli_epi16(places, 8), high);
  __m512i lower = _mm512_set1_epi16(0x00ff);
  __m512i firsts = _mm512_ternarylogic_epi64(lower, even, _mm512_slli_epi16(odd, 8), 0xca);
  __m512i seconds = _mm512_ternarylogic_epi64(lower, _mm512_srli_epi16(even, 8), odd, 0xca);
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(places), firsts, seconds);
}

}  // namespace

#include "avx512.h"
#include "masks.h"
#include "body.h"

extern "C" const Kernels csp_avx512 = CSP_TABLE;
