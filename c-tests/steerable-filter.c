/*
 * A filter whose process does what a test tells it: the arguments are steps of its main thread, and the HELO name
 * that the MTA sends is an order to the callback. What happens is printed, one line each, as it happens: the
 * callbacks with the number of their session, the results of the steps, and every line for syslog(3).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <libmilter/mfapi.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

/* Bytes of the body that the order "flood" makes. */
#define FLOOD (16 << 20)
/* Bytes of the body that the order "half-full" makes: they fit the socket's buffer, but fill more than a quarter. */
#define HALF_FULL (100 << 10)

/* One session: its number, how many bytes of new body it wants to send, whether it forgets to tidy up, and whether a
 * forked child has a say in its changes. */
struct session {
    int number;
    int body_bytes;
    bool keeps_private;
    bool forks;
};

static atomic_int sessions;
static atomic_bool threads_are_short;
static atomic_bool next_thread_is_late;
static atomic_bool main_has_returned;
static atomic_bool wakers_are_slow;
static atomic_bool poller_is_short;
static atomic_bool families_are_strange;
static sem_t release;
/* The macros that it asks for, if any. */
static char *wanted_macros;
/* The context of the session that was closed last. */
static _Atomic(SMFICTX *) closed;

/* Where lines go. */
static int output = STDOUT_FILENO;

/* Prints one line at once, whole, from any thread and from signal handlers. */
static void say(const char *format, ...)
{
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    if (write(output, line, length) != length)
        _exit(99);
}

/* Stands in for the C library's function: the line is printed with its priority. */
void vsyslog(int priority, const char *format, va_list arguments)
{
    char message[1500];
    vsnprintf(message, sizeof message, format, arguments);
    say("syslog %d %s", priority, message);
}

void syslog(int priority, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsyslog(priority, format, arguments);
    va_end(arguments);
}

/* What syslog is when the caller was compiled with _FORTIFY_SOURCE. */
void __syslog_chk(int priority, int flag, const char *format, ...)
{
    (void)flag;
    va_list arguments;
    va_start(arguments, format);
    vsyslog(priority, format, arguments);
    va_end(arguments);
}

/* The same for vsyslog. */
void __vsyslog_chk(int priority, int flag, const char *format, va_list arguments)
{
    (void)flag;
    vsyslog(priority, format, arguments);
}

/* A library has no business here: identity and facility are the program's. */
void openlog(const char *identity, int option, int facility)
{
    say("openlog %s %d %d", identity ? identity : "NULL", option, facility);
}

/* Stands in for the C library's function: fails for as long as the test says that threads are short, and lasts until
 * smfi_main has returned, once, if the test says so. */
int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes, void *(*start)(void *),
    void *restrict argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (atomic_exchange(&next_thread_is_late, false)) {
        say("late thread");
        while (!main_has_returned)
            usleep(5000);
    }
    return threads_are_short ? EAGAIN : real(thread, attributes, start, argument);
}

/* Stands in for the C library's function: whoever has woken another thread goes on long after it, if the test says
 * so. */
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    long argument[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        argument[i] = va_arg(arguments, long);
    va_end(arguments);
    long result = real(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
    if (wakers_are_slow && number == SYS_futex && (argument[1] & FUTEX_CMD_MASK) == FUTEX_WAKE) {
        int error = errno;
        usleep(20000);
        errno = error;
    }
    return result;
}

/* Stands in for the C library's function: the poller takes no descriptor for as long as the test says so. */
int epoll_ctl(int poller, int operation, int fd, struct epoll_event *event)
{
    static int (*real)(int, int, int, struct epoll_event *);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_ctl");
    if (poller_is_short && operation != EPOLL_CTL_DEL) {
        say(operation == EPOLL_CTL_ADD ? "not added" : "not rearmed");
        errno = ENOMEM;
        return -1;
    }
    return real(poller, operation, fd, event);
}

/* Stands in for the C library's function: sockets are of a family that nobody knows, if the test says so. */
int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict length)
{
    static int (*real)(int, int, int, void *restrict, socklen_t *restrict);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "getsockopt");
    int result = real(fd, level, name, value, length);
    if (families_are_strange && result == 0 && level == SOL_SOCKET && name == SO_DOMAIN)
        *(int *)value = AF_MAX;
    return result;
}

