// The lookup on the CPU: finds the rows of some bags, asks for their memory, and pools the bags before.
#include <string.h>

#include <algorithm>
#include <vector>

#include "embedding_rows_cpu.h"

namespace {

using dlrm::PoolBlock;

// Rows are asked for in blocks that the first-level cache holds, and vectors are written in blocks of samples that the
// second-level cache holds: all pieces of these samples, before the next samples.
constexpr int64_t kBlockBytes = 16 << 10, kSamplesBytes = 256 << 10, kMostSamples = 64;
constexpr int64_t kStreamBytes = 32 << 20;  // vectors of more bytes have left the caches before anybody reads them
constexpr int64_t kCacheLine = 64;

int64_t between(int64_t low, int64_t value, int64_t high) { return std::min(std::max(low, value), high); }

// Rows found for some bags of one piece. Grows, and is used again.
struct Found {
  PoolBlock block;
  int piece_type;
  std::vector<const char*> rows;
  std::vector<float> factors;
  std::vector<int64_t> counts;
};

inline void prefetch_row(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
}

class Lookup {
 public:
  Lookup(const DlrmSlab* slabs, const DlrmBags* bags, int64_t num_bags, int vectors_type,
         const dlrm::RowKernels& kernels, DlrmBadId* bad_id)
      : slabs_(slabs), bags_(bags), num_bags_(num_bags), vectors_type_(vectors_type), kernels_(kernels),
        bad_id_(bad_id) {
    for (int64_t i = 0; i < num_bags; ++i) {
      const int64_t bytes = row_bytes(bags[i]) * std::max<int64_t>(1, bags[i].hotness);
      blocks_.push_back(between(1, kBlockBytes / bytes, kMostSamples));
    }
    samples_ = kMostSamples;
    if (num_bags > 0) {
      const int64_t stride = std::max<int64_t>(1, bags[0].vector_stride * dlrm::element_bytes(vectors_type));
      samples_ = between(8, kSamplesBytes / stride, kMostSamples);
    }
  }

  bool run(int64_t first, int64_t last) {
    for (int64_t start = first; start < last; start += samples_) {
      const int64_t stop = std::min(start + samples_, last);
      for (int64_t piece = 0; piece < num_bags_; ++piece) {
        for (int64_t from = start; from < stop; from += blocks_[piece]) {
          Found& found = found_[turn_];
          if (!find(piece, from, std::min(from + blocks_[piece], stop), &found)) return false;
          pool_other();
          turn_ ^= 1;
        }
      }
    }
    pool_other();
    return true;
  }

 private:
  int64_t row_bytes(const DlrmBags& bags) const {
    return slabs_[bags.slab].width * dlrm::element_bytes(slabs_[bags.slab].weights_type);
  }

  // Whether the vectors of a piece are whole cache lines of a large matrix.
  bool streams(const DlrmBags& bags) const {
    const int64_t bytes = dlrm::element_bytes(vectors_type_), stride = bags.vector_stride * bytes;
    const int64_t lines = static_cast<int64_t>(reinterpret_cast<uintptr_t>(bags.vectors)) | stride |
                          slabs_[bags.slab].width * bytes;
    return lines % kCacheLine == 0 && stride * bags.num_samples >= kStreamBytes;
  }

  // Pools the block that was found before the last one.
  void pool_other() {
    Found& found = found_[turn_ ^ 1];
    if (found.block.num_bags == 0) return;
    kernels_.pool[found.piece_type][vectors_type_](found.block);
    found.block.num_bags = 0;
  }

  bool find(int64_t piece, int64_t first, int64_t last, Found* found) {
    const DlrmBags& bags = bags_[piece];
    return bags.ids_type == DLRM_INT32 ? find_typed<int32_t>(piece, first, last, found)
                                       : find_typed<int64_t>(piece, first, last, found);
  }

  template <class Id>
  bool find_typed(int64_t piece, int64_t first, int64_t last, Found* found) {
    const DlrmBags& bags = bags_[piece];
    const DlrmSlab& slab = slabs_[bags.slab];
    const int64_t bytes = row_bytes(bags);
    const char* const row_0 = static_cast<const char*>(slab.weights) + bags.first_row * bytes;
    const bool simple = bags.hotness > 0 && bags.weights == nullptr && !(bags.mean && bags.hotness > 1) &&
                        bags.first_id == 0 && bags.last_id == bags.num_ids;
    found->piece_type = slab.weights_type == DLRM_FLOAT32 ? 0 : 1;
    found->block = {nullptr, nullptr, nullptr, bags.hotness, last - first,
                    static_cast<char*>(bags.vectors) + first * bags.vector_stride * dlrm::element_bytes(vectors_type_),
                    bags.vector_stride * dlrm::element_bytes(vectors_type_), slab.width, streams(bags)};
    if (!simple) return find_any<Id>(bags, piece, first, last, row_0, bytes, found);
    found->rows.resize(static_cast<size_t>((last - first) * bags.hotness));
    const char** to = found->rows.data();
    const Id* ids = static_cast<const Id*>(bags.ids) + first * bags.sample_stride;
    for (int64_t sample = first; sample < last; ++sample, ids += bags.sample_stride) {
      for (int64_t i = 0; i < bags.hotness; ++i) {
        const int64_t id = ids[i];
        if (static_cast<uint64_t>(id) >= static_cast<uint64_t>(bags.num_ids)) return refuse(piece, sample, id);
        const char* const row = row_0 + id * bytes;
        prefetch_row(row, bytes);
        *to++ = row;
      }
    }
    found->block.rows = found->rows.data();
    return true;
  }

