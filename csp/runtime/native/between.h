// What a network does between its matrices, for any instruction set: norms, gates, convolutions, attention.
#pragma once
#include <stdlib.h>

#include "api.h"
#include "vectors.h"

namespace {

void step(const float *gates, int64_t width, float *h, float *c) {
  for (int64_t i = 0; i < width; i += N) {
    int64_t n = width - i;
    Floats in = sigmoid(load_some(gates + i, n)), forget = sigmoid(load_some(gates + width + i, n));
    Floats fresh = hyperbolic(load_some(gates + 2 * width + i, n));
    Floats kept = forget * load_some(c + i, n) + in * fresh;
    Floats said = sigmoid(load_some(gates + 3 * width + i, n)) * hyperbolic(kept);
    store_some(c + i, kept, n);
    store_some(h + i, said, n);
  }
}

// The sum of every 16th (x - mean), or of its squares, in lanes; then of the lanes.
inline float lanes_total(const float *x, int64_t width, float mean, bool squares) {
  float lanes[CSP_LANES] = {};
  for (int64_t i = 0; i < width; i += N) {
    float *lane = lanes + i % CSP_LANES;
    Floats d = load_some(x + i, width - i) - mean;
    if (squares) d = d * d;
    Floats sum = load(lane) + d;
    store_some(lane, sum, width - i);
  }
  return total(lanes);
}

void norm(const float *x, int64_t rows, int64_t width, const float *scale, const float *bias, const float *added,
          float *out) {
  for (int64_t r = 0; r < rows; r++, x += width, out += width) {
    float mean = lanes_total(x, width, 0.0f, false) / (float)width;
    float inverse = 1.0f / __builtin_sqrtf(lanes_total(x, width, mean, true) / (float)width + 1e-5f);
    for (int64_t i = 0; i < width; i += N) {
      int64_t n = width - i;
      Floats y = ((load_some(x + i, n) - mean) * inverse) * load_some(scale + i, n) + load_some(bias + i, n);
      if (added) y = y + load_some(added + r * width + i, n);
      store_some(out + i, y, n);
    }
  }
}

void tanh_of_sum(const float *a, const float *b, int64_t count, float *out) {
  for (int64_t i = 0; i < count; i += N)
    store_some(out + i, hyperbolic(load_some(a + i, count - i) + load_some(b + i, count - i)), count - i);
}

void silu(const float *x, int64_t count, float *out) {
  for (int64_t i = 0; i < count; i += N) {
    Floats v = load_some(x + i, count - i);
    store_some(out + i, v * sigmoid(v), count - i);
  }
}

void gate(const float *x, int64_t rows, int64_t width, float *out) {
  for (int64_t r = 0; r < rows; r++, x += 2 * width, out += width)
    for (int64_t i = 0; i < width; i += N) {
      Floats v = load_some(x + i, width - i) * sigmoid(load_some(x + width + i, width - i));
      store_some(out + i, v, width - i);
    }
}

void depthwise(const float *x, int64_t rows, int64_t width, const float *taps, int64_t count, float *out) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < width; i += N) {
      Floats sum = {};
      for (int64_t k = 0; k < count; k++)
        sum = sum + load_some(x + (r + k) * width + i, width - i) * load_some(taps + k * width + i, width - i);
      store_some(out + r * width + i, sum, width - i);
    }
}

inline float dot(const float *x, const float *y, int64_t width) {
  float lanes[CSP_LANES] = {};
  for (int64_t i = 0; i < width; i += N) {
    float *lane = lanes + i % CSP_LANES;
    Floats sum = load(lane) + load_some(x + i, width - i) * load_some(y + i, width - i);
    store_some(lane, sum, width - i);
  }
  return total(lanes);
}

// p = exp(p - max p), and their sum.
inline float exponentials(float *p, int64_t count) {
  float top = p[0];
  for (int64_t s = 1; s < count; s++) top = p[s] > top ? p[s] : top;
  for (int64_t s = 0; s < count; s += N) store_some(p + s, exponential(load_some(p + s, count - s) - top), count - s);
  return lanes_total(p, count, 0.0f, false);
}

int attend(const float *q, const float *memory, const int64_t *counts, int64_t rows, int64_t most, int64_t heads,
           int64_t size, int64_t stride, float *out) {
  float *p = (float *)malloc((size_t)most * 4 + 4);
  if (!p) return 1;
  float scale = 1.0f / __builtin_sqrtf((float)size);
  int64_t width = heads * size;
  for (int64_t r = 0; r < rows; r++, memory += stride)
    for (int64_t h = 0; h < heads; h++, q += size, out += size) {
      const float *keys = memory + h * size, *values = keys + most * width;
      for (int64_t s = 0; s < counts[r]; s++) p[s] = dot(q, keys + s * width, size) * scale;
      float sum = exponentials(p, counts[r]);
      for (int64_t i = 0; i < size; i += N) {
        Floats mixed = {};
        for (int64_t s = 0; s < counts[r]; s++) mixed = mixed + load_some(values + s * width + i, size - i) * p[s];
        store_some(out + i, mixed / sum, size - i);
      }
    }
  free(p);
  return 0;
}

void rotate(float *x, int64_t rows, int64_t heads, int64_t size, const float *cos, const float *sin) {
  int64_t half = size / 2;
  for (int64_t r = 0; r < rows; r++, cos += half, sin += half)
    for (int64_t h = 0; h < heads; h++, x += size)
      for (int64_t i = 0; i < half; i += N) {
        int64_t n = half - i;
        Floats a = load_some(x + i, n), b = load_some(x + half + i, n);
        Floats c = load_some(cos + i, n), s = load_some(sin + i, n);
        store_some(x + i, a * c - b * s, n);
        store_some(x + half + i, a * s + b * c, n);
      }
}

}  // namespace
