// A program for the sanitizers: lookups, updates and gradients of weights of every form, in buffers of exactly the right size, by one thread and
// by four at once. Exit code 0 says that all of them gave the same bits and no sanitizer objected; that they are the right
// bits is for tests/dlrm_tf2/ops/test_ops_rows.py.
#include <stdio.h>
#include <string.h>

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "embedding_rows.h"

namespace {

using Bytes = std::vector<unsigned char>;

// Runs tasks in as many threads as `threads` says.
void in_threads(void* threads, int64_t count, DlrmTask task, void* state) {
  std::atomic<int64_t> next{0};
  std::vector<std::thread> running;
  for (int64_t i = 0; i < *static_cast<int64_t*>(threads); ++i) {
    running.emplace_back([&] {
      for (int64_t index = next++; index < count; index = next++) task(state, index);
    });
  }
  for (std::thread& thread : running) thread.join();
}

// Two tables in one slab, each looked up by one bag of fixed and one of any number of ids.
struct Case {
  Case(int64_t width, int weights_type, int vectors_type, int optimizer_kind, int64_t num_samples, std::mt19937* random) {
    const int64_t rows_of_table = 40, num_rows = 2 * rows_of_table;
    const auto bytes = [&](int64_t count, int type) {
      Bytes memory(static_cast<size_t>(count * (type == DLRM_FLOAT32 ? 4 : 2)));
      for (unsigned char& byte : memory) byte = static_cast<unsigned char>((*random)() % 60);  // small finite numbers
      return memory;
    };
    weights = bytes(num_rows * width, weights_type);
    for (auto& slot : slots) slot.assign(static_cast<size_t>(num_rows * width), 0.5f);
    for (int64_t table = 0; table < 2; ++table) shards.push_back({table * rows_of_table, 7, 3, 12345});
    slab = {weights.data(), {slots[0].data(), slots[1].data()}, num_rows, width, weights_type, shards.data(), 2};
    if (optimizer_kind == DLRM_SGD) slab.slots[0] = nullptr;
    if (optimizer_kind != DLRM_ADAM) slab.slots[1] = nullptr;
    for (int64_t table = 0; table < 2; ++table) {
      for (const bool ragged : {false, true}) {
        auto splits = std::make_unique<std::vector<int64_t>>(1, 0);
        for (int64_t sample = 0; sample < num_samples; ++sample) {
          splits->push_back(splits->back() + (ragged ? static_cast<int64_t>((*random)() % 4) : 2));
        }
        auto of_bags = std::make_unique<std::vector<int32_t>>(static_cast<size_t>(splits->back()));
        for (int32_t& id : *of_bags) id = static_cast<int32_t>((*random)() % 8 == 0 ? (*random)() % rows_of_table : 3);
        auto factors = std::make_unique<std::vector<float>>(of_bags->size(), 0.75f);
        vectors.push_back(std::make_unique<Bytes>(bytes(num_samples * width, vectors_type)));
        DlrmBags one = {};
        one.first_row = table * rows_of_table;
        one.num_ids = one.last_id = rows_of_table;
        one.ids = of_bags->data();
        one.hotness = ragged ? -1 : 2;
        one.sample_stride = 2;
        one.row_splits = ragged ? splits->data() : nullptr;
        one.all_ids = splits->back();
        one.weights = ragged == (table == 1) ? factors->data() : nullptr;
        one.mean = table == 1;
        one.vectors = vectors.back()->data();
        one.vector_stride = width;
        one.num_samples = num_samples;
        bags.push_back(one);
        row_splits.push_back(std::move(splits));
        ids.push_back(std::move(of_bags));
        weight_gradients.push_back(std::make_unique<std::vector<float>>(factors->size(), 0.5f));
        to_weights.push_back(weight_gradients.back()->data());
        id_weights.push_back(std::move(factors));
      }
    }
  }

