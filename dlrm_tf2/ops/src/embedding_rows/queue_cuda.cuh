// What is queued for the occurrences of one slab: their order, then the update of their rows, or their sums.
#pragma once

#include "plan_cuda.h"
#include "update_cuda.cuh"

namespace rows {

constexpr int kPack = 4;               // columns, where widths and addresses allow
constexpr int64_t kMostBlocks = 8192;  // of kernels that go round, because only the GPU knows how much there is to do

// One slab, and where everything of it is.
struct SlabWork {
  const Plan& plan;
  const SlabBags& of;
  const DlrmSlab& slab;
  const Ordered& ordered;
  Counts* counts;
  Vectors vectors;
  const uint32_t* rows = nullptr;  // sorted
  Lists lists = {};

  SlabWork(const Plan& of_call, int64_t number, const DlrmSlab& of_number, const Descriptions& all, const Ordered& o)
      : plan(of_call),
        of(of_call.slabs[static_cast<size_t>(number)]),
        slab(of_number),
        ordered(o),
        counts(all.counts + number),
        vectors{all.pieces + of.first_piece, nullptr, o.places, o.factors, of.shift, nullptr,
                static_cast<int>(of_number.width)} {
    set_half(0);
  }

  // The sorted occurrences are in this half of the memory for them; their runs are listed in the other.
  void set_half(int half) {
    rows = ordered.rows[half];
    vectors.order = ordered.values[half];
    lists = {counts, reinterpret_cast<Run*>(ordered.rows[1 - half]), ordered.chunks, ordered.chunk_rows,
             ordered.long_runs};
  }

  bool has_long_runs() const { return of.num_occurrences > kChunk; }  // perhaps

  Vectors sums_of_chunks() const { return {nullptr, nullptr, nullptr, nullptr, 0, ordered.sums, vectors.width}; }

  // Blocks for the runs, and for the chunks or long runs.
  int64_t run_blocks(int team_bits) const { return blocks_of_teams(of.num_occurrences, team_bits); }
  int64_t chunk_blocks(int team_bits) const { return blocks_of_teams(ordered.most_chunks, team_bits); }

 private:
  static int64_t blocks_of_teams(int64_t most, int team_bits) {
    const int64_t needed = blocks_for(most, kThreads >> team_bits);
    return needed < kMostBlocks ? needed : kMostBlocks;
  }
};

// The functions below return a cudaError_t.

// Finds the rows, sorts them and lists their runs. first_half: what is sorted must end there.
inline int queue_order(SlabWork* work, bool first_half, DlrmCudaStatus* status, void* stream) {
  const Ordered& o = work->ordered;
  const int64_t count = work->of.num_occurrences, blocks = blocks_for(count, kThreads), none = work->slab.num_rows;
  const Occurrences all = {work->vectors.pieces, work->of.num_pieces, count,    none,     work->of.shift,
                           o.rows[0],            o.values[0],         o.places, o.factors};
  int half = 0, error = launch(find_rows, blocks, kThreads, 0, stream, all, status);
  if (error == 0) {
    error = sort_by_row(o.sort_memory, o.sort_bytes, o.rows, o.values, count, row_bits(work->slab), &half, stream);
  }
  if (error == 0 && half != 0 && first_half) {
    error = copy_memory(o.rows[0], o.rows[half], 2 * count * static_cast<int64_t>(sizeof(uint32_t)), stream);
    half = 0;
  }
  if (error != 0) return error;
  work->set_half(half);
  return launch(list_runs, blocks, kThreads, 8, stream, work->rows, count, none, work->lists);
}

template <class T, int kColumns>
int queue_chunks(const SlabWork& work, int bits, void* stream) {
  return launch(sum_runs<T, kColumns>, work.chunk_blocks(bits), kThreads, 0, stream, work.lists.chunks,
                &work.counts->chunks, work.vectors, bits, Sums{work.ordered.sums, nullptr, nullptr, nullptr});
}

template <class T, int kColumns>
int queue_updates(const SlabWork& work, const Step& step, DlrmCudaStatus* status, void* stream) {
  const int bits = team_bits(step.width, kColumns), teams = kThreads >> bits;
  const int64_t shared = step.kind == DLRM_ROWWISE_ADAGRAD ? teams * (work.slab.width + 16) * 4 : 0;
  int error = launch(update_rows<T, kColumns>, work.run_blocks(bits), kThreads, shared, stream, work.lists.runs,
                     &work.counts->runs, work.rows, work.vectors, step, bits, status);
  if (error != 0 || !work.has_long_runs()) return error;
  error = queue_chunks<T, kColumns>(work, bits, stream);
  if (error != 0) return error;
  return launch(update_rows<float, kColumns>, work.chunk_blocks(bits), kThreads, shared, stream, work.lists.long_runs,
                &work.counts->long_runs, work.lists.chunk_rows, work.sums_of_chunks(), step, bits, status);
}

// The rows of short runs first, then the rows of long runs.
template <class T, int kColumns>
int queue_sums(const SlabWork& work, int64_t* rows, float* sums, void* stream) {
  const int bits = team_bits(work.slab.width, kColumns);
  int error = launch(sum_runs<T, kColumns>, work.run_blocks(bits), kThreads, 0, stream, work.lists.runs,
                     &work.counts->runs, work.vectors, bits, Sums{sums, rows, work.rows, nullptr});
  if (error != 0 || !work.has_long_runs()) return error;
  error = queue_chunks<T, kColumns>(work, bits, stream);
  if (error != 0) return error;
  return launch(sum_runs<float, kColumns>, work.chunk_blocks(bits), kThreads, 0, stream, work.lists.long_runs,
                &work.counts->long_runs, work.sums_of_chunks(), bits,
                Sums{sums, rows, work.lists.chunk_rows, &work.counts->runs});
}

inline int update_slab(const SlabWork& work, int vectors_type, const Step& step, DlrmCudaStatus* status, void* stream) {
  const DlrmSlab& slab = work.slab;
  const bool packs = slab.width % kPack == 0 && fits(slab.weights, kPack * dlrm::element_bytes(slab.weights_type)) &&
                     fits(slab.slots[0], 16) && fits(slab.slots[1], 16) &&
                     vectors_fit(work.plan, work.of, vectors_type, kPack);
  const auto queue = vectors_type == DLRM_FLOAT32   ? packs ? queue_updates<float, kPack> : queue_updates<float, 1>
                     : vectors_type == DLRM_FLOAT16 ? packs ? queue_updates<Half, kPack> : queue_updates<Half, 1>
                     : packs                        ? queue_updates<Bfloat, kPack>
                                                    : queue_updates<Bfloat, 1>;
  return queue(work, step, status, stream);
}

inline int sum_slab(const SlabWork& work, int vectors_type, int64_t* rows, float* sums, void* stream) {
  const bool packs =
      work.slab.width % kPack == 0 && fits(sums, 16) && vectors_fit(work.plan, work.of, vectors_type, kPack);
  const auto queue = vectors_type == DLRM_FLOAT32   ? packs ? queue_sums<float, kPack> : queue_sums<float, 1>
                     : vectors_type == DLRM_FLOAT16 ? packs ? queue_sums<Half, kPack> : queue_sums<Half, 1>
                     : packs                        ? queue_sums<Bfloat, kPack>
                                                    : queue_sums<Bfloat, 1>;
  return queue(work, rows, sums, stream);
}

}  // namespace rows
