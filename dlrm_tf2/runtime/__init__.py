"""The process and the other ranks.

process.py         sets up the process: launcher, environment, devices, threads, precision
cores.py           shares the processors of a machine among its ranks
memory.py          memory of the process and of a GPU
comm.py            exchanges between ranks; the only file that imports Horovod
agreement.py       work that fails on all ranks or on none
exchange_timer.py  measures the exchanges inside a compiled step
activity.py        what the process is doing
watchdog.py        ends a job that makes no progress or has lost a rank
stopping.py        how a training is asked to stop
elastic.py         a rank's link to the supervisor of an elastic job
addresses.py       the addresses of this machine
staging.py         a file or folder that is renamed when it is complete, under a lock
terminal.py        lines for people on standard output and standard error
"""
