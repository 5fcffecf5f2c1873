#!/bin/bash
# The published benchmark of 26 features, from one dynamic table or 26 static tables.
#
#     bash ./benchmark/benchmark_embedding_collection.sh [USE_INDEX_DEDUP [USE_DYNAMIC_EMBEDDING [BATCH_SIZE [FLAG ...]]]]
#
# RANKS=N starts N ranks. BATCH_SIZE is the batch of 8 ranks, as published; with fewer, each keeps its samples. All
# other flags of `python -m dlrm_tf2.dynamic_benchmark collection` may follow.
set -eu
ranks=${RANKS:-1}
dedup=${1:-True} dynamic=${2:-True} batch_size=${3:-65536}
shift $(($# < 3 ? $# : 3))
command=(python -m dlrm_tf2.dynamic_benchmark collection "--use_index_dedup=$dedup" "--use_dynamic_embedding=$dynamic"
    --batch_size "$((batch_size * ranks / 8))" "$@")
if [ "$ranks" -gt 1 ]; then
    command=(horovodrun -np "$ranks" "${command[@]}")
fi
echo "${command[*]}"
exec "${command[@]}"