/* Prints what is set on the sockets of this process. */
static void print_sockets(void)
{
    for (int fd = 0; fd < 64; fd++) {
        int listening, keep_alive, no_delay = 0;
        socklen_t size = sizeof listening;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0)
            continue;
        getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &keep_alive, &size);
        getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size);
        say("%s keep-alive %d no-delay %d", listening ? "listener" : "connection", keep_alive, no_delay);
    }
}

/* Closes the library's pollers, as a program does by a mistake with numbers. With an opened file the numbers lead to
 * something else then. */
static void break_pollers(bool reuse)
{
    for (int fd = 3; fd < 64; fd++) {
        char link[40], file[40] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, file, sizeof file - 1) > 0 && strcmp(file, "anon_inode:[eventpoll]") == 0) {
            say("broken %d", fd);
            if (reuse)
                dup2(STDOUT_FILENO, fd);
            else
                close(fd);
        }
    }
}

/* A thread that stops the filter. */
static void *stop_from_thread(void *unused)
{
    (void)unused;
    say("stop %d", smfi_stop());
    return NULL;
}

/* A signal handler that stops the filter. */
static void stop_from_handler(int number)
{
    (void)number;
    smfi_stop();
}

/* A signal handler that ends the shortage of threads. */
static void threads_back(int number)
{
    (void)number;
    threads_are_short = false;
}

/* A signal handler that only tells that it ran. */
static void tell(int number)
{
    say("signal %d", number);
}

/* Runs a shell command in a child, as filters do that call virus scanners, and waits for its end. */
static void run_child(const char *command)
{
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    waitpid(child, &status, 0);
    say("child %d", status);
}

/* Obeys the order of a HELO name; the answer is the callback's status. */
static sfsistat obey(SMFICTX *ctx, struct session *session, char *order)
{
    if (strcmp(order, "stop") == 0) {
        say("stop %d", smfi_stop());
    } else if (strcmp(order, "stop-in-thread") == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, stop_from_thread, NULL);
        pthread_join(thread, NULL);
    } else if (strcmp(order, "hold") == 0) {
        while (sem_wait(&release) != 0)
            ;
        say("released %d", session->number);
    } else if (strcmp(order, "release") == 0) {
        sem_post(&release);
    } else if (strncmp(order, "sleep ", 6) == 0) {
        usleep(atoi(order + 6) * 1000);
    } else if (strcmp(order, "hang") == 0) {
        for (;;)
            pause();
    } else if (strcmp(order, "die") == 0) {
        _exit(94);
    } else if (strcmp(order, "list-descriptors") == 0) {
        run_child("for fd in /proc/$$/fd/*; do echo inherited $(readlink $fd); done");
    } else if (strcmp(order, "sockets") == 0) {
        print_sockets();
    } else if (strcmp(order, "fork-and-stay") == 0) {
        pid_t child = fork();
        if (child == 0) {
            alarm(120);
            for (;;)
                pause();
        }
        say("child %d", child);
    } else if (strcmp(order, "close-pollers") == 0) {
        break_pollers(false);
    } else if (strcmp(order, "replace-pollers") == 0) {
        break_pollers(true);
    } else if (strcmp(order, "threads-short") == 0) {
        threads_are_short = true;
    } else if (strcmp(order, "threads-back") == 0) {
        threads_are_short = false;
    } else if (strcmp(order, "next-thread-late") == 0) {
        next_thread_is_late = true;
    } else if (strcmp(order, "poller-short") == 0) {
        poller_is_short = true;
    } else if (strcmp(order, "poller-back") == 0) {
        poller_is_short = false;
    } else if (strcmp(order, "flood") == 0) {
        session->body_bytes = FLOOD;
    } else if (strcmp(order, "half-full") == 0) {
        session->body_bytes = HALF_FULL;
    } else if (strcmp(order, "late-calls") == 0) {
        SMFICTX *late = closed;
        say("late %d %d %d %s %s", smfi_progress(late), smfi_setpriv(late, session),
            smfi_setreply(late, "550", NULL, NULL), smfi_getpriv(late) ? "something" : "nothing",
            smfi_getsymval(late, "j") ? "something" : "nothing");
    } else if (strcmp(order, "fork-in-eom") == 0) {
        session->forks = true;
    } else if (strcmp(order, "keep-private") == 0) {
        session->keeps_private = true;
    } else if (strncmp(order, "timeout ", 8) == 0) {
        say("timeout %d", smfi_settimeout(atoi(order + 8)));
    } else if (strcmp(order, "main") == 0) {
        say("second main %d", smfi_main());
    } else if (strcmp(order, "stack") == 0) {
        pthread_attr_t attributes;
        size_t size = 0;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstacksize(&attributes, &size);
        pthread_attr_destroy(&attributes);
        say("stack %zu", size);
    } else if (strcmp(order, "thread") == 0) {
        say("thread %d %d", session->number, gettid());
    } else if (strncmp(order, "macro ", 6) == 0) {
        char *value = smfi_getsymval(ctx, order + 6);
        say("macro %d %s=%s", session->number, order + 6, value ? value : "NULL");
    } else if (strncmp(order, "status ", 7) == 0) {
        return atoi(order + 7);
    }
    return SMFIS_CONTINUE;
}

