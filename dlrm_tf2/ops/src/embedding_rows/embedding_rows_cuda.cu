// The C interface of the CUDA kernels of embedding rows: checks, choices, launches.
#include "embedding_rows.h"

#include "lookup_cuda.cuh"
#include "queue_cuda.cuh"

namespace {

using namespace rows;

constexpr int64_t kMostColumns = 1 << 20;

// ---- lookup ----------------------------------------------------------------------------------------------------------

template <class W, class T, int kPack>
int queue_pool(const SlabBags& of, const DlrmSlab& slab, const Piece* pieces, DlrmCudaStatus* status, void* stream) {
  const int bits = team_bits(slab.width, kPack);
  const int64_t blocks = of.num_pieces * blocks_for(of.most_samples, kBagsOfTeam * (kThreads >> bits));
  if (blocks == 0) return DLRM_OK;
  if (blocks >= int64_t{1} << 31) return DLRM_TOO_LARGE;
  return code_of(launch(pool<W, T, kPack>, blocks, kThreads, 0, stream, pieces + of.first_piece, of.num_pieces,
                        slab.weights, slab.width, bits, status));
}

template <class W>
int lookup_slab(const Plan& plan, const SlabBags& of, const DlrmSlab& slab, int vectors_type, const Piece* pieces,
                DlrmCudaStatus* status, void* stream) {
  constexpr int kPack = 16 / sizeof(W);
  const bool packs = slab.width % kPack == 0 && fits(slab.weights, 16) && vectors_fit(plan, of, vectors_type, kPack);
  const auto queue = vectors_type == DLRM_FLOAT32   ? packs ? queue_pool<W, float, kPack> : queue_pool<W, float, 1>
                     : vectors_type == DLRM_FLOAT16 ? packs ? queue_pool<W, Half, kPack> : queue_pool<W, Half, 1>
                     : packs                        ? queue_pool<W, Bfloat, kPack>
                                                    : queue_pool<W, Bfloat, 1>;
  return queue(of, slab, pieces, status, stream);
}

// ---- arguments -------------------------------------------------------------------------------------------------------

bool good(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags, int vectors_type) {
  if (!dlrm::good_arguments(slabs, num_slabs, bags, num_bags, vectors_type)) return false;
  for (int64_t i = 0; i < num_slabs; ++i) {
    if (slabs[i].width > kMostColumns || slabs[i].num_shards < 0 || slabs[i].num_shards >= int64_t{1} << 31) return false;
  }
  for (int64_t i = 0; i < num_bags; ++i) {
    if (bags[i].hotness < 0 && bags[i].all_ids < 0) return false;
  }
  return true;
}

// Whether a row's sum fits in shared memory, where rowwise_adagrad needs it, and every row has what it is updated with.
int check_slab(const DlrmSlab& slab, const DlrmOptimizer& optimizer) {
  if (slab.weights_type == DLRM_BFLOAT16 && slab.num_shards < 1) return DLRM_BAD_ARGUMENT;
  if (optimizer.kind != DLRM_ROWWISE_ADAGRAD) return DLRM_OK;
  int device = 0, shared = 0;
  int error = static_cast<int>(cudaGetDevice(&device));
  if (error == 0) {
    error = static_cast<int>(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  }
  if (error != 0) return code_of(error);
  // A row of packs is as long as one of single columns, and its teams are no larger.
  return (kThreads >> team_bits(slab.width, 4)) * (slab.width + 16) * 4 <= shared ? DLRM_OK : DLRM_TOO_LARGE;
}

// Whether a call has memory enough, at an address that will do, for an update or for sums.
int check_memory(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags, const void* memory,
                 int64_t bytes) {
  int64_t needed = 0;
  const int code = dlrm_embedding_update_cuda_bytes(slabs, num_slabs, bags, num_bags, &needed);
  if (code != DLRM_OK) return code;
  return bytes >= needed && fits(memory, 256) ? DLRM_OK : DLRM_BAD_ARGUMENT;
}

// queue(work), for one slab, if anything occurs in it. `memory`: after the descriptions; by value, because the slabs use
// it one after the other.
template <class Function>
int queue_slab(const Plan& plan, int64_t number, const DlrmSlab& slab, const Descriptions& descriptions, Memory memory,
               const Function& queue) {
  const SlabBags& of = plan.slabs[static_cast<size_t>(number)];
  if (of.num_occurrences == 0) return DLRM_OK;
  int error = 0;
  const Ordered ordered(&memory, of, slab, &error);
  if (error != 0) return code_of(error);
  SlabWork work(plan, number, slab, descriptions, ordered);
  return code_of(queue(&work));
}

}  // namespace

extern "C" {

int dlrm_embedding_lookup_cuda_bytes(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                                     int64_t* bytes) {
  if (!good(slabs, num_slabs, bags, num_bags, DLRM_FLOAT32)) return DLRM_BAD_ARGUMENT;
  const Plan plan = make_plan(num_slabs, bags, num_bags);
  Memory memory(nullptr);
  Descriptions(&memory, plan, slabs);
  *bytes = memory.used();
  return DLRM_OK;
}

int dlrm_embedding_lookup_cuda(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                               int vectors_type, void* memory, int64_t bytes, DlrmCudaStatus* status, void* stream) {
  if (!good(slabs, num_slabs, bags, num_bags, vectors_type) || !fits(memory, 256)) return DLRM_BAD_ARGUMENT;
  const Plan plan = make_plan(num_slabs, bags, num_bags);
  Memory parts(memory);
  const Descriptions descriptions(&parts, plan, slabs);
  if (bytes < parts.used()) return DLRM_BAD_ARGUMENT;
  int code = code_of(descriptions.send(plan, slabs, 0, stream));
  for (int64_t s = 0; s < num_slabs && code == DLRM_OK; ++s) {
    const auto queue = slabs[s].weights_type == DLRM_FLOAT32 ? lookup_slab<float> : lookup_slab<Bfloat>;
    code = queue(plan, plan.slabs[static_cast<size_t>(s)], slabs[s], vectors_type, descriptions.pieces, status, stream);
  }
  return code;
}

int dlrm_embedding_update_cuda_bytes(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                                     int64_t* bytes) {
  if (!good(slabs, num_slabs, bags, num_bags, DLRM_FLOAT32)) return DLRM_BAD_ARGUMENT;
  const Plan plan = make_plan(num_slabs, bags, num_bags);
  Memory memory(nullptr);
  Descriptions(&memory, plan, slabs);
  *bytes = memory.used();
  for (int64_t s = 0; s < num_slabs; ++s) {
    const SlabBags& of = plan.slabs[static_cast<size_t>(s)];
    if (!numbers_suffice(of)) return DLRM_TOO_LARGE;
    if (of.num_occurrences == 0) continue;
    Memory of_slab = memory;  // the slabs use it one after the other
    int error = 0;
    Ordered(&of_slab, of, slabs[s], &error);
    if (error != 0) return code_of(error);
    *bytes = of_slab.used() > *bytes ? of_slab.used() : *bytes;
  }
  return DLRM_OK;
}

int dlrm_embedding_update_cuda(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                               const DlrmOptimizer* optimizer, int vectors_type, void* memory, int64_t bytes,
                               DlrmCudaStatus* status, void* stream) {
  int code = check_memory(slabs, num_slabs, bags, num_bags, memory, bytes);
  if (code != DLRM_OK) return code;
  if (!good(slabs, num_slabs, bags, num_bags, vectors_type) || optimizer->kind < DLRM_SGD ||
      optimizer->kind > DLRM_ADAM) {
    return DLRM_BAD_ARGUMENT;
  }
  for (int64_t s = 0; s < num_slabs && code == DLRM_OK; ++s) code = check_slab(slabs[s], *optimizer);
  if (code != DLRM_OK) return code;
  const Plan plan = make_plan(num_slabs, bags, num_bags);
  Memory parts(memory);
  const Descriptions descriptions(&parts, plan, slabs);
  code = code_of(descriptions.send(plan, slabs, static_cast<uint64_t>(optimizer->step), stream));
  const DlrmShard* shards = descriptions.shards;
  for (int64_t s = 0; s < num_slabs && code == DLRM_OK; ++s) {
    code = queue_slab(plan, s, slabs[s], descriptions, parts, [&](SlabWork* work) {
      const int error = queue_order(work, false, status, stream);
      return error != 0 ? error : update_slab(*work, vectors_type, make_step(slabs[s], shards, *optimizer), status, stream);
    });
    shards += slabs[s].num_shards;
  }
  return code;
}

int dlrm_embedding_sum_cuda(const DlrmSlab* slab, const DlrmBags* bags, int64_t num_bags, void* memory, int64_t bytes,
                            int64_t* num_rows, DlrmCudaStatus* status, void* stream) {
  int code = check_memory(slab, 1, bags, num_bags, memory, bytes);
  if (code != DLRM_OK) return code;
  const Plan plan = make_plan(1, bags, num_bags);
  Memory parts(memory);
  const Descriptions descriptions(&parts, plan, slab);
  code = code_of(descriptions.send(plan, slab, 0, stream));
  if (code != DLRM_OK) return code;
  code = queue_slab(plan, 0, *slab, descriptions, parts,
                    [&](SlabWork* work) { return queue_order(work, true, status, stream); });
  if (code != DLRM_OK) return code;
  return code_of(launch(count_rows, 1, 1, 0, stream, descriptions.counts, num_rows));
}

int dlrm_embedding_sums_cuda(const DlrmSlab* slab, const DlrmBags* bags, int64_t num_bags, int vectors_type,
                             void* memory, int64_t bytes, int64_t* rows, float* sums, void* stream) {
  const int code = check_memory(slab, 1, bags, num_bags, memory, bytes);
  if (code != DLRM_OK) return code;
  if (!good(slab, 1, bags, num_bags, vectors_type)) return DLRM_BAD_ARGUMENT;
  const Plan plan = make_plan(1, bags, num_bags);
  Memory parts(memory);
  const Descriptions descriptions(&parts, plan, slab);
  return queue_slab(plan, 0, *slab, descriptions, parts, [&](SlabWork* work) {
    return sum_slab(*work, vectors_type, rows, sums, stream);
  });
}

}  // extern "C"
