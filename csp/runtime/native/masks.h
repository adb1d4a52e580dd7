// Masks where no instruction spreads their codes; after `dense`.
#pragma once
#include <string.h>

#include "api.h"

namespace {

const uint8_t *spread(const uint8_t *data, int64_t octets, uint8_t *to) {
  memset(to, 0, (size_t)octets * CSP_OCTET * CSP_LANES);
  for (int64_t o = 0; o < octets; o++) {
    const uint8_t *from = data + 64;
    for (int i = 0; i < 64; i++, to += 8)
      for (int bits = data[i]; bits; bits &= bits - 1) to[__builtin_ctz((unsigned)bits)] = *from++;
    data = from;
  }
  return data;
}

const uint8_t *masks(const uint8_t *data, int64_t octets, const uint8_t *codes, int32_t *sums) {
  uint8_t octet[CSP_OCTET * CSP_LANES];
  int32_t part[CSP_LANES];
  memset(sums, 0, sizeof part);
  for (int64_t o = 0; o < octets; o++, codes += CSP_OCTET) {
    data = spread(data, 1, octet);
    dense(octet, CSP_OCTET / 4, codes, part);
    for (int lane = 0; lane < CSP_LANES; lane++) sums[lane] += part[lane];
  }
  return data;
}

}  // namespace
