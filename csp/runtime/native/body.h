// What is written once for all instruction sets. Before it a file defines, in a namespace of its own without a name:
//   TABLE                                   bytes that a bank of activations takes in the form its kernels read
//   arrange(codes, table)                   128 activations into that form
//   dense(data, quads, codes, sums)         sums[16] is written, the end of the group's data returned
//   banks(data, steps, banks, tables, sums)
//   quads(data, steps, banks, codes, sums)
//   masks(data, octets, codes, sums)        of 32 inputs each
//   spread(data, octets, to)                a group of masks as `dense` reads it
//   chunks(data, count, codes, sums)        sums[count] of all chunks of a group, count a multiple of four
//   banks_float(data, steps, banks, x, sums)
#pragma once
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "between.h"
#include "vectors.h"

namespace {

inline int64_t banks_of(int64_t inputs) { return (inputs + CSP_BANK - 1) / CSP_BANK; }
inline int64_t octets_of(int64_t inputs) { return (inputs + CSP_OCTET - 1) / CSP_OCTET; }

// round(x / scale) + 128 with scale = max |x| / 127; what is missing to a whole bank is 128, which is zero.
float quantise(const float *x, int32_t count, uint8_t *codes) {
  Ints highest = {};
  for (int64_t i = 0; i < count; i += N) {
    Ints size = (Ints)load_some(x + i, count - i) & 0x7fffffff;
    highest = size > highest ? size : highest;
  }
  int32_t top = 0;
  for (int i = 0; i < N; i++) top = highest[i] > top ? highest[i] : top;
  float most;
  memcpy(&most, &top, 4);
  memset(codes, 128, (size_t)banks_of(count) * CSP_BANK);
  if (!(most > 1e-30f)) return 0.0f;
  float inverse = 127.0f / most;
  for (int64_t i = 0; i < count; i += N) {
    Ints code = __builtin_convertvector((load_some(x + i, count - i) * inverse + ROUND) - ROUND, Ints) + 128;
    Bytes byte = __builtin_convertvector(code, Bytes);
    memcpy(codes + i, &byte, (size_t)(count - i < N ? count - i : N));
  }
  return most / 127.0f;
}

// Activations of a few rows, in the form that a layout's kernel reads.
struct Rows {
  uint8_t *memory, *bytes, *spread;  // the last: room for a group of masks
  float *scales;
  int64_t stride;
};

int64_t row_bytes(const Packed &w) {
  if (w.floats) return banks_of(w.inputs) * CSP_BANK * 4;
  return banks_of(w.inputs) * (w.layout == BANKS ? TABLE : CSP_BANK);
}

int prepare(Rows *rows, const Packed &w, int64_t batch) {
  rows->stride = row_bytes(w);
  int64_t bytes = batch * (rows->stride + 4) + banks_of(w.inputs) * CSP_BANK + 128, spread = 0;
  if (w.layout == MASKS && batch > 1) spread = octets_of(w.inputs) * CSP_OCTET * CSP_LANES;
  rows->memory = (uint8_t *)malloc((size_t)(bytes + spread));
  if (!rows->memory) return 1;
  rows->spread = rows->memory + bytes;
  rows->bytes = (uint8_t *)(((uintptr_t)rows->memory + 63) & ~(uintptr_t)63);
  rows->scales = (float *)(rows->bytes + batch * rows->stride + banks_of(w.inputs) * CSP_BANK);
  return 0;
}

void read_rows(Rows *rows, const Packed &w, const float *x, int64_t batch) {
  uint8_t *codes = rows->bytes + batch * rows->stride;
  for (int64_t b = 0; b < batch; b++) {
    uint8_t *row = rows->bytes + b * rows->stride;
    if (w.floats) {
      memcpy(row, x + b * w.inputs, (size_t)w.inputs * 4);
      memset(row + (size_t)w.inputs * 4, 0, (size_t)(rows->stride - (int64_t)w.inputs * 4));
    } else if (w.layout != BANKS) {
      rows->scales[b] = quantise(x + b * w.inputs, w.inputs, row);
    } else {
      rows->scales[b] = quantise(x + b * w.inputs, w.inputs, codes);
      for (int64_t bank = 0; bank < banks_of(w.inputs); bank++) arrange(codes + bank * CSP_BANK, row + bank * TABLE);
    }
  }
}

const int MOST_CHUNKS = 255 * CSP_LANES + 4;

// The sums of a group from those of its chunks: differences of their running sum, which has no branches to mispredict.
const uint8_t *by_chunks(const uint8_t *data, const uint8_t *steps, const uint8_t *codes, int32_t *sums) {
  int32_t each[MOST_CHUNKS], running[MOST_CHUNKS];
  int64_t count = 0;
  for (int lane = 0; lane < CSP_LANES; lane++) count += steps[lane];
  int64_t filled = (count + 3) / 4 * 4;
  data = chunks(data, filled, codes, each);
  uint32_t sum = 0;  // unsigned, so that it may wrap: differences stay right
  for (int64_t i = 0; i < count; i++) {
    running[i] = (int32_t)sum;
    sum += (uint32_t)each[i];
  }
  running[count] = (int32_t)sum;
  int64_t first = 0;
  for (int lane = 0; lane < CSP_LANES; lane++) {
    int64_t next = first + steps[lane];
    sums[lane] = (int32_t)((uint32_t)running[next] - (uint32_t)running[first]);
    first = next;
  }
  return data;
}

const uint8_t *dense_float(const uint8_t *data, int64_t inputs, const float *x, float *sums) {
  const int pieces = CSP_LANES / N;
  Floats even[pieces] = {}, odd[pieces] = {};  // two chains, so that additions need not wait for one another
  const float *w = (const float *)data;
  int64_t i = 0;
  for (; i + 1 < inputs; i += 2, w += 2 * CSP_LANES)
    for (int p = 0; p < pieces; p++) {
      even[p] = even[p] + load(w + N * p) * x[i];
      odd[p] = odd[p] + load(w + CSP_LANES + N * p) * x[i + 1];
    }
  if (i < inputs) {
    for (int p = 0; p < pieces; p++) even[p] = even[p] + load(w + N * p) * x[i];
    w += CSP_LANES;
  }
  for (int p = 0; p < pieces; p++) store(sums + N * p, even[p] + odd[p]);
  return (const uint8_t *)w;
}

// One group of outputs for one row; returns the end of the group's data.
inline const uint8_t *group(const Packed &w, const uint8_t *data, const uint8_t *steps, const uint8_t *row, float scale,
                            int64_t first, float *y) {
  int64_t count = banks_of(w.inputs);
  if (w.floats) {
    if (w.layout == DENSE) return dense_float(data, w.inputs, (const float *)row, y);
    return banks_float(data, steps, count, (const float *)row, y);
  }
  int32_t sums[CSP_LANES];
  if (w.layout == DENSE) data = dense(data, (w.inputs + 3) / 4, row, sums);
  else if (w.layout == BANKS) data = banks(data, steps, count, row, sums);
  else if (w.layout == CHUNKS) data = by_chunks(data, steps, row, sums);
  else if (w.layout == MASKS) data = masks(data, octets_of(w.inputs), row, sums);
  else data = quads(data, steps, count, row, sums);
  for (int i = 0; i < CSP_LANES; i += N) {
    Ints exact = load(sums + i) - load(w.sums + first + i) * 128;
    store(y + i, __builtin_convertvector(exact, Floats) * (load(w.scale + first + i) * scale));
  }
  return data;
}

// y += x W where `added`, and else y = (bias or 0) + x W.
void product(const Packed &w, const Rows &rows, int64_t batch, const float *bias, bool added, float *y) {
  const uint8_t *data = w.data, *steps = w.steps;
  bool once = w.layout == MASKS && batch > 1;  // masks are spread once for all rows
  Packed dense_one = w;
  dense_one.layout = DENSE;
  for (int64_t first = 0; first < w.outputs; first += CSP_LANES) {
    const uint8_t *end = once ? spread(data, octets_of(w.inputs), rows.spread) : data;
    int64_t lanes = w.outputs - first < CSP_LANES ? w.outputs - first : CSP_LANES;
    for (int64_t b = 0; b < batch; b++) {
      float sum[CSP_LANES];
      const uint8_t *row = rows.bytes + b * rows.stride;
      if (once) group(dense_one, rows.spread, nullptr, row, rows.scales[b], first, sum);
      else end = group(w, data, steps, row, rows.scales[b], first, sum);
      float *to = y + b * w.outputs + first;
      const float *before = added ? to : bias ? bias + first : nullptr;
      for (int64_t i = 0; i < lanes; i += N) {
        Floats here = load(sum + i);
        if (before) here = load_some(before + i, lanes - i) + here;
        store_some(to + i, here, lanes - i);
      }
    }
    data = end;
    if (steps) steps += w.layout == CHUNKS ? CSP_LANES : banks_of(w.inputs);
  }
}

const int64_t TOGETHER = 64;  // rows that read a group of weights while it is in the first cache

int linear(const Packed *w, const float *bias, const float *x, int64_t batch, float *y) {
  int64_t most = batch < TOGETHER ? batch : TOGETHER;
  Rows rows = {};
  if (prepare(&rows, *w, most)) return 1;
  for (int64_t b = 0; b < batch; b += most) {
    int64_t now = batch - b < most ? batch - b : most;
    read_rows(&rows, *w, x + b * w->inputs, now);
    product(*w, rows, now, bias, false, y + b * w->outputs);
  }
  free(rows.memory);
  return 0;
}

int lstm(const Packed *input, const Packed *recurrent, const float *bias, const float *x, int64_t steps, float *h,
         float *c, float *out) {
  int64_t most = steps < TOGETHER ? steps : TOGETHER, width = recurrent->inputs;
  Rows seen = {}, before = {};
  float *gates = (float *)malloc((size_t)(most * 4 * width * 4));
  int failed = !gates || prepare(&seen, *input, most) || prepare(&before, *recurrent, 1);
  for (int64_t t = 0; t < steps && !failed; t += most) {
    int64_t now = steps - t < most ? steps - t : most;
    read_rows(&seen, *input, x + t * input->inputs, now);
    product(*input, seen, now, bias, false, gates);
    for (int64_t i = 0; i < now; i++) {
      read_rows(&before, *recurrent, h, 1);
      product(*recurrent, before, 1, nullptr, true, gates + i * 4 * width);
      step(gates + i * 4 * width, width, h, c);
      memcpy(out + (t + i) * width, h, (size_t)width * 4);
    }
  }
  free(seen.memory), free(before.memory), free(gates);
  return failed;
}

inline int64_t between(const Layer &l) { return l.first ? l.first->outputs : 0; }

// `memory` holds rows of as many numbers as are between two factors.
int layer(const Layer &l, const float *x, int64_t rows, float *memory, float *y) {
  if (!l.first) return linear(l.last, l.bias, x, rows, y);
  return linear(l.first, nullptr, x, rows, memory) || linear(l.last, l.bias, memory, rows, y);
}

int project(const float *x, int64_t rows, int64_t width, const float *scale, const float *bias, const Layer *layers,
            int64_t count, float *out) {
  int64_t most = 0;
  for (int64_t i = 0; i < count; i++) most = between(layers[i]) > most ? between(layers[i]) : most;
  float *memory = (float *)malloc((size_t)(rows * (width + most)) * 4 + 4);
  if (!memory) return 1;
  norm(x, rows, width, scale, bias, nullptr, memory);
  int failed = 0;
  for (int64_t i = 0; i < count && !failed; i++, out += rows * layers[i - 1].last->outputs)
    failed = layer(layers[i], memory, rows, memory + rows * width, out);
  free(memory);
  return failed;
}

int feed(const float *x, int64_t rows, int64_t width, const float *scale, const float *bias, const Layer *two,
         float share, float *out) {
  int64_t hidden = two[0].last->outputs, most = between(two[0]) > between(two[1]) ? between(two[0]) : between(two[1]);
  float *memory = (float *)malloc((size_t)(rows * (width + hidden + most)) * 4 + 4);
  if (!memory) return 1;
  float *high = memory + rows * width, *rest = high + rows * hidden;
  norm(x, rows, width, scale, bias, nullptr, memory);
  int failed = layer(two[0], memory, rows, rest, high);
  silu(high, failed ? 0 : rows * hidden, high);
  failed = failed || layer(two[1], high, rows, rest, out);
  for (int64_t i = 0; i < rows * width && !failed; i += N) {
    int64_t n = rows * width - i;
    store_some(out + i, load_some(x + i, n) + load_some(out + i, n) * share, n);
  }
  free(memory);
  return failed;
}

}  // namespace

#define CSP_TABLE {linear, lstm, step, norm, tanh_of_sum, silu, gate, depthwise, attend, project, feed, rotate}
