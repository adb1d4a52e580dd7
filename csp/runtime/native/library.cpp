// What Python calls first: which kernels this machine can run, and how a matrix is packed for them. No instruction here
// is beyond what every machine has.
#include <stdlib.h>
#include <string.h>

#include "api.h"

// 0 portable, 1 AVX2, 2 AVX-512, 3 AVX-512 with VBMI; null where this machine cannot run them.
CSP_PUBLIC const Kernels *csp_kernels(int set) {
  if (set == 0) return &csp_portable;
#if defined(__x86_64__)
  if (set == 1 && __builtin_cpu_supports("avx2")) return &csp_avx2;
  bool wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  if (set == 2 && wide) return &csp_avx512;
  if (set == 3 && wide && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2"))
    return &csp_vbmi;
#endif
  return nullptr;
}

// The digest of the sources of which this library was built.
CSP_PUBLIC const char *csp_source() { return CSP_SOURCE; }

// What is known of a matrix before it is packed: `count` values at order[i] = input x outputs + output.
struct Values {
  const int64_t *order;
  const void *values;  // int8 codes or floats
  int64_t count;
  int32_t layout, floats, inputs, outputs;
};

static bool is_zero(const Values *v, int64_t i) {
  return v->floats ? ((const float *)v->values)[i] == 0.0f : ((const int8_t *)v->values)[i] == 0;
}

static int64_t banks_of(const Values *v) { return (v->inputs + CSP_BANK - 1) / CSP_BANK; }
static int64_t groups_of(const Values *v) { return (v->outputs + CSP_LANES - 1) / CSP_LANES; }

// Where the counts of (group, bank, lane) stand for one entry.
static int64_t slot_of(const Values *v, int64_t input, int64_t output) {
  return ((output / CSP_LANES) * banks_of(v) + input / CSP_BANK) * CSP_LANES + output % CSP_LANES;
}

static int64_t step_bytes(const Values *v) { return v->layout == BANKS && !v->floats ? 128 : 80; }

static int64_t octets_of(const Values *v) { return (v->inputs + CSP_OCTET - 1) / CSP_OCTET; }

// Which of 32 inputs an output has: a word for each group, octet and lane.
static uint32_t *octet_word(const Values *v, uint32_t *words, int64_t input, int64_t output) {
  return words + ((output / CSP_LANES) * octets_of(v) + input / CSP_OCTET) * CSP_LANES + output % CSP_LANES;
}

// The mask of four inputs of an octet, from the words of its sixteen lanes.
static uint64_t mask_of(const uint32_t *words, int quad) {
  uint64_t mask = 0;
  for (int lane = 0; lane < CSP_LANES; lane++) mask |= (uint64_t)(words[lane] >> 4 * quad & 15) << 4 * lane;
  return mask;
}

static int64_t to_fours(int64_t count) { return (count + 3) / 4 * 4; }

// Counts of the chunks of each output, from the sets of each bank; the bytes that the data will take, or -1 for too many.
static int64_t count_chunks(const Values *v, const uint32_t *living, uint8_t *steps) {
  int64_t total = 0;
  for (int64_t group = 0; group < groups_of(v); group++, steps += CSP_LANES) {
    int64_t chunks = 0;
    for (int lane = 0; lane < CSP_LANES; lane++) {
      int count = 0;
      for (int64_t bank = 0; bank < banks_of(v); bank++)
        count += __builtin_popcount(living[slot_of(v, bank * CSP_BANK, group * CSP_LANES + lane)]);
      if (count > 255) return -1;
      steps[lane] = (uint8_t)count;
      chunks += count;
    }
    total += to_fours(chunks) * (1 + CSP_CHUNK);
  }
  return total;
}

static int64_t count_masks(const Values *v, const uint32_t *words) {
  int64_t octets = groups_of(v) * octets_of(v), total = 64 * octets;
  for (int64_t i = 0; i < octets * CSP_LANES; i++) total += __builtin_popcount(words[i]);
  return total;
}

// Fills `steps` from `living`, which has a word for each group, bank and lane: a count for BANKS, a set of the 32 quads for
// QUADS, of the 8 chunks for CHUNKS; for MASKS it has four, sets of inputs, and there are no steps. Returns the bytes that
// the data will take; or -1 for an entry beyond the matrix or, in MASKS, given twice, or where a layout has no room for so
// many.
CSP_PUBLIC int64_t csp_count(const Values *v, uint32_t *living, uint8_t *steps) {
  int64_t tiles = groups_of(v) * banks_of(v), size = (int64_t)v->inputs * v->outputs, total = 0;
  memset(living, 0, (size_t)tiles * CSP_LANES * (v->layout == MASKS ? 16 : 4));
  for (int64_t i = 0; i < v->count; i++) {
    if (v->order[i] < 0 || v->order[i] >= size) return -1;
    if (is_zero(v, i)) continue;
    int64_t input = v->order[i] / v->outputs, output = v->order[i] % v->outputs;
    uint32_t *here = v->layout == MASKS ? octet_word(v, living, input, output) : living + slot_of(v, input, output);
    if (v->layout == MASKS) {
      if (*here >> input % CSP_OCTET & 1) return -1;
      *here |= 1u << input % CSP_OCTET;
    } else if (v->layout == QUADS) *here |= 1u << (input % CSP_BANK / 4);
    else if (v->layout == CHUNKS) *here |= 1u << (input % CSP_BANK / CSP_CHUNK);
    else ++*here;
  }
  if (v->layout == CHUNKS) return count_chunks(v, living, steps);
  if (v->layout == MASKS) return count_masks(v, living);
  for (int64_t t = 0; t < tiles; t++) {
    uint32_t most = 0;
    for (int lane = 0; lane < CSP_LANES; lane++) {
      uint32_t n = living[t * CSP_LANES + lane];
      if (v->layout == QUADS) n = (uint32_t)__builtin_popcount(n);
      most = n > most ? n : most;
    }
    if (most > CSP_BANK) return -1;
    steps[t] = (uint8_t)(v->layout == BANKS && !v->floats ? (most + 3) / 4 : most);
    total += steps[t] * step_bytes(v);
  }
  return total;
}

static void place(const Values *v, int64_t i, int64_t slot, int64_t input, int lane, uint8_t *tile) {
  uint8_t at = (uint8_t)((input & 63) | (input & 64 ? 192 : 0));
  if (v->layout == QUADS) {
    uint8_t *step = tile + slot * 80;
    step[lane] = (uint8_t)(input % CSP_BANK / 4);
    step[16 + 4 * lane + input % 4] = ((const uint8_t *)v->values)[i];
  } else if (v->floats) {
    uint8_t *step = tile + slot * 80;
    step[lane] = at;
    memcpy(step + 16 + 4 * lane, (const float *)v->values + i, 4);
  } else {
    uint8_t *step = tile + slot / 4 * 128;
    step[4 * lane + slot % 4] = at;
    step[64 + 4 * lane + slot % 4] = ((const uint8_t *)v->values)[i];
  }
}

static int fill_chunks(const Values *v, const uint32_t *living, const uint8_t *steps, uint8_t *data, int32_t *sums) {
  int64_t outputs = groups_of(v) * CSP_LANES;
  uint8_t **numbers = (uint8_t **)malloc((size_t)outputs * 2 * sizeof(uint8_t *)), **codes = numbers + outputs;
  if (!numbers) return 1;
  for (int64_t first = 0; first < outputs; first += CSP_LANES) {
    int64_t chunks = 0, before = 0;
    for (int lane = 0; lane < CSP_LANES; lane++) chunks += steps[first + lane];
    for (int lane = 0; lane < CSP_LANES; lane++) {
      uint8_t *next = numbers[first + lane] = data + before;
      codes[first + lane] = data + to_fours(chunks) + before * CSP_CHUNK;
      before += steps[first + lane];
      for (int64_t bank = 0; bank < banks_of(v); bank++)
        for (int chunk = 0; chunk < CSP_BANK / CSP_CHUNK; chunk++)
          if (living[slot_of(v, bank * CSP_BANK, first + lane)] >> chunk & 1)
            *next++ = (uint8_t)(bank * (CSP_BANK / CSP_CHUNK) + chunk);
    }
    data += to_fours(chunks) * (1 + CSP_CHUNK);
  }
  for (int64_t i = 0; i < v->count; i++) {
    if (is_zero(v, i)) continue;
    int64_t input = v->order[i] / v->outputs, output = v->order[i] % v->outputs;
    void *here = memchr(numbers[output], (int)(input / CSP_CHUNK), steps[output]);
    int64_t slot = (uint8_t *)here - numbers[output];
    codes[output][slot * CSP_CHUNK + input % CSP_CHUNK] = ((const uint8_t *)v->values)[i];
    sums[output] += ((const int8_t *)v->values)[i];
  }
  free(numbers);
  return 0;
}

static int fill_masks(const Values *v, const uint32_t *words, uint8_t *data, int32_t *sums) {
  int64_t octets = groups_of(v) * octets_of(v);
  uint8_t **starts = (uint8_t **)malloc((size_t)octets * sizeof(uint8_t *));
  if (!starts) return 1;
  for (int64_t o = 0; o < octets; o++, words += CSP_LANES) {
    starts[o] = data;
    uint64_t all[8];
    for (int quad = 0; quad < 8; quad++) all[quad] = mask_of(words, quad);
    memcpy(data, all, 64);
    data += 64;
    for (int quad = 0; quad < 8; quad++) data += __builtin_popcountll(all[quad]);
  }
  for (int64_t i = 0; i < v->count; i++) {
    if (is_zero(v, i)) continue;
    int64_t input = v->order[i] / v->outputs, output = v->order[i] % v->outputs;
    uint8_t *start = starts[(output / CSP_LANES) * octets_of(v) + input / CSP_OCTET], *to = start + 64;
    uint64_t mask;
    for (int quad = 0; quad < input % CSP_OCTET / 4; quad++) {
      memcpy(&mask, start + 8 * quad, 8);
      to += __builtin_popcountll(mask);
    }
    memcpy(&mask, start + input % CSP_OCTET / 4 * 8, 8);
    to += __builtin_popcountll(mask & ((1ull << (output % CSP_LANES * 4 + input % 4)) - 1));
    *to = ((const uint8_t *)v->values)[i];
    sums[output] += ((const int8_t *)v->values)[i];
  }
  free(starts);
  return 0;
}

// The data and the sums of the codes, both zero before; `living` and `steps` as `csp_count` left them. 0, or 1 where
// memory ends.
CSP_PUBLIC int csp_fill(const Values *v, const uint32_t *living, const uint8_t *steps, uint8_t *data, int32_t *sums) {
  if (v->layout == CHUNKS) return fill_chunks(v, living, steps, data, sums);
  if (v->layout == MASKS) return fill_masks(v, living, data, sums);
  int64_t tiles = groups_of(v) * banks_of(v);
  int64_t *starts = (int64_t *)malloc((size_t)(tiles + 1) * 8);
  uint8_t *used = (uint8_t *)calloc((size_t)(tiles * CSP_LANES + 1), 1);
  if (!starts || !used) return free(starts), free(used), 1;
  starts[0] = 0;
  for (int64_t t = 0; t < tiles; t++) starts[t + 1] = starts[t] + steps[t] * step_bytes(v);
  for (int64_t i = 0; i < v->count; i++) {
    if (is_zero(v, i)) continue;
    int64_t input = v->order[i] / v->outputs, output = v->order[i] % v->outputs, at = slot_of(v, input, output);
    int64_t slot = v->layout == QUADS ? __builtin_popcount(living[at] & ((1u << (input % CSP_BANK / 4)) - 1)) : used[at]++;
    place(v, i, slot, input, (int)(output % CSP_LANES), data + starts[at / CSP_LANES]);
    if (!v->floats) sums[output] += ((const int8_t *)v->values)[i];
  }
  free(starts), free(used);
  return 0;
}

// A dense matrix [inputs, outputs]: `data` is zero before, and of whole groups and whole fours of inputs.
CSP_PUBLIC void csp_fill_dense(const Values *v, uint8_t *data, int32_t *sums) {
  int64_t fours = (v->inputs + 3) / 4;
  for (int64_t input = 0; input < v->inputs; input++)
    for (int64_t output = 0; output < v->outputs; output++) {
      int64_t from = input * v->outputs + output, group = output / CSP_LANES, lane = output % CSP_LANES;
      if (v->floats) {
        memcpy(data + ((group * v->inputs + input) * CSP_LANES + lane) * 4, (const float *)v->values + from, 4);
      } else {
        int8_t code = ((const int8_t *)v->values)[from];
        data[(group * fours + input / 4) * 64 + 4 * lane + input % 4] = (uint8_t)code;
        sums[output] += code;
      }
    }
}
