// Multiplies, steps and normalises by the portable kernels, and prints the bits of what comes out: built for two machines
// by test_build.py, it must print the same.
#include <stdio.h>
#include <stdlib.h>

#include "api.h"

struct Values {
  const int64_t *order;
  const void *values;
  int64_t count;
  int32_t layout, floats, inputs, outputs;
};

extern "C" const Kernels *csp_kernels(int set);
extern "C" int64_t csp_count(const Values *, uint32_t *, uint8_t *);
extern "C" int csp_fill(const Values *, const uint32_t *, const uint8_t *, uint8_t *, int32_t *);
extern "C" void csp_fill_dense(const Values *, uint8_t *, int32_t *);

static uint32_t state = 1;
static uint32_t draw() { return state = state * 1664525u + 1013904223u, state >> 8; }
static float uniform() { return (float)((int32_t)draw() - 8388608) / 4194304.0f; }

static void print(const char *name, const float *x, int64_t count) {
  uint32_t hash = 2166136261u;
  for (int64_t i = 0; i < 4 * count; i++) hash = (hash ^ ((const uint8_t *)x)[i]) * 16777619u;
  printf("%s %08x\n", name, hash);
}

static Packed pack(int layout, int floats, int inputs, int outputs) {
  int64_t size = (int64_t)inputs * outputs, count = 0;
  int64_t *order = (int64_t *)malloc((size_t)size * 8);
  char *values = (char *)calloc((size_t)size, 4);
  for (int64_t i = 0; i < size; i++) {
    if (layout != DENSE && draw() % 8) continue;
    order[count] = i;
    if (floats) ((float *)values)[count] = uniform();
    else ((int8_t *)values)[count] = (int8_t)(draw() % 255 - 127);
    count++;
  }
  int64_t groups = (outputs + 15) / 16, tiles = groups * ((inputs + 127) / 128);
  Values said = {order, values, count, layout, floats, inputs, outputs};
  uint32_t *living = (uint32_t *)calloc((size_t)tiles * 16, 16);
  uint8_t *steps = (uint8_t *)calloc((size_t)tiles, 1);
  int64_t bytes = layout == DENSE ? (floats ? 4 * inputs : (inputs + 3) / 4 * 4) * groups * 16 : csp_count(&said, living, steps);
  uint8_t *data = (uint8_t *)calloc((size_t)bytes + 64, 1);
  int32_t *sums = (int32_t *)calloc((size_t)groups * 16, 4);
  float *scale = (float *)calloc((size_t)groups * 16, 4);
  for (int64_t i = 0; i < outputs; i++) scale[i] = 0.01f + 0.001f * (float)(i % 7);
  if (layout == DENSE) csp_fill_dense(&said, data, sums);
  else if (csp_fill(&said, living, steps, data, sums)) exit(1);
  return {layout, floats, inputs, outputs, data, layout == DENSE ? nullptr : steps, scale, sums};
}

int main() {
  const Kernels *k = csp_kernels(0);
  static float x[4096], y[4096], bias[4096], h[64], c[64];
  for (float &v : x) v = uniform();
  for (float &v : bias) v = uniform();
  for (int floats = 0; floats < 2; floats++)
    for (int layout = DENSE; layout <= MASKS; layout++) {
      if (layout == CHUNKS || (floats && layout > BANKS)) continue;  // whose steps are counted otherwise
      Packed w = pack(layout, floats, 300, 90);
      if (k->linear(&w, bias, x, 3, y)) return 1;
      print("linear", y, 270);
      Packed input = pack(layout, floats, 40, 256), recurrent = pack(layout, floats, 64, 256);
      for (int i = 0; i < 64; i++) h[i] = c[i] = 0;
      if (k->lstm(&input, &recurrent, bias, x, 20, h, c, y)) return 1;
      print("lstm", y, 20 * 64);
    }
  k->norm(x, 5, 100, bias, bias + 100, nullptr, y), print("norm", y, 500);
  k->tanh_of_sum(x, bias, 999, y), print("tanh_of_sum", y, 999);
  k->silu(x, 999, y), print("silu", y, 999);
  k->gate(x, 5, 100, y), print("gate", y, 500);
  k->depthwise(x, 5, 100, bias, 4, y), print("depthwise", y, 500);
  const int64_t counts[] = {7, 3};
  if (k->attend(x, bias, counts, 2, 7, 3, 20, 840, y)) return 1;
  print("attend", y, 120);
  Packed high = pack(DENSE, 0, 40, 96), low = pack(BANKS, 0, 96, 40), thin = pack(DENSE, 0, 40, 6), wide = pack(DENSE, 0, 6, 40);
  const Layer two[] = {{nullptr, &high, bias}, {nullptr, &low, bias}}, side[] = {{&thin, &wide, bias}, {&thin, &wide, nullptr}};
  if (k->feed(x, 5, 40, bias, bias + 40, two, 0.5f, y)) return 1;
  print("feed", y, 200);
  if (k->project(x, 5, 40, bias, bias + 40, side, 2, y)) return 1;
  print("project", y, 400);
  k->rotate(x, 5, 3, 20, bias, bias + 50), print("rotate", x, 300);
}
