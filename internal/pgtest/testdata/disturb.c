/*
 * A library that Postgres loads before the C library. It shifts the wall clock and stalls the disk
 * as the first bytes of a file say, which the test writes while the server runs. disturb.go has the
 * other half.
 *
 * Monotonic clocks stay right, and so do all timers of the kernel.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The file. Its layout is that of the Go type disturbance. */
struct disturbance {
    long long clock_offset; /* microseconds */
    long long disk_stalled; /* 0 or 1 */
};

/* Before the file is mapped, nothing is disturbed. */
static struct disturbance none;
static volatile struct disturbance *now = &none;

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

/* A backend is a fork of the postmaster, so it has the same mapping. */
__attribute__((constructor)) static void map_file(void) {
    const char *path = getenv("PGTEST_DISTURBANCE");
    int fd = path == NULL ? -1 : open(path, O_RDONLY);
    void *mapped = fd < 0 ? MAP_FAILED
                          : mmap(NULL, sizeof(struct disturbance), PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        _exit(90); /* a server that can't be disturbed would prove nothing */
    }
    close(fd);
    now = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *ts) {
    if (real_clock_gettime == NULL) {
        real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    }
    int result = real_clock_gettime(clock, ts);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long us = now->clock_offset + ts->tv_nsec / 1000;
        long long seconds = us / 1000000;
        us %= 1000000;
        if (us < 0) {
            us += 1000000;
            seconds--;
        }
        ts->tv_sec += seconds;
        ts->tv_nsec = us * 1000 + ts->tv_nsec % 1000;
    }
    return result;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    (void)zone;
    struct timespec ts;
    int result = clock_gettime(CLOCK_REALTIME, &ts);
    if (result == 0) {
        tv->tv_sec = ts.tv_sec;
        tv->tv_usec = ts.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *to) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (to != NULL) {
        *to = ts.tv_sec;
    }
    return ts.tv_sec;
}

/* A process that waits here can still be killed, as it can't in a real fsync. */
static void wait_for_disk(void) {
    const struct timespec moment = {0, 200000};
    while (now->disk_stalled) {
        nanosleep(&moment, NULL);
    }
}

int fsync(int fd) {
    if (real_fsync == NULL) {
        real_fsync = dlsym(RTLD_NEXT, "fsync");
    }
    wait_for_disk();
    return real_fsync(fd);
}

int fdatasync(int fd) {
    if (real_fdatasync == NULL) {
        real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    }
    wait_for_disk();
    return real_fdatasync(fd);
}