  Bytes weights;
  std::vector<float> slots[2];
  std::vector<DlrmShard> shards;
  DlrmSlab slab;
  std::vector<DlrmBags> bags;
  std::vector<std::unique_ptr<std::vector<int64_t>>> row_splits;
  std::vector<std::unique_ptr<std::vector<int32_t>>> ids;
  std::vector<std::unique_ptr<std::vector<float>>> id_weights, weight_gradients;
  std::vector<float*> to_weights;
  std::vector<std::unique_ptr<Bytes>> vectors;
};

struct Form {
  int64_t width;
  int weights_type, vectors_type, optimizer;
  int64_t num_samples;
};

// All memory after a lookup of the vectors, and gradients of weights and an update by them.
Bytes result_of(const Form& form, int instruction_set, int64_t num_threads) {
  std::mt19937 random(7);
  Case one(form.width, form.weights_type, form.vectors_type, form.optimizer, form.num_samples, &random);
  const int64_t num_bags = static_cast<int64_t>(one.bags.size());
  std::atomic<int> code{DLRM_OK};
  struct State {
    Case* one;
    const Form* form;
    int64_t num_bags, num_threads;
    int instruction_set;
    std::atomic<int>* code;
  } state = {&one, &form, num_bags, num_threads, instruction_set, &code};
  in_threads(&num_threads, num_threads, [](void* opaque, int64_t index) {
    const State& s = *static_cast<State*>(opaque);
    DlrmBadId bad;
    const int64_t samples = s.form->num_samples;
    const int64_t first = samples * index / s.num_threads, last = samples * (index + 1) / s.num_threads;
    int found = dlrm_embedding_lookup_cpu(&s.one->slab, 1, s.one->bags.data(), s.num_bags, first, last,
                                          s.form->vectors_type, s.instruction_set, &bad);
    if (found != DLRM_OK) *s.code = found;
    found = dlrm_embedding_weight_gradient_cpu(&s.one->slab, 1, s.one->bags.data(), s.num_bags, first, last,
                                               s.form->vectors_type, s.instruction_set, s.one->to_weights.data(), &bad);
    if (found != DLRM_OK) *s.code = found;
  }, &state);
  const DlrmOptimizer optimizer = {form.optimizer, 0.1f, 1e-8f, 0.9, 0.999, 3};
  void* const workspace = dlrm_embedding_workspace_new();
  DlrmBadId bad;
  int finite = 0;
  const int updated = dlrm_embedding_update_cpu(&one.slab, 1, one.bags.data(), num_bags, &optimizer, form.vectors_type,
                                                instruction_set, workspace, in_threads, &num_threads, num_threads,
                                                &finite, &bad);
  int64_t num_rows = 0;
  const int summed = dlrm_embedding_sum_cpu(&one.slab, one.bags.data(), num_bags, form.vectors_type, instruction_set,
                                            workspace, in_threads, &num_threads, num_threads, &num_rows, &bad);
  std::vector<int64_t> rows(static_cast<size_t>(num_rows));
  std::vector<float> sums(static_cast<size_t>(num_rows * form.width));
  dlrm_embedding_sums(workspace, rows.data(), sums.data());
  dlrm_embedding_workspace_delete(workspace);
  if (code != DLRM_OK || updated != DLRM_OK || summed != DLRM_OK || !finite || num_rows == 0) return {};
  Bytes all = one.weights;
  const auto append = [&](const std::vector<float>& floats) {
    const auto* const first = reinterpret_cast<const unsigned char*>(floats.data());
    all.insert(all.end(), first, first + floats.size() * sizeof(float));
  };
  for (const auto& slot : one.slots) append(slot);
  for (const auto& of_bags : one.weight_gradients) append(*of_bags);
  for (const auto& of_bags : one.vectors) all.insert(all.end(), of_bags->begin(), of_bags->end());
  return all;
}

}  // namespace

int main() {
  int checked = 0;
  for (int64_t width : {1, 7, 8, 16, 33, 64, 128}) {
    for (int weights_type : {DLRM_FLOAT32, DLRM_BFLOAT16}) {
      for (int vectors_type : {DLRM_FLOAT32, DLRM_FLOAT16, DLRM_BFLOAT16}) {
        for (int optimizer : {DLRM_SGD, DLRM_ADAGRAD, DLRM_ROWWISE_ADAGRAD, DLRM_ADAM}) {
          const Form form = {width, weights_type, vectors_type, optimizer, width == 16 ? 5000 : 300};
          const Bytes wanted = result_of(form, DLRM_SCALAR, 1);
          for (int set = DLRM_SCALAR; set <= dlrm_cpu_instruction_set(); ++set) {
            for (int64_t num_threads : {1, 4}) {
              if (wanted.empty() || result_of(form, set, num_threads) != wanted) {
                fprintf(stderr, "wrong: width %d, types %d and %d, optimizer %d, instruction set %d, %d threads\n",
                        static_cast<int>(width), weights_type, vectors_type, optimizer, set,
                        static_cast<int>(num_threads));
                return 1;
              }
              ++checked;
            }
          }
        }
      }
    }
  }
  printf("check_row_kernels: %d cases agree\n", checked);
  return 0;
}
