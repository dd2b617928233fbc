/*
 * chaos: to be preloaded. System calls that libmilter makes are late now and then, are interrupted, do less than they were
 * asked for, or fail as a system in distress lets them fail. CHAOS_SEED says in which order, CHAOS_RATE how many of 1000. At
 * the end it prints how often it has interfered.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* The C library's function that this one stands in for. */
#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (real == NULL)                                                                                                  \
        *(void **)&real = dlsym(RTLD_NEXT, name)

static unsigned seed, rate;
static atomic_uint threads, faults, delays, transfers;

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

/*
 * The library receives and sends without the C library, so nothing can be put in between but by the kernel: it makes these
 * calls a signal, SIGSYS. Those that the handler makes itself are marked, by an argument that the kernel ignores.
 */
#define OURS 0x6f757273
#if defined __x86_64__
#define ARGUMENT(context, i)                                                                                           \
    (context)->uc_mcontext.gregs[(const int[]){ REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8 }[i]]
#define RESULT(context) (context)->uc_mcontext.gregs[REG_RAX]
#elif defined __aarch64__
#define ARGUMENT(context, i) (context)->uc_mcontext.regs[i]
#define RESULT(context) (context)->uc_mcontext.regs[0]
#else
#error "where are the arguments of a system call?"
#endif

static long (*real_syscall)(long, ...);

static void transfer(int signal, siginfo_t *info, void *interrupted)
{
    (void)signal;
    ucontext_t *context = interrupted;
    int error = errno;
    int fail =
        info->si_syscall == SYS_recvfrom ? FAILS(EINTR, ECONNRESET) : FAILS(EINTR, EPIPE, ENOBUFS);
    long result = -1;
    if (!fail)
        result = real_syscall(info->si_syscall, ARGUMENT(context, 0), ARGUMENT(context, 1),
            some(ARGUMENT(context, 2)), ARGUMENT(context, 3), ARGUMENT(context, 4), OURS);
    transfers++;
    RESULT(context) = result == -1 ? -errno : result;
    errno = error;
}

/* A thread with SIGSYS blocked would be killed. */
int pthread_sigmask(int how, const sigset_t *restrict set, sigset_t *restrict before)
{
    REAL(int, "pthread_sigmask", int, const sigset_t *restrict, sigset_t *restrict);
    sigset_t others;
    if (set != NULL && how != SIG_UNBLOCK) {
        others = *set;
        sigdelset(&others, SIGSYS);
        set = &others;
    }
    return real(how, set, before);
}

__attribute__((constructor)) static void begin(void)
{
    seed = strtoul(getenv("CHAOS_SEED"), NULL, 10);
    rate = strtoul(getenv("CHAOS_RATE"), NULL, 10);
    *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");

    struct sigaction action = { .sa_sigaction = transfer, .sa_flags = SA_SIGINFO };
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_recvfrom, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sendto, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = { .len = sizeof(filter) / sizeof(*filter), .filter = filter };
    if (sigaction(SIGSYS, &action, NULL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("chaos");
        abort();
    }
}

__attribute__((destructor)) static void end(void)
{
    fprintf(stderr, "chaos: %u faults, %u delays, %u transfers\n", faults, delays, transfers);
}
