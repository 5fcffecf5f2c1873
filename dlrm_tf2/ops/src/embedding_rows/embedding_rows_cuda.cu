// The C interface of the CUDA kernels of embedding rows: checks, choices, launches.
#include "embedding_rows.h"

#include "lookup_cuda.cuh"
#include "plan_cuda.h"
#include "update_cuda.cuh"

namespace {

using namespace rows;

constexpr int64_t kMostColumns = 1 << 20;
constexpr int64_t kMostBlocks = 8192;  // of kernels that go round, because only the GPU knows how much there is to do

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

// ---- update ----------------------------------------------------------------------------------------------------------

// One slab's update, when its occurrences are numbered.
struct SlabUpdate {
  const SlabBags& of;
  const DlrmSlab& slab;
  const Ordered& ordered;
  Counts* counts;
  Vectors vectors;
  Step step;
  DlrmCudaStatus* status;
  void* stream;
};

// Finds the rows, sorts them and lists their runs. Sets update->vectors.order; `rows` is where the sorted rows are.
int queue_order(SlabUpdate* update, const Piece* pieces, const uint32_t** rows, Lists* lists) {
  const Ordered& o = update->ordered;
  const int64_t count = update->of.num_occurrences, blocks = blocks_for(count, kThreads), none = update->slab.num_rows;
  const Occurrences all = {pieces,    update->of.num_pieces, count,    none,     update->of.shift,
                           o.rows[0], o.values[0],           o.places, o.factors};
  int sorted = 0;
  int error = launch(find_rows, blocks, kThreads, 0, update->stream, all, update->status);
  if (error == 0) {
    error = sort_by_row(o.sort_memory, o.sort_bytes, o.rows, o.values, count, row_bits(update->slab), &sorted,
                        update->stream);
  }
  if (error != 0) return error;
  *rows = o.rows[sorted];
  update->vectors.order = o.values[sorted];
  *lists = {update->counts, reinterpret_cast<Run*>(o.rows[1 - sorted]), o.chunks, o.chunk_rows, o.long_runs};
  return launch(list_runs, blocks, kThreads, 8, update->stream, *rows, count, none, *lists);
}

template <class T, int kPack>
int queue_runs(const SlabUpdate& update, const uint32_t* rows, const Lists& lists) {
  const int64_t width = update.slab.width;
  const int bits = team_bits(width, kPack), teams = kThreads >> bits;
  const auto blocks = [&](int64_t most) {
    const int64_t needed = blocks_for(most, teams);
    return needed < kMostBlocks ? needed : kMostBlocks;
  };
  const int64_t shared = update.step.kind == DLRM_ROWWISE_ADAGRAD ? teams * (width + 16) * 4 : 0;
  const int64_t most_chunks = update.ordered.most_chunks;
  int error = launch(update_rows<T, kPack>, blocks(update.of.num_occurrences), kThreads, shared, update.stream,
                     lists.runs, &lists.counts->runs, rows, update.vectors, update.step, bits, update.status);
  if (error != 0 || update.of.num_occurrences <= kChunk) return error;  // no run is longer
  error = launch(sum_chunks<T, kPack>, blocks(most_chunks), kThreads, 0, update.stream, lists.chunks, lists.counts,
                 update.vectors, width, bits, update.ordered.sums);
  if (error != 0) return error;
  const Vectors sums = {nullptr, nullptr, nullptr, nullptr, 0, update.ordered.sums, static_cast<int>(width)};
  return launch(update_rows<float, kPack>, blocks(most_chunks), kThreads, shared, update.stream, lists.long_runs,
                &lists.counts->long_runs, lists.chunk_rows, sums, update.step, bits, update.status);
}

int update_slab(SlabUpdate* update, const Plan& plan, const Piece* pieces, int vectors_type) {
  constexpr int kPack = 4;
  const DlrmSlab& slab = update->slab;
  const bool packs = slab.width % kPack == 0 && fits(slab.weights, kPack * dlrm::element_bytes(slab.weights_type)) &&
                     fits(slab.slots[0], 16) && fits(slab.slots[1], 16) &&
                     vectors_fit(plan, update->of, vectors_type, kPack);
  const uint32_t* rows = nullptr;
  Lists lists;
  const int error = queue_order(update, pieces, &rows, &lists);
  if (error != 0) return code_of(error);
  const auto queue = vectors_type == DLRM_FLOAT32   ? packs ? queue_runs<float, kPack> : queue_runs<float, 1>
                     : vectors_type == DLRM_FLOAT16 ? packs ? queue_runs<Half, kPack> : queue_runs<Half, 1>
                     : packs                        ? queue_runs<Bfloat, kPack>
                                                    : queue_runs<Bfloat, 1>;
  return code_of(queue(*update, rows, lists));
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
  int64_t needed = 0;
  int code = dlrm_embedding_update_cuda_bytes(slabs, num_slabs, bags, num_bags, &needed);
  if (code != DLRM_OK) return code;
  if (!good(slabs, num_slabs, bags, num_bags, vectors_type) || optimizer->kind < DLRM_SGD ||
      optimizer->kind > DLRM_ADAM || bytes < needed || !fits(memory, 256)) {
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
    const SlabBags& of = plan.slabs[static_cast<size_t>(s)];
    if (of.num_occurrences > 0) {
      Memory of_slab = parts;
      int error = 0;
      const Ordered ordered(&of_slab, of, slabs[s], &error);
      if (error != 0) return code_of(error);
      const Piece* const pieces = descriptions.pieces + of.first_piece;
      const Vectors vectors = {pieces, nullptr, ordered.places, ordered.factors, of.shift, nullptr, static_cast<int>(slabs[s].width)};
      SlabUpdate update = {of,      slabs[s], ordered, descriptions.counts + s, vectors, make_step(slabs[s], shards, *optimizer),
                           status,  stream};
      code = update_slab(&update, plan, pieces, vectors_type);
    }
    shards += slabs[s].num_shards;
  }
  return code;
}

}  // extern "C"
