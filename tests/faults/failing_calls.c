/* Preloaded into a process: fails one chosen call on files below one folder, and counts the calls of its kind. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char root[PATH_MAX];
static char kind[16];
static int error_number;
static atomic_int nth, calls, failed;

/* Begin to count the calls of a kind below a folder, and fail the one of this number. */
void failing_calls_begin(const char *folder, const char *which, int number, int error) {
    snprintf(root, sizeof root, "%s", folder);
    snprintf(kind, sizeof kind, "%s", which);
    error_number = error;
    calls = 0;
    failed = 0;
    nth = number;
}

/* Fail no more; return how many calls of the kind there were, negative if none of them failed. */
int failing_calls_end(void) {
    nth = 0;
    return failed ? calls : -calls;
}

static int below(const char *path) {
    size_t length = strlen(root);
    return length && path && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int below_at(int descriptor, const char *path) {
    char link[64], target[PATH_MAX];
    if (path && path[0] == '/')
        return below(path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    long length = syscall(SYS_readlink, link, target, sizeof target - 1);
    if (length <= 0)
        return 0;
    target[length] = 0;
    return below(target);
}

static int fails(const char *which, int is_below) {
    if (!nth || !is_below || strcmp(kind, which))
        return 0;
    if (atomic_fetch_add(&calls, 1) + 1 != nth)
        return 0;
    failed = 1;
    errno = error_number;
    return 1;
}

/* `on` says whether the call is on a file below the folder; it looks at descriptors only while a call is to fail. */
#define CALL(which, result, failure, name, parameters, arguments, on) \
    result name parameters {                                          \
        static result(*real) parameters;                              \
        if (!real)                                                    \
            real = (result(*) parameters)dlsym(RTLD_NEXT, #name);     \
        if (nth && !strcmp(kind, which) && fails(which, on))          \
            return failure;                                           \
        return real arguments;                                        \
    }

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        static int (*real)(const char *, int, ...);                             \
        va_list more;                                                           \
        va_start(more, flags);                                                  \
        int mode = va_arg(more, int);                                           \
        va_end(more);                                                           \
        if (!real)                                                              \
            real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);    \
        return fails("open", nth && below(path)) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                          \
    int name(int folder, const char *path, int flags, ...) {                                  \
        static int (*real)(int, const char *, int, ...);                                      \
        va_list more;                                                                         \
        va_start(more, flags);                                                                \
        int mode = va_arg(more, int);                                                         \
        va_end(more);                                                                         \
        if (!real)                                                                            \
            real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name);             \
        return fails("open", nth && below_at(folder, path)) ? -1 : real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FCNTL(name)                                                                    \
    int name(int descriptor, int command, ...) {                                       \
        static int (*real)(int, int, ...);                                             \
        va_list more;                                                                  \
        va_start(more, command);                                                       \
        long argument = va_arg(more, long);                                            \
        va_end(more);                                                                  \
        if (!real)                                                                     \
            real = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #name);                    \
        return fails("fcntl", nth && below_at(descriptor, NULL)) ? -1 : real(descriptor, command, argument); \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

CALL("fcntl", int, -1, flock, (int d, int operation), (d, operation), below_at(d, NULL))
CALL("write", ssize_t, -1, write, (int d, const void *data, size_t n), (d, data, n), below_at(d, NULL))
CALL("write", int, -1, ftruncate, (int d, off_t n), (d, n), below_at(d, NULL))
CALL("write", int, -1, ftruncate64, (int d, off64_t n), (d, n), below_at(d, NULL))
CALL("read", ssize_t, -1, read, (int d, void *data, size_t n), (d, data, n), below_at(d, NULL))
CALL("read", ssize_t, -1, pread64, (int d, void *data, size_t n, off64_t at), (d, data, n, at), below_at(d, NULL))
CALL("fsync", int, -1, fsync, (int d), (d), below_at(d, NULL))
CALL("fsync", int, -1, fdatasync, (int d), (d), below_at(d, NULL))
CALL("rename", int, -1, rename, (const char *from, const char *to), (from, to), below(from))
CALL("rename", int, -1, renameat, (int f, const char *from, int t, const char *to), (f, from, t, to), below_at(f, from))
CALL("link", int, -1, link, (const char *from, const char *to), (from, to), below(from))
CALL("link", int, -1, linkat, (int f, const char *from, int t, const char *to, int flags), (f, from, t, to, flags),
     below_at(f, from))
CALL("mkdir", int, -1, mkdir, (const char *path, mode_t mode), (path, mode), below(path))
CALL("mkdir", int, -1, mkdirat, (int d, const char *path, mode_t mode), (d, path, mode), below_at(d, path))
CALL("unlink", int, -1, unlink, (const char *path), (path), below(path))
CALL("unlink", int, -1, unlinkat, (int d, const char *path, int flags), (d, path, flags), below_at(d, path))
CALL("unlink", int, -1, rmdir, (const char *path), (path), below(path))
CALL("list", DIR *, NULL, opendir, (const char *path), (path), below(path))
CALL("list", DIR *, NULL, fdopendir, (int d), (d), below_at(d, NULL))
CALL("stat", int, -1, stat, (const char *path, struct stat *s), (path, s), below(path))
CALL("stat", int, -1, stat64, (const char *path, struct stat64 *s), (path, s), below(path))
CALL("stat", int, -1, lstat, (const char *path, struct stat *s), (path, s), below(path))
CALL("stat", int, -1, lstat64, (const char *path, struct stat64 *s), (path, s), below(path))
CALL("stat", int, -1, fstat, (int d, struct stat *s), (d, s), below_at(d, NULL))
CALL("stat", int, -1, fstat64, (int d, struct stat64 *s), (d, s), below_at(d, NULL))
CALL("stat", int, -1, fstatat, (int d, const char *path, struct stat *s, int flags), (d, path, s, flags),
     below_at(d, path))
CALL("stat", int, -1, fstatat64, (int d, const char *path, struct stat64 *s, int flags), (d, path, s, flags),
     below_at(d, path))
/* The names of the same in programs that were built for an older C library. */
CALL("stat", int, -1, __xstat64, (int v, const char *path, struct stat64 *s), (v, path, s), below(path))
CALL("stat", int, -1, __lxstat64, (int v, const char *path, struct stat64 *s), (v, path, s), below(path))
CALL("stat", int, -1, __fxstat64, (int v, int d, struct stat64 *s), (v, d, s), below_at(d, NULL))
CALL("stat", int, -1, __fxstatat64, (int v, int d, const char *path, struct stat64 *s, int flags),
     (v, d, path, s, flags), below_at(d, path))
