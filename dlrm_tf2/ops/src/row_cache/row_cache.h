// A cache of rows: which rows of a table lie in memory, and where. The other rows lie in a file. No TensorFlow in here.
//
// A *row* has a place in the file; a *slot* is a place in memory. Rows that a batch names get slots before they are read
// or updated; for them, other rows leave. Only the place of a row changes, never its values.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace dlrm {

// What is to be copied so that a row lies in its slot: first the row that leaves, then the row that comes.
struct RowMove {
  int64_t slot;
  int64_t leaves;   // the row that is to be written to the file; -1 for none
  int64_t comes;    // the row that is to be read from the file; -1 for none, as the caller writes its first values
  bool asked;       // whether the system was asked for the row that comes before
};

// Which row leaves: a *clock* with heat. A hand goes round the slots; it cools a slot that is warm and takes one that is
// cold. A row comes in cold and is warmed by each later batch that names it, so that rows that come once leave first.
class RowCache {
 public:
  static constexpr uint8_t kMostHeat = 3;

  // Nothing is cached. The index of rows takes 4 bytes a row, of which untouched pages take no memory.
  RowCache(int64_t num_rows, int64_t num_slots)
      : num_rows_(num_rows), num_slots_(num_slots),
        slot_of_row_(static_cast<int32_t*>(calloc(static_cast<size_t>(std::max<int64_t>(1, num_rows)), sizeof(int32_t)))),
        row_of_slot_(static_cast<size_t>(num_slots), -1), stamp_(static_cast<size_t>(num_slots), 0),
        heat_(static_cast<size_t>(num_slots), 0), dirty_(static_cast<size_t>(num_slots), 0) {}
  RowCache(const RowCache&) = delete;
  RowCache& operator=(const RowCache&) = delete;

  bool has_memory() const { return slot_of_row_ != nullptr; }
  int64_t num_rows() const { return num_rows_; }
  int64_t num_slots() const { return num_slots_; }
  bool is_cached(int64_t row) const { return slot_of_row_[row] > 0; }
  int64_t slot(int64_t row) const { return slot_of_row_[row] - 1; }
  void note_written(int64_t slot) { dirty_[slot] = 1; }

  // Since the cache was made: rows of batches that had a slot, rows that were read from the file, and rows that were
  // written to it. A row counts once a batch.
  int64_t hits = 0, misses = 0, written_back = 0;

  // Gives slots to all rows of a batch, and says what is to be copied.
  //
  // rows: [count], each any number of times; negative ones are no rows. fresh: rows of the batch, each once, whose values
  // in the file do not count. written: whether the caller will write to the rows.
  // Returns how many different rows the batch has; if these are more than slots, every row is where it was.
  int64_t place(const int64_t* rows, int64_t count, const int64_t* fresh, int64_t num_fresh, bool written,
                std::vector<RowMove>* moves) {
    ++tick_;
    moves->clear();
    int64_t touched = 0, found = 0;
    for (int64_t i = 0; i < num_fresh; ++i) touched += touch_or_want(fresh[i], written, true, moves);
    const size_t first = moves->size();
    for (int64_t i = 0; i < count; ++i) {
      if (i + kAhead < count && rows[i + kAhead] >= 0) __builtin_prefetch(&slot_of_row_[rows[i + kAhead]]);
      if (rows[i] >= 0) found += touch_or_want(rows[i], written, false, moves);
    }
    const int64_t different = touched + found + static_cast<int64_t>(moves->size());
    if (different > num_slots_) {
      for (const RowMove& move : *moves) slot_of_row_[move.comes] = 0;
      moves->clear();
      return different;
    }
    hits += found;
    misses += static_cast<int64_t>(moves->size() - first);
    for (size_t i = 0; i < moves->size(); ++i) give_slot(&(*moves)[i], i < first, written);
    return different;
  }

  // Notes that the system is asked for a row. Returns false if it need not be: it is in memory, or was asked for.
  bool ask(int64_t row) {
    if (slot_of_row_[row] != 0) return false;
    slot_of_row_[row] = kAsked;
    return true;
  }

  // Appends the rows that will be written to the file when `count` rows come, as far as that is known: a batch may warm
  // some of them before.
  void append_leaving(int64_t count, std::vector<int64_t>* rows) const {
    int64_t slot = hand_;
    count -= num_slots_ - used_;
    for (int64_t looked = 0; looked < num_slots_ && count > 0; ++looked) {
      if (heat_[slot] == 0 && stamp_[slot] != tick_) {
        --count;
        if (dirty_[slot]) rows->push_back(row_of_slot_[slot]);
      }
      slot = slot + 1 == num_slots_ ? 0 : slot + 1;
    }
  }

 private:
  static constexpr int32_t kWanted = -1, kAsked = -2;  // in slot_of_row_, which else has the slot + 1, or 0
  static constexpr int64_t kAhead = 16;

  // Returns 1 if the row has a slot and the batch named it for the first time; appends a row without slot to `moves`.
  int64_t touch_or_want(int64_t row, bool written, bool is_fresh, std::vector<RowMove>* moves) {
    const int32_t known = slot_of_row_[row];
    if (known > 0) {
      const int64_t slot = known - 1;
      if (stamp_[slot] == tick_) return 0;
      stamp_[slot] = tick_;
      heat_[slot] = is_fresh ? 0 : std::min<uint8_t>(heat_[slot] + 1, kMostHeat);
      if (written) dirty_[slot] = 1;
      return 1;
    }
    if (known == kWanted) return 0;
    slot_of_row_[row] = kWanted;
    moves->push_back({-1, -1, row, known == kAsked});
    return 0;
  }

  void give_slot(RowMove* move, bool is_fresh, bool written) {
    const int64_t slot = used_ < num_slots_ ? used_++ : coldest();
    const int64_t old = row_of_slot_[slot];
    if (old >= 0) {
      slot_of_row_[old] = 0;
      if (dirty_[slot]) {
        move->leaves = old;
        ++written_back;
      }
    }
    move->slot = slot;
    row_of_slot_[slot] = move->comes;
    slot_of_row_[move->comes] = static_cast<int32_t>(slot + 1);
    stamp_[slot] = tick_;
    heat_[slot] = 0;
    dirty_[slot] = written;
    if (is_fresh) move->comes = -1;
  }

  // A slot whose row the batch does not name; there is one, as the batch has not yet as many rows as the cache has slots.
  int64_t coldest() {
    for (;;) {
      const int64_t slot = hand_;
      hand_ = hand_ + 1 == num_slots_ ? 0 : hand_ + 1;
      if (stamp_[slot] == tick_) continue;
      if (heat_[slot] == 0) return slot;
      --heat_[slot];
    }
  }

  struct Free {
    void operator()(int32_t* memory) const { free(memory); }
  };

  const int64_t num_rows_, num_slots_;
  const std::unique_ptr<int32_t[], Free> slot_of_row_;
  std::vector<int64_t> row_of_slot_;
  std::vector<uint64_t> stamp_;  // the last batch that named the row
  std::vector<uint8_t> heat_, dirty_;
  uint64_t tick_ = 0;
  int64_t used_ = 0, hand_ = 0;
};

}  // namespace dlrm
