// Would a bitmask beat dense int8 above 40 % density? Expansion of 64 codes by shuffles, by pdep, or by VBMI2's one
// instruction for it where the processor has that, then the dense kernel's product; for CPUs with AVX-512 VNNI.
//
//   g++ -O3 -march=native benchmarks/bitmask.cpp -o build/bitmask && build/bitmask
//
// Seven matrices of 1024 x 4096 one after the other, one thread, medians of 15 turns; all ways give the same sums.
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <vector>

const int INPUTS = 1024, OUTPUTS = 4096, STACK = 7, QUADS = INPUTS / 4, GROUPS = OUTPUTS / 16, TURNS = 15;
const int TOGETHER = 8;
uint64_t places[256];  // of a byte's set bits, and 0x80 where there is none

inline int32_t four(const uint8_t *codes, int64_t q) {
  int32_t x;
  memcpy(&x, codes + 4 * q, 4);
  return x;
}

inline uint64_t word(const uint8_t *from) {
  uint64_t x;
  memcpy(&x, from, 8);
  return x;
}

const uint8_t *dense(const uint8_t *data, const uint8_t *codes, int32_t *sums) {
  __m512i even = _mm512_setzero_si512(), odd = even;
  for (int q = 0; q < QUADS; q += 2, data += 128) {
    even = _mm512_dpbusd_epi32(even, _mm512_set1_epi32(four(codes, q)), _mm512_loadu_si512(data));
    odd = _mm512_dpbusd_epi32(odd, _mm512_set1_epi32(four(codes, q + 1)), _mm512_loadu_si512(data + 64));
  }
  _mm512_storeu_si512(sums, _mm512_add_epi32(even, odd));
  return data;
}

// Sixteen codes of the mask's bits from `shift` on.
inline __m128i sixteen(const uint8_t *from, uint64_t mask, int shift) {
  int first = __builtin_popcountll(mask & ((1ull << shift) - 1));
  int second = __builtin_popcountll(mask & ((1ull << (shift + 8)) - 1));
  __m128i codes = _mm_set_epi64x((int64_t)word(from + second), (int64_t)word(from + first));
  __m128i at = _mm_set_epi64x((int64_t)(places[mask >> (shift + 8) & 255] | 0x0808080808080808ull),
                              (int64_t)places[mask >> shift & 255]);
  return _mm_shuffle_epi8(codes, at);
}

const uint8_t *shuffled(const uint8_t *data, const uint8_t *codes, int32_t *sums) {
  __m512i sum = _mm512_setzero_si512();
  for (int q = 0; q < QUADS; q++) {
    uint64_t mask = word(data);
    const uint8_t *from = data + 8;
    _mm_prefetch((const char *)data + 2048, _MM_HINT_T0);
    __m512i w = _mm512_castsi128_si512(sixteen(from, mask, 0));
    w = _mm512_inserti32x4(w, sixteen(from, mask, 16), 1);
    w = _mm512_inserti32x4(w, sixteen(from, mask, 32), 2);
    w = _mm512_inserti32x4(w, sixteen(from, mask, 48), 3);
    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(four(codes, q)), w);
    data = from + __builtin_popcountll(mask);
  }
  _mm512_storeu_si512(sums, sum);
  return data;
}

// By pdep into a buffer, two blocks ahead of their use.
const uint8_t *deposited(const uint8_t *data, const uint8_t *codes, int32_t *sums) {
  alignas(64) uint64_t ahead[4][8];
  __m512i sum = _mm512_setzero_si512();
  for (int q = -2; q < QUADS; q++) {
    if (q + 2 < QUADS) {
      uint64_t mask = word(data);
      data += 8;
      for (int i = 0; i < 8; i++) {
        uint64_t bits = mask >> 8 * i & 255;
        ahead[(q + 2) & 3][i] = _pdep_u64(word(data), _pdep_u64(bits, 0x0101010101010101ull) * 255);
        data += __builtin_popcountll(bits);
      }
    }
    if (q >= 0) sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(four(codes, q)), _mm512_load_si512(ahead[q & 3]));
  }
  _mm512_storeu_si512(sums, sum);
  return data;
}

