"""From one dataset layout to another: the same samples in the same order.

run              transcribe_dataset(): from a request to a finished dataset
request          what the published flags ask for
layouts          READERS and WRITERS: the layouts
reading          checked_batches(): every sample of a dataset on disk, for verify; samples that are read at a time
tf_raw, record_binary, criteo_npy, split_tfrecords, parquet, csv
                 Reader and Writer of one layout each
layout_spec      the feature spec of a layout; which layouts hold which features
checks           what holds for every sample of every layout
sample_order     a pass over tf_raw: in order, shuffled by windows, or as one permutation
in_place         the layouts whose samples can be read at any place, for a trainer
file_rows        rows of numbers in several files
random_reads     samples from any rows of tf_raw
array_file, npy_array, tfrecord_folder, tfrecord, tensor_proto, csv_text
                 bytes: pread, .npy and .npz, TFRecords of one feature, their framing, protobuf messages, lines of text
half, transposed, dense_log, freed_memory
                 float16; rows to columns; log(x + 3); memory that is used again
"""
