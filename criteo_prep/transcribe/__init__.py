"""From one dataset layout to another.

run              READERS and WRITERS, and the way of a batch from a reader to a writer
request          what the published flags ask for
tf_raw, record_binary, criteo_npy, split_tfrecords, parquet, csv
                 Reader and Writer of one layout each
layout_spec      the feature spec that a layout has
checks           what holds for every sample, whatever the layout
sample_order, random_reads
                 the samples of tf_raw in another order
array_file, npy_array, tfrecord, tensor_proto
                 bytes: pread, .npy and .npz, record framing, protobuf messages
half, transposed, dense_log, freed_memory
                 float16, rows as columns, log(x + 3), memory of one batch for the next
"""