/* The session of a context; the first callback makes it. */
static struct session *session_of(SMFICTX *ctx)
{
    struct session *session = smfi_getpriv(ctx);
    if (session == NULL) {
        session = calloc(1, sizeof *session);
        session->number = ++sessions;
        smfi_setpriv(ctx, session);
    }
    return session;
}

/* Takes every offer, so that all that the MTA may do is allowed. */
static sfsistat on_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2, unsigned long f3,
    unsigned long *pf0, unsigned long *pf1, unsigned long *pf2, unsigned long *pf3)
{
    (void)f0, (void)f1, (void)f2, (void)f3, (void)pf0, (void)pf1, (void)pf2, (void)pf3;
    session_of(ctx);
    if (wanted_macros != NULL)
        say("setsymlist %d", smfi_setsymlist(ctx, SMFIM_CONNECT, wanted_macros));
    return SMFIS_ALL_OPTS;
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    (void)address;
    say("connect %d %s", session_of(ctx)->number, host);
    return SMFIS_CONTINUE;
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    struct session *session = session_of(ctx);
    say("helo %d %s", session->number, name);
    return obey(ctx, session, name);
}

static sfsistat on_envfrom(SMFICTX *ctx, char **argv)
{
    say("envfrom %d %s", session_of(ctx)->number, argv[0]);
    return SMFIS_CONTINUE;
}

static sfsistat on_envrcpt(SMFICTX *ctx, char **argv)
{
    (void)ctx, (void)argv;
    return SMFIS_CONTINUE;
}

static sfsistat on_data(SMFICTX *ctx)
{
    (void)ctx;
    return SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
    (void)ctx, (void)name, (void)value;
    return SMFIS_CONTINUE;
}

static sfsistat on_eoh(SMFICTX *ctx)
{
    (void)ctx;
    return SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *bytes, size_t length)
{
    (void)ctx, (void)bytes, (void)length;
    return SMFIS_CONTINUE;
}

static sfsistat on_unknown(SMFICTX *ctx, const char *line)
{
    say("unknown %d %s", session_of(ctx)->number, line);
    return SMFIS_CONTINUE;
}

/* Sends a piece of new body. */
static void replace_by(SMFICTX *ctx, const char *text)
{
    say("replaced by %s %d", text, smfi_replacebody(ctx, (unsigned char *)text, strlen(text)));
}

/* Makes changes in this process and in a child. */
static void change_in_two_processes(SMFICTX *ctx)
{
    replace_by(ctx, "before");
    pid_t child = fork();
    if (child == 0) {
        say("progress %d", smfi_progress(ctx));
        replace_by(ctx, "child");
        _exit(0);
    }
    waitpid(child, NULL, 0);
    replace_by(ctx, "behind");
}

/* Looks at a macro of the first stage and of this one, and sends the body that was ordered. */
static sfsistat on_eom(SMFICTX *ctx)
{
    struct session *session = session_of(ctx);
    char *first = smfi_getsymval(ctx, "j");
    char *last = smfi_getsymval(ctx, "i");
    say("eom %d j=%s i=%s", session->number, first ? first : "NULL", last ? last : "NULL");
    if (session->forks)
        change_in_two_processes(ctx);
    if (session->body_bytes > 0) {
        unsigned char *body = calloc(1, session->body_bytes);
        int result = smfi_replacebody(ctx, body, session->body_bytes);
        free(body);
        say("replaced %d %d", session->number, result);
    }
    return SMFIS_CONTINUE;
}

