"""What a run writes about itself, and how its log is read again.

run_log.py       where a run reports: the log's file, TensorBoard, lines on the terminal
log_file.py      the log's file: locked, only appended to
run_observer.py  what else follows a training
mlperf_log.py    the log of a training in the format of MLPerf
training_log.py  reads the log of a training, for the report
tensorboard.py   the numbers of the log as TensorBoard scalars
step_clock.py    the time of steps
profiler.py      a TensorFlow profile of some steps
"""