#ifdef __AVX512VBMI2__
// One instruction. The masks of eight blocks stand before their codes, so that no load of a mask waits for where the
// last block ended.
const uint8_t *expanded(const uint8_t *data, const uint8_t *codes, int32_t *sums) {
  __m512i sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int q = 0; q < QUADS; q += TOGETHER) {
    const uint8_t *from = data + 8 * TOGETHER;
    _mm_prefetch((const char *)data + 2048, _MM_HINT_T0);
    for (int i = 0; i < TOGETHER; i++) {
      uint64_t mask = word(data + 8 * i);
      if (i % 2) _mm_prefetch((const char *)from + 2048, _MM_HINT_T0);
      __m512i w = _mm512_maskz_expand_epi8(mask, _mm512_loadu_si512(from));
      sum[i % 2] = _mm512_dpbusd_epi32(sum[i % 2], _mm512_set1_epi32(four(codes, q + i)), w);
      from += __builtin_popcountll(mask);
    }
    data = from;
  }
  _mm512_storeu_si512(sums, _mm512_add_epi32(sum[0], sum[1]));
  return data;
}
#endif

int main() {
  for (int bits = 0; bits < 256; bits++) {
    uint8_t at[8], next = 0;
    for (int i = 0; i < 8; i++) at[i] = bits >> i & 1 ? next++ : 0x80;
    memcpy(places + bits, at, 8);
  }
  for (double density : {0.4, 0.5, 0.6, 0.7}) {
    std::vector<uint8_t> full((size_t)STACK * INPUTS * OUTPUTS), masked, x(INPUTS);
    for (auto &code : full) code = rand() < density * RAND_MAX ? (uint8_t)(rand() % 255 + 1) : 0;
    for (auto &code : x) code = (uint8_t)(rand() % 256);
    for (size_t block = 0; block < full.size(); block += 64) {
      uint8_t mask[8] = {};
      for (int i = 0; i < 64; i++) mask[i / 8] |= (uint8_t)((full[block + i] != 0) << i % 8);
      masked.insert(masked.end(), mask, mask + 8);
      std::copy_if(full.begin() + block, full.begin() + block + 64, std::back_inserter(masked), [](uint8_t c) { return c; });
    }
    double bytes = (double)masked.size() / (double)full.size();
    masked.resize(masked.size() + 4096);
    std::vector<uint8_t> apart;  // the same, the masks of some blocks first
    for (size_t group = 0, at = 0; group < full.size(); group += 64 * TOGETHER) {
      std::vector<uint8_t> codes;
      for (int i = 0; i < TOGETHER; i++, at += 8) {
        apart.insert(apart.end(), masked.begin() + at, masked.begin() + at + 8);
        int count = __builtin_popcountll(word(masked.data() + at));
        codes.insert(codes.end(), masked.begin() + at + 8, masked.begin() + at + 8 + count);
        at += count;
      }
      apart.insert(apart.end(), codes.begin(), codes.end());
    }
    apart.resize(apart.size() + 4096);
    struct Way {
      const char *name;
      const uint8_t *(*group)(const uint8_t *, const uint8_t *, int32_t *);
      const uint8_t *data;
      std::vector<double> seconds;
      std::vector<int32_t> sums;
    };
    std::vector<Way> ways = {
        {"dense", dense, full.data()}, {"shuffles", shuffled, masked.data()}, {"pdep", deposited, masked.data()}};
#ifdef __AVX512VBMI2__
    ways.push_back({"expand", expanded, apart.data()});
#endif
    for (int turn = 0; turn < TURNS; turn++)
      for (Way &way : ways) {
        way.sums.resize((size_t)STACK * OUTPUTS);
        auto start = std::chrono::steady_clock::now();
        const uint8_t *data = way.data;
        for (int g = 0; g < STACK * GROUPS; g++) data = way.group(data, x.data(), way.sums.data() + 16 * g);
        way.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
    for (Way &way : ways) {
      std::sort(way.seconds.begin(), way.seconds.end());
      if (way.sums != ways[0].sums) return printf("%s gives other sums\n", way.name), 1;
      printf("density %.1f  %-8s  %.3f bytes a weight  %6.2f ms  %.2f of dense's speed\n", density, way.name,
             &way == &ways[0] ? 1.0 : bytes, 1e3 * way.seconds[TURNS / 2], ways[0].seconds[TURNS / 2] / way.seconds[TURNS / 2]);
    }
  }
}