static sfsistat on_abort(SMFICTX *ctx)
{
    say("abort %d", session_of(ctx)->number);
    return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
    struct session *session = session_of(ctx);
    closed = ctx;
    say("close %d", session->number);
    if (!session->keeps_private)
        smfi_setpriv(ctx, NULL);
    free(session);
    return SMFIS_CONTINUE;
}

static struct smfiDesc description = {
    .xxfi_name = "steered",
    .xxfi_version = SMFI_VERSION,
    .xxfi_flags = SMFIF_CHGBODY,
    .xxfi_connect = on_connect,
    .xxfi_helo = on_helo,
    .xxfi_envfrom = on_envfrom,
    .xxfi_envrcpt = on_envrcpt,
    .xxfi_header = on_header,
    .xxfi_eoh = on_eoh,
    .xxfi_body = on_body,
    .xxfi_eom = on_eom,
    .xxfi_abort = on_abort,
    .xxfi_close = on_close,
    .xxfi_unknown = on_unknown,
    .xxfi_data = on_data,
    .xxfi_negotiate = on_negotiate,
};

/* smfi_main in another thread than the main thread. */
static void *main_in_thread(void *unused)
{
    (void)unused;
    say("main %d", smfi_main());
    return NULL;
}

/* Installs a handler for a signal. */
static void handle(int number, void (*handler)(int))
{
    struct sigaction action = { .sa_handler = handler };
    sigaction(number, &action, NULL);
}

/* Prints which of the three signals of the library are blocked in this thread. */
static void print_mask(void)
{
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    say("blocked %d%d%d", sigismember(&mask, SIGHUP), sigismember(&mask, SIGTERM), sigismember(&mask, SIGINT));
}

/* A thread that waits for the signal that is blocked everywhere else, and tells that it came. */
static void *await_signal(void *argument)
{
    sigset_t *set = argument;
    for (;;) {
        int number = 0;
        sigwait(set, &number);
        tell(number);
    }
    return NULL;
}

