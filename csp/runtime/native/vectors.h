// N numbers at once by the compiler's own vectors, where an instruction set's registers hold CSP_WIDTH bytes. Every
// operation is IEEE's and contraction is off, so that all sets give the same bits. Nothing here may have external
// linkage: each set compiles its own copy.
#pragma once
#include <stdint.h>

namespace {

const int N = CSP_WIDTH / 4;
typedef float Floats __attribute__((vector_size(CSP_WIDTH)));
typedef int32_t Ints __attribute__((vector_size(CSP_WIDTH)));
typedef uint8_t Bytes __attribute__((vector_size(CSP_WIDTH / 4)));
typedef float FloatsAt __attribute__((vector_size(CSP_WIDTH), aligned(4), may_alias));
typedef int32_t IntsAt __attribute__((vector_size(CSP_WIDTH), aligned(4), may_alias));

inline Floats load(const float *x) { return *(const FloatsAt *)x; }
inline Ints load(const int32_t *x) { return *(const IntsAt *)x; }
inline void store(float *to, Floats x) { *(FloatsAt *)to = x; }
inline void store(int32_t *to, Ints x) { *(IntsAt *)to = x; }
inline Floats all(float x) { return Floats{} + x; }

// The first `count` lanes of memory, zeros behind them.
inline Floats load_some(const float *x, int64_t count) {
  if (count >= N) return load(x);
  Floats some = {};
  for (int64_t i = 0; i < count; i++) some[i] = x[i];
  return some;
}

inline void store_some(float *to, Floats x, int64_t count) {
  if (count >= N) return store(to, x);
  for (int64_t i = 0; i < count; i++) to[i] = x[i];
}

const float ROUND = 12582912.0f;  // 1.5 x 2^23: adding it rounds to an integer, half to even

// exp x for -87 <= x <= 88 by a polynomial, after Cody and Waite's reduction.
inline Floats exponential(Floats x) {
  x = x < -87.0f ? all(-87.0f) : x;
  x = x > 88.0f ? all(88.0f) : x;
  Floats n = (x * 1.44269504f + ROUND) - ROUND;
  Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  return p * (Floats)power;
}

inline Floats sigmoid(Floats x) { return 1.0f / (exponential(-x) + 1.0f); }
inline Floats hyperbolic(Floats x) { return 1.0f - 2.0f / (exponential(x + x) + 1.0f); }

// Sixteen numbers, added in halves: the order is the same everywhere.
inline float total(float *lanes) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] = lanes[i] + lanes[i + half];
  return lanes[0];
}

}  // namespace
