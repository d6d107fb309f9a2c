/* Makes one system call of a process fail, for ./measure bad-fsync:
 * LD_PRELOAD=fault.so FAULT_CALL=fdatasync FAULT_NTH=7 FAULT_UNDER=/data/ mikomi ...
 * The nth call on a file whose path contains FAULT_UNDER answers EIO, and does nothing; the one
 * call that fails is noted in the file FAULT_NOTE, so that a run where none did is told apart. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static int is_ours(int fd) {
    const char *under = getenv("FAULT_UNDER");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (under == NULL || length < 0) return 0;
    path[length] = 0;
    return strstr(path, under) != NULL;
}

static int fails(const char *call, int fd) {
    const char *wanted = getenv("FAULT_CALL"), *nth = getenv("FAULT_NTH");
    if (wanted == NULL || nth == NULL || strcmp(wanted, call) != 0 || !is_ours(fd)) return 0;
    if (atomic_fetch_add(&calls, 1) + 1 != atol(nth)) return 0;
    const char *note = getenv("FAULT_NOTE");
    int file = note == NULL ? -1 : open(note, O_WRONLY | O_CREAT, 0600);
    if (file >= 0) close(file);
    errno = EIO;
    return 1;
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

int fsync(int fd) { return fails("fsync", fd) ? -1 : REAL(int, "fsync", int)(fd); }

int fdatasync(int fd) { return fails("fdatasync", fd) ? -1 : REAL(int, "fdatasync", int)(fd); }

ssize_t write(int fd, const void *bytes, size_t count) {
    if (fails("write", fd)) return -1;
    return REAL(ssize_t, "write", int, const void *, size_t)(fd, bytes, count);
}

ssize_t read(int fd, void *bytes, size_t count) {
    if (fails("read", fd)) return -1;
    return REAL(ssize_t, "read", int, void *, size_t)(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) {
    if (fails("pwrite", fd)) return -1;
    return REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t)(fd, bytes, count, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t at) {
    if (fails("pread", fd)) return -1;
    return REAL(ssize_t, "pread64", int, void *, size_t, off_t)(fd, bytes, count, at);
}