/* Blocks a signal, and starts that thread. */
static void start_awaiting(int number)
{
    static sigset_t set;
    pthread_t thread;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    /* The thread must not take the signals that stop the filter. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_create(&thread, NULL, await_signal, &set);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Gives up root for good. */
static void become(int id)
{
    if (setgroups(0, NULL) != 0 || setgid(id) != 0 || setuid(id) != 0)
        _exit(98);
    say("become %d", id);
}

/* The process that a daemon's parent passes signals on to. */
static pid_t daemon_process;

/* Passes a signal on. */
static void pass_on(int number)
{
    kill(daemon_process, number);
}

/* Goes on in a child, as daemons do. The parent keeps none of the library's descriptors; it stays only so that the
 * test has one process to signal and to wait for. */
static void daemonise(void)
{
    /* A signal for the parent waits until it can pass it on. */
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    daemon_process = fork();
    if (daemon_process == 0) {
        pthread_sigmask(SIG_UNBLOCK, &term, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return;
    }
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    handle(SIGTERM, pass_on);
    pthread_sigmask(SIG_UNBLOCK, &term, NULL);
    int status = -1;
    while (waitpid(daemon_process, &status, 0) == -1 && errno == EINTR)
        ;
    _exit(status == 0 ? 0 : 95);
}

/* A signal handler that does nothing but interrupt. */
static void interrupt(int number)
{
    (void)number;
}

/* A thread that interrupts all others again and again, as profilers and watchdogs do. */
static void *interrupt_all(void *unused)
{
    (void)unused;
    for (;;) {
        usleep(20000);
        DIR *threads = opendir("/proc/self/task");
        for (struct dirent *entry; (entry = readdir(threads)) != NULL;) {
            int thread = atoi(entry->d_name);
            if (thread > 0 && thread != gettid())
                tgkill(getpid(), thread, SIGUSR1);
        }
        closedir(threads);
    }
    return NULL;
}

/* Starts that thread. */
static void start_interrupting(void)
{
    pthread_t thread;
    sigset_t all, before;
    handle(SIGUSR1, interrupt);
    /* The thread must not take the signals that stop the filter. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_create(&thread, NULL, interrupt_all, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Goes on in two processes. The second one ends by itself when the test has forgotten it. */
static void prefork(void)
{
    pid_t child = fork();
    if (child == 0)
        alarm(120);
    else
        say("child %d", child);
}

/* Does a step that concerns descriptors and processes, if it is one. */
static bool step_around(const char *name, int number)
{
    if (strcmp(name, "prefork") == 0) {
        prefork();
    } else if (strcmp(name, "close-standard") == 0) {
        output = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 40);
        for (int fd = 0; fd < 3; fd++)
            close(fd);
    } else if (strcmp(name, "close-from") == 0) {
        closefrom(number);
    } else if (strcmp(name, "open-something") == 0) {
        say("something %d", socket(AF_UNIX, SOCK_STREAM, 0));
    } else if (strcmp(name, "interrupt") == 0) {
        start_interrupting();
    } else if (strcmp(name, "is-open") == 0) {
        say("is-open %d", fcntl(number, F_GETFD) != -1);
    } else if (strcmp(name, "pipe") == 0) {
        struct sigaction action;
        sigaction(SIGPIPE, NULL, &action);
        say("pipe %s", action.sa_handler == SIG_IGN ? "ignored" : "default");
    } else if (strcmp(name, "strange-families") == 0) {
        families_are_strange = true;
    } else if (strcmp(name, "processes") == 0) {
        struct rlimit limit = { number, number };
        say("processes %d", setrlimit(RLIMIT_NPROC, &limit));
    } else if (strcmp(name, "megabytes") == 0) {
        struct rlimit limit = { (rlim_t)number << 20, (rlim_t)number << 20 };
        say("megabytes %d", setrlimit(RLIMIT_AS, &limit));
    } else {
        return false;
    }
    return true;
}

/* Does one step of the main thread: NAME or NAME=VALUE. */
static void step(char *name)
{
    char *value = strchr(name, '=');
    if (value != NULL)
        *value++ = '\0';
    int number = value ? atoi(value) : 0;

    if (strcmp(name, "register") == 0) {
        say("register %d", smfi_register(description));
    } else if (strcmp(name, "register-version") == 0) {
        struct smfiDesc other = description;
        other.xxfi_version = number;
        say("register %d", smfi_register(other));
    } else if (strcmp(name, "conn") == 0) {
        say("conn %d", smfi_setconn(value));
    } else if (strcmp(name, "open") == 0) {
        say("open %d", smfi_opensocket(number));
    } else if (strcmp(name, "timeout") == 0) {
        say("timeout %d", smfi_settimeout(number));
    } else if (strcmp(name, "maxdata") == 0) {
        say("maxdata %zu", smfi_setmaxdatasize(number));
    } else if (strcmp(name, "macros") == 0) {
        wanted_macros = value;
    } else if (strcmp(name, "debug") == 0) {
        say("debug %d", smfi_setdbg(number));
    } else if (strcmp(name, "backlog") == 0) {
        say("backlog %d", smfi_setbacklog(number));
    } else if (strcmp(name, "main") == 0) {
        say("main %d", smfi_main());
        main_has_returned = true;
    } else if (strcmp(name, "main-in-thread") == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, main_in_thread, NULL);
        pthread_join(thread, NULL);
    } else if (strcmp(name, "stop") == 0) {
        say("stop %d", smfi_stop());
    } else if (strcmp(name, "stop-on-usr2") == 0) {
        handle(SIGUSR2, stop_from_handler);
    } else if (strcmp(name, "threads-back-on-usr2") == 0) {
        handle(SIGUSR2, threads_back);
    } else if (strcmp(name, "tell") == 0) {
        handle(number, tell);
    } else if (strcmp(name, "await") == 0) {
        start_awaiting(number);
    } else if (strcmp(name, "raise") == 0) {
        kill(getpid(), number);
    } else if (strcmp(name, "umask") == 0) {
        umask(number);
    } else if (strcmp(name, "mask") == 0) {
        print_mask();
    } else if (strcmp(name, "become") == 0) {
        become(number);
    } else if (strcmp(name, "daemonise") == 0) {
        daemonise();
    } else if (strcmp(name, "descriptors") == 0) {
        struct rlimit limit = { number, number };
        say("descriptors %d", setrlimit(RLIMIT_NOFILE, &limit));
    } else if (strcmp(name, "slow-wakers") == 0) {
        wakers_are_slow = true;
    } else if (strcmp(name, "wait") == 0) {
        say("waiting");
        while (access(value, F_OK) != 0)
            usleep(5000);
    } else if (!step_around(name, number)) {
        _exit(96);
    }
}

int main(int argc, char *argv[])
{
    sem_init(&release, 0, 0);
    for (int i = 1; i < argc; i++)
        step(argv[i]);
    return 0;
}
