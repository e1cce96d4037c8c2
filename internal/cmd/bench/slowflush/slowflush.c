/* Preloaded into Postgres, this library delays every flush of the WAL by the microseconds in a
   small file, so that one server shows a laptop's disk and a network disk within one run. The file
   is mapped: the bench changes the delay while the server runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile uint32_t *delay_us;
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("SLOWFLUSH_FILE");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (path == NULL) return;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return;
    void *p = mmap(NULL, sizeof(uint32_t), PROT_READ, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) delay_us = p;
    close(fd);
}

int fdatasync(int fd) {
    if (delay_us != NULL && *delay_us > 0) {
        struct timespec t = {*delay_us / 1000000, (*delay_us % 1000000) * 1000L};
        nanosleep(&t, NULL);
    }
    return real_fdatasync(fd);
}
