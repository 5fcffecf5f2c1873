/* Another wall clock for the processes of a host: dynamically linked programs that load this library see the clock of
 * the machine plus OFFSET_S seconds. The monotonic clock stays, and times at which a wait ends are translated back.
 * libfaketime 0.9.10 cannot take this place: with it, waits of Python's threads do not end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL(name, version) \
    static __typeof__(&name) real; \
    if (!real && (version)) real = (__typeof__(&name))dlvsym(RTLD_NEXT, #name, (version) ? (version) : ""); \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_wall_clock(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

/* A time of the machine's wall clock. A time since the machine's start, which is below 30 years, stays. */
static struct timespec of_machine(const struct timespec *time) {
    struct timespec translated = *time;
    if (time->tv_sec > 1000000000) translated.tv_sec -= OFFSET_S;
    return translated;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime, NULL);
    int failed = real(clock, now);
    if (!failed && is_wall_clock(clock)) now->tv_sec += OFFSET_S;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday, NULL);
    int failed = real(now, zone);
    if (!failed && now) now->tv_sec += OFFSET_S;
    return failed;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    REAL(clock_nanosleep, NULL);
    struct timespec there = is_wall_clock(clock) && (flags & TIMER_ABSTIME) ? of_machine(until) : *until;
    return real(clock, flags, &there, left);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    REAL(pthread_cond_timedwait, "GLIBC_2.3.2"); /* dlsym would find an older one */
    struct timespec there = of_machine(until);
    return real(condition, mutex, &there);
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *until) {
    REAL(pthread_cond_clockwait, NULL);
    struct timespec there = of_machine(until);
    return real(condition, mutex, clock, &there);
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until) {
    REAL(pthread_mutex_timedlock, NULL);
    struct timespec there = of_machine(until);
    return real(mutex, &there);
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    REAL(sem_timedwait, NULL);
    struct timespec there = of_machine(until);
    return real(semaphore, &there);
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until) {
    REAL(sem_clockwait, NULL);
    struct timespec there = of_machine(until);
    return real(semaphore, clock, &there);
}

/* TensorFlow's locks wait by the system call itself. */
long syscall(long number, ...) {
    REAL(syscall, NULL);
    va_list list;
    va_start(list, number);
    long argument[6];
    for (int i = 0; i < 6; i++) argument[i] = va_arg(list, long);
    va_end(list);
    struct timespec there;
    if (number == SYS_clock_gettime) return clock_gettime((clockid_t)argument[0], (struct timespec *)argument[1]);
    if (number == SYS_futex && (argument[1] & FUTEX_CLOCK_REALTIME) && argument[3]) {
        there = of_machine((const struct timespec *)argument[3]);
        argument[3] = (long)&there;
    }
    return real(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
}
