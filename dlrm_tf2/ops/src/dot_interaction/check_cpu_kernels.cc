// A program for the sanitizers: every CPU kernel over a grid of shapes, in buffers of exactly the right size, and one
// batch from several threads at once. Exit code 0 says that values agreed with a plain loop and no sanitizer objected.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <random>
#include <thread>
#include <vector>

#include "dot_interaction.h"

namespace {

using Bytes = std::vector<unsigned char>;

float value_of(const Bytes& memory, int64_t index, int element_type) {
  if (element_type == DLRM_FLOAT32) {
    float value;
    memcpy(&value, memory.data() + 4 * index, 4);
    return value;
  }
  uint16_t bits;
  memcpy(&bits, memory.data() + 2 * index, 2);
  if (element_type == DLRM_BFLOAT16) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float magnitude = exponent == 0 ? ldexpf(static_cast<float>(fraction), -24)
                                        : ldexpf(static_cast<float>(1024 + fraction), exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

// Small whole numbers: exact in every type, and so are their dots.
Bytes whole_numbers(int64_t count, int element_type, std::mt19937* random) {
  Bytes memory(static_cast<size_t>(count * (element_type == DLRM_FLOAT32 ? 4 : 2)));
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(static_cast<int>((*random)() % 3) - 1);
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (element_type == DLRM_FLOAT32) {
      memcpy(memory.data() + 4 * i, &bits, 4);
    } else {
      const uint16_t float16 = value == 0 ? 0 : value < 0 ? 0xbc00 : 0x3c00;
      const uint16_t half = element_type == DLRM_BFLOAT16 ? static_cast<uint16_t>(bits >> 16) : float16;
      memcpy(memory.data() + 2 * i, &half, 2);
    }
  }
  return memory;
}

bool check(int64_t batch, int64_t F, int64_t D, int element_type, int instruction_set, int num_threads,
           std::mt19937* random) {
  const int64_t P = dlrm_dot_interaction_output_width(F, D), item = element_type == DLRM_FLOAT32 ? 4 : 2;
  const Bytes features = whole_numbers(batch * F * D, element_type, random);
  const Bytes upstream = whole_numbers(batch * P, element_type, random);
  Bytes output(static_cast<size_t>(batch * P * item), 0xff), gradient(static_cast<size_t>(batch * F * D * item), 0xff);
  std::vector<std::thread> threads;
  std::vector<int> codes(static_cast<size_t>(num_threads), 0);
  for (int i = 0; i < num_threads; ++i) {
    threads.emplace_back([&, i] {
      const int64_t first = batch * i / num_threads, last = batch * (i + 1) / num_threads;
      codes[i] = dlrm_dot_interaction_cpu(features.data(), output.data(), first, last, F, D, element_type,
                                          instruction_set);
      codes[i] += dlrm_dot_interaction_gradient_cpu(features.data(), upstream.data(), gradient.data(), first, last, F, D,
                                                    element_type, instruction_set);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int code : codes) {
    if (code != DLRM_OK) return false;
  }
  for (int64_t sample = 0; sample < batch; ++sample) {
    std::vector<double> wanted(static_cast<size_t>(F * D), 0.0);
    const auto x = [&](int64_t row, int64_t d) { return value_of(features, (sample * F + row) * D + d, element_type); };
    for (int64_t d = 0; d < D; ++d) wanted[d] = value_of(upstream, sample * P + d, element_type);
    int64_t p = D;
    for (int64_t i = 0; i < F; ++i) {
      for (int64_t j = 0; j < i; ++j, ++p) {
        const double up = value_of(upstream, sample * P + p, element_type);
        double dot = 0;
        for (int64_t d = 0; d < D; ++d) {
          dot += static_cast<double>(x(i, d)) * x(j, d);
          wanted[i * D + d] += up * x(j, d);
          wanted[j * D + d] += up * x(i, d);
        }
        if (value_of(output, sample * P + p, element_type) != dot) return false;
      }
    }
    for (int64_t d = 0; d < D; ++d) {
      if (value_of(output, sample * P + d, element_type) != x(0, d)) return false;
    }
    for (; p < P; ++p) {
      if (value_of(output, sample * P + p, element_type) != 0) return false;
    }
    for (int64_t i = 0; i < F * D; ++i) {
      if (value_of(gradient, sample * F * D + i, element_type) != wanted[i]) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  std::mt19937 random(1);
  int checked = 0;
  for (int set = DLRM_SCALAR; set <= dlrm_cpu_instruction_set(); ++set) {
    for (int element_type : {DLRM_FLOAT32, DLRM_FLOAT16, DLRM_BFLOAT16}) {
      for (int64_t F : {1, 2, 3, 4, 5, 9, 16, 27, 33}) {
        for (int64_t D : {1, 7, 8, 16, 31, 33, 64, 127, 128}) {
          for (int num_threads : {1, 4}) {
            if (!check(num_threads == 1 ? 2 : 9, F, D, element_type, set, num_threads, &random)) {
              fprintf(stderr, "wrong: F %d, D %d, type %d, instruction set %d\n", static_cast<int>(F),
                      static_cast<int>(D), element_type, set);
              return 1;
            }
            ++checked;
          }
        }
      }
    }
  }
  printf("check_cpu_kernels: %d cases agree\n", checked);
  return 0;
}