  template <class Id>
  bool find_any(const DlrmBags& bags, int64_t piece, int64_t first, int64_t last, const char* row_0, int64_t bytes,
                Found* found) {
    const bool has_factors = bags.weights != nullptr || bags.mean;
    found->rows.clear();
    found->factors.clear();
    found->counts.clear();
    for (int64_t sample = first; sample < last; ++sample) {
      const bool ragged = bags.hotness < 0;
      const int64_t start = ragged ? bags.row_splits[sample] : sample * bags.sample_stride;
      const int64_t count = ragged ? bags.row_splits[sample + 1] - start : bags.hotness;
      const Id* const ids = static_cast<const Id*>(bags.ids) + start;
      const float* weights = bags.weights;
      if (weights != nullptr) weights += ragged ? start : sample * bags.hotness;
      const float total = bags.mean ? dlrm::total_weight(weights, count) : 1;
      const size_t before = found->rows.size();
      for (int64_t i = 0; i < count; ++i) {
        const int64_t id = ids[i];
        if (static_cast<uint64_t>(id) >= static_cast<uint64_t>(bags.num_ids)) return refuse(piece, sample, id);
        if (id < bags.first_id || id >= bags.last_id) continue;
        const char* const row = row_0 + id * bytes;
        prefetch_row(row, bytes);
        found->rows.push_back(row);
        if (has_factors) found->factors.push_back(dlrm::factor_of(weights, i, total));
      }
      found->counts.push_back(static_cast<int64_t>(found->rows.size() - before));
    }
    found->block.rows = found->rows.data();
    found->block.factors = has_factors ? found->factors.data() : nullptr;
    found->block.counts = found->counts.data();
    return true;
  }

  bool refuse(int64_t piece, int64_t sample, int64_t id) {
    *bad_id_ = {piece, sample, id};
    return false;
  }

  const DlrmSlab* slabs_;
  const DlrmBags* bags_;
  int64_t num_bags_;
  int vectors_type_;
  const dlrm::RowKernels& kernels_;
  DlrmBadId* bad_id_;
  std::vector<int64_t> blocks_;  // samples of each piece that are found at a time
  int64_t samples_;
  Found found_[2] = {};
  int turn_ = 0;
};

}  // namespace

namespace dlrm {

const RowKernels* row_kernels(int instruction_set) {
  if (instruction_set < 0) instruction_set = dlrm_chosen_cpu_instruction_set();
  if (instruction_set > dlrm_cpu_instruction_set()) return nullptr;
  switch (instruction_set) {
    case DLRM_SCALAR: return &kRowsScalar;
#ifdef DLRM_X86
    case DLRM_AVX2: return &kRowsAvx2;
    case DLRM_AVX512:
    case DLRM_AVX512_BF16: return &kRowsAvx512;
#endif
  }
  return nullptr;
}

bool good_arguments(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                    int vectors_type) {
  if (num_slabs < 0 || num_bags < 0 || vectors_type < DLRM_FLOAT32 || vectors_type > DLRM_BFLOAT16) return false;
  for (int64_t i = 0; i < num_slabs; ++i) {
    const bool type = slabs[i].weights_type == DLRM_FLOAT32 || slabs[i].weights_type == DLRM_BFLOAT16;
    if (!type || slabs[i].num_rows < 0 || slabs[i].width < 1 || slabs[i].num_rows > UINT32_MAX - 1) return false;
  }
  for (int64_t i = 0; i < num_bags; ++i) {
    const DlrmBags& b = bags[i];
    if (b.slab < 0 || b.slab >= num_slabs || b.num_samples < 0 || b.hotness == 0 || b.hotness < -1) return false;
    if (b.ids_type != DLRM_INT32 && b.ids_type != DLRM_INT64) return false;
    if (b.first_id < 0 || b.last_id < b.first_id || b.last_id > b.num_ids) return false;
    if (b.first_row + b.first_id < 0 || b.first_row + b.last_id > slabs[b.slab].num_rows) return false;
    if (b.hotness < 0 && b.row_splits == nullptr) return false;
  }
  return true;
}

}  // namespace dlrm

extern "C" int dlrm_embedding_lookup_cpu(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags,
                                         int64_t num_bags, int64_t first, int64_t last, int vectors_type,
                                         int instruction_set, DlrmBadId* bad_id) {
  if (first < 0 || last < first || !dlrm::good_arguments(slabs, num_slabs, bags, num_bags, vectors_type)) {
    return DLRM_BAD_ARGUMENT;
  }
  const dlrm::RowKernels* const kernels = dlrm::row_kernels(instruction_set);
  if (kernels == nullptr) return DLRM_NO_INSTRUCTION_SET;
  return Lookup(slabs, bags, num_bags, vectors_type, *kernels, bad_id).run(first, last) ? DLRM_OK : DLRM_BAD_ID;
}
