/*
 * slow-disk: to be preloaded. A write to the file SLOW_FILE takes 10 ms, and does not return for as long as there is a file
 * SLOW_GATE, as on a disk, or a server of files, that does not answer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_slow(int fd)
{
    struct stat file, status;
    return stat(getenv("SLOW_FILE"), &file) == 0 && fstat(fd, &status) == 0 && file.st_ino == status.st_ino &&
           file.st_dev == status.st_dev;
}

ssize_t write(int fd, const void *buffer, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "write");
    if (is_slow(fd))
        do
            usleep(10000);
        while (access(getenv("SLOW_GATE"), F_OK) == 0);
    return real(fd, buffer, size);
}
