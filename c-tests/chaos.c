/*
 * chaos: to be preloaded. System calls that libmilter makes are late now and then, are interrupted, do less than they were
 * asked for, or fail as a system in distress lets them fail. CHAOS_SEED says in which order, CHAOS_RATE how many of 1000. At
 * the end it prints how often it has interfered.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* The C library's function that this one stands in for. */
#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (real == NULL)                                                                                                  \
        *(void **)&real = dlsym(RTLD_NEXT, name)

static unsigned seed, rate;
static atomic_uint threads, faults, delays;

__attribute__((constructor)) static void begin(void)
{
    seed = strtoul(getenv("CHAOS_SEED"), NULL, 10);
    rate = strtoul(getenv("CHAOS_RATE"), NULL, 10);
}

__attribute__((destructor)) static void end(void)
{
    fprintf(stderr, "chaos: %u faults, %u delays\n", faults, delays);
}

/* A number below `limit`; each thread has an order of its own. */
static unsigned roll(unsigned limit)
{
    static __thread unsigned state;
    if (state == 0)
        state = (seed + ++threads * 2654435761u) | 1;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % limit;
}

/* Is late now and then. */
static void dawdle(void)
{
    if (roll(1000) < rate) {
        int error = errno;
        delays++;
        usleep(roll(1500));
        errno = error;
    }
}

/* Whether a call is to fail, by one of `count` errors. */
static int fails(const int *errors, unsigned count)
{
    dawdle();
    if (roll(1000) >= rate)
        return 0;
    faults++;
    errno = errors[roll(count)];
    return 1;
}

#define FAILS(...) fails((int[]){ __VA_ARGS__ }, sizeof(int[]){ __VA_ARGS__ } / sizeof(int))

static int is_socket(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
}

/* Some of `size` bytes, at least one. */
static size_t some(size_t size)
{
    if (size < 2 || roll(1000) >= rate)
        return size;
    faults++;
    return 1 + roll(size - 1);
}

int epoll_wait(int poller, struct epoll_event *events, int count, int timeout)
{
    REAL(int, "epoll_wait", int, struct epoll_event *, int, int);
    return FAILS(EINTR) ? -1 : real(poller, events, count, timeout);
}

int epoll_ctl(int poller, int operation, int fd, struct epoll_event *event)
{
    REAL(int, "epoll_ctl", int, int, int, struct epoll_event *);
    if (operation != EPOLL_CTL_DEL && is_socket(fd) && FAILS(ENOMEM, ENOSPC))
        return -1;
    return real(poller, operation, fd, event);
}

int poll(struct pollfd *set, nfds_t count, int timeout)
{
    REAL(int, "poll", struct pollfd *, nfds_t, int);
    return FAILS(EINTR) ? -1 : real(set, count, timeout);
}

int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict length, int flags)
{
    REAL(int, "accept4", int, struct sockaddr *restrict, socklen_t *restrict, int);
    return FAILS(EINTR, ECONNABORTED, EMFILE, ENOBUFS) ? -1 : real(fd, address, length, flags);
}

ssize_t read(int fd, void *buffer, size_t size)
{
    REAL(ssize_t, "read", int, void *, size_t);
    if (!is_socket(fd))
        return real(fd, buffer, size);
    return FAILS(EINTR, ECONNRESET) ? -1 : real(fd, buffer, some(size));
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    REAL(ssize_t, "recv", int, void *, size_t, int);
    return FAILS(EINTR, ECONNRESET) ? -1 : real(fd, buffer, some(size), flags);
}

ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
    REAL(ssize_t, "send", int, const void *, size_t, int);
    return FAILS(EINTR, EPIPE, ENOBUFS) ? -1 : real(fd, bytes, some(size), flags);
}

ssize_t sendto(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
    REAL(ssize_t, "sendto", int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    return FAILS(EINTR, EPIPE, ENOBUFS) ? -1 : real(fd, bytes, some(size), flags, to, length);
}

int eventfd(unsigned count, int flags)
{
    REAL(int, "eventfd", unsigned, int);
    return FAILS(EMFILE, ENOMEM) ? -1 : real(count, flags);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    REAL(void *, "mmap", void *, size_t, int, int, int, off_t);
    return FAILS(ENOMEM) ? MAP_FAILED : real(address, size, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return mmap(address, size, protection, flags, fd, offset);
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes, void *(*start)(void *),
    void *restrict argument)
{
    REAL(int, "pthread_create", pthread_t *restrict, const pthread_attr_t *restrict, void *(*)(void *), void *restrict);
    return FAILS(EAGAIN) ? errno : real(thread, attributes, start, argument);
}

long syscall(long number, ...)
{
    REAL(long, "syscall", long, ...);
    long argument[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        argument[i] = va_arg(arguments, long);
    va_end(arguments);
    dawdle();
    return real(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
}
