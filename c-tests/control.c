/*
 * control: what the functions outside of callbacks return. Each case runs in a process of its own, so that a case
 * starts from nothing and one that crashes says so. The working directory must be empty; files are made there.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

/* smfi_opensocket as callers compiled with either `bool` see it: only the low byte of the argument counts. */
int opensocket_int(int) __asm__("smfi_opensocket");
int opensocket_bool(_Bool) __asm__("smfi_opensocket");

/* Begins a case: its body runs in a child; the parent reports how the child ended, unless well. */
static int begin(const char *name)
{
    int status;
    pid_t child;

    printf("%s:", name);
    fflush(stdout);
    child = fork();
    if (child < 0) {
        perror("fork");
        exit(1);
    }
    if (child == 0) {
        const struct rlimit none = {0, 0};

        setrlimit(RLIMIT_CORE, &none);
        alarm(20);
        return 1;
    }
    if (waitpid(child, &status, 0) != child) {
        perror("waitpid");
        exit(1);
    }
    if (WIFSIGNALED(status))
        printf(" crash");
    printf("\n");
    return 0;
}

#define CASE(name, ...)                                                                                              \
    do {                                                                                                             \
        if (begin(name)) {                                                                                           \
            __VA_ARGS__;                                                                                             \
            fflush(stdout);                                                                                          \
            _exit(0);                                                                                                \
        }                                                                                                            \
    } while (0)

/* Prints a result. */
static void say(int result) { printf(" %d", result); fflush(stdout); }

/* Prints a size. */
static void say_size(size_t size) { printf(" %zu", size); fflush(stdout); }

/* Registers a filter without callbacks, of that version. */
static int reg(int version)
{
    struct smfiDesc filter = {.xxfi_name = "control", .xxfi_version = version, .xxfi_flags = SMFIF_NONE};

    return smfi_register(filter);
}

/* Prints what a socket spec gives. */
static void try_spec(char *spec)
{
    reg(SMFI_VERSION);
    say(smfi_setconn(spec));
    say(smfi_opensocket(1));
}

/* Puts an unused unix socket in the way. */
static void make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(address.sun_path, path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
        perror(path);
    close(fd);
}

/* Prints what stands at a path. */
static void say_file(const char *path)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        printf(" nothing");
    else
        printf(" %s", S_ISSOCK(st.st_mode) ? "socket" : S_ISREG(st.st_mode) ? "file" : "other");
}

/* Calls that must be told in their order. */
static void order(void)
{
    CASE("opensocket before all else", say(smfi_opensocket(1)));
    CASE("main before all else", say(smfi_main()));
    CASE("stop before all else", say(smfi_stop()));
    CASE("opensocket without register", say(smfi_setconn("unix:s0")); say(smfi_opensocket(1)));
    CASE("main without register", say(smfi_setconn("unix:s0")); say(smfi_main()));
    CASE("opensocket without setconn", say(reg(SMFI_VERSION)); say(smfi_opensocket(1)));
    CASE("main without setconn", say(reg(SMFI_VERSION)); say(smfi_main()));
    CASE("register, setconn, opensocket twice", say(reg(SMFI_VERSION)); say(smfi_setconn("unix:s1"));
         say(smfi_opensocket(1)); say(smfi_opensocket(1)); say(smfi_opensocket(0)); say_file("s1"));
    CASE("setconn, register, opensocket", say(smfi_setconn("unix:s2")); say(reg(SMFI_VERSION));
         say(smfi_opensocket(0)); say_file("s2"));
    CASE("the last setconn wins", say(reg(SMFI_VERSION)); say(smfi_setconn("unix:s3")); say(smfi_setconn("unix:s4"));
         say(smfi_opensocket(0)); say_file("s3"); say_file("s4"));
    CASE("a failed setconn changes nothing", say(reg(SMFI_VERSION)); say(smfi_setconn("unix:s5"));
         say(smfi_setconn("")); say(smfi_setconn(NULL)); say(smfi_opensocket(0)); say_file("s5"));
    CASE("stop, then main", say(reg(SMFI_VERSION)); say(smfi_setconn("unix:s6")); say(smfi_stop()); say(smfi_main()));
}

/* Versions of the struct. */
static void versions(void)
{
    static const int tried[] = {0,          1,          2,          3,          4,          5,          6,
                                0x00000100, 0x01000000, 0x01000001, 0x01000002, 0x0100007f, 0x01000080, 0x01000100,
                                0x01010001, 0x00010001, 0x02000001, 0x7f000001, -1};
    char name[64];

    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        snprintf(name, sizeof name, "register version %#x", (unsigned)tried[i]);
        CASE(name, say(reg(tried[i])));
    }
    CASE("register without a name", struct smfiDesc filter = {.xxfi_version = SMFI_VERSION};
         say(smfi_register(filter)));
    CASE("register with an empty name", struct smfiDesc filter = {.xxfi_name = "", .xxfi_version = SMFI_VERSION};
         say(smfi_register(filter)));
    CASE("register with odd flags",
         struct smfiDesc filter = {.xxfi_name = "f", .xxfi_version = SMFI_VERSION, .xxfi_flags = ~0UL};
         say(smfi_register(filter)));
    CASE("register twice", say(reg(SMFI_VERSION)); say(reg(SMFI_VERSION)));
    CASE("a bad register takes the good one back", say(reg(SMFI_VERSION)); say(reg(1)); say(smfi_setconn("unix:s7"));
         say(smfi_opensocket(1)));
    CASE("register after opensocket", say(reg(SMFI_VERSION)); say(smfi_setconn("unix:s8")); say(smfi_opensocket(1));
         say(reg(SMFI_VERSION)));
}

/* Settings with good and bad values. */
static void settings(void)
{
    unsigned int major = 7, minor = 7, level = 7;

    CASE("setbacklog", say(smfi_setbacklog(-1)); say(smfi_setbacklog(0)); say(smfi_setbacklog(1));
         say(smfi_setbacklog(100000)));
    CASE("settimeout", say(smfi_settimeout(-1)); say(smfi_settimeout(0)); say(smfi_settimeout(1));
         say(smfi_settimeout(0x7fffffff)));
    CASE("setdbg", say(smfi_setdbg(-1)); say(smfi_setdbg(6)); say(smfi_setdbg(0)));
    CASE("setmaxdatasize", say_size(smfi_setmaxdatasize(0)); say_size(smfi_setmaxdatasize(1));
         say_size(smfi_setmaxdatasize(65535)); say_size(smfi_setmaxdatasize(262143));
         say_size(smfi_setmaxdatasize(1048575)); say_size(smfi_setmaxdatasize((size_t)-1));
         say_size(smfi_setmaxdatasize(65535)));
    CASE("version", say(smfi_version(&major, &minor, &level));
         printf(" %u.%u.%u", major, minor, level));
    CASE("version of the header", printf(" %d.%d.%d", SM_LM_VRS_MAJOR(SMFI_VERSION), SM_LM_VRS_MINOR(SMFI_VERSION),
                                         SM_LM_VRS_PLVL(SMFI_VERSION)));
    CASE("version with NULLs", say(smfi_version(NULL, NULL, NULL)); say(smfi_version(&major, NULL, NULL));
         say(smfi_version(NULL, &minor, NULL)); say(smfi_version(NULL, NULL, &level));
         printf(" %u.%u.%u", major, minor, level));
}

/* Socket specs, good and bad. */
static void specs(void)
{
    static char *const tried[] = {
        "unix:a1", "UNIX:a2", "local:a3", "Local:a4", ":a5", "a6", "./a7", "unix:no/such/dir", "unix:", ":", "unix",
        "foo:bar", "inet:", "inet:0", "inet:x", "inet:99999", "inet:1x", "inet:@localhost", "inet:0@",
        "inet:0@127.0.0.1", "inet:0@[127.0.0.1]", "inet:0@localhost", "INET:0@127.0.0.1",
        "inet:0@[::1]", "inet:0@[127.0.0.1", "inet:0@[localhost]", "inet6:0@::1", "inet6:0@[::1]",
        "inet6:0@[IPv6:::1]", "inet6:0@[ipv6:::1]",
        "inet6:0@127.0.0.1", "inet6:0", "inet:-1", "inet: 0", "fd:", "fd:x", "fd:-1", "fd:77",
    };
    char longest[256], name[64];

    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        snprintf(name, sizeof name, "spec %s", tried[i]);
        CASE(name, try_spec(tried[i]));
    }
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "unix:", 5);
    longest[5 + 106] = '\0';
    CASE("path of 106 bytes", try_spec(longest));
    longest[5 + 106] = 'x';
    longest[5 + 107] = '\0';
    CASE("path of 107 bytes", try_spec(longest));
    longest[5 + 107] = 'x';
    longest[5 + 108] = '\0';
    CASE("path of 108 bytes", try_spec(longest));
}

/* What is in the way of a unix socket. */
static void obstacles(void)
{
    make_socket("b1");
    CASE("a socket in the way, kept", reg(SMFI_VERSION); smfi_setconn("unix:b1"); say(smfi_opensocket(0)));
    CASE("a socket in the way, removed", reg(SMFI_VERSION); smfi_setconn("unix:b1"); say(smfi_opensocket(1));
         say_file("b1"));
    make_socket("b6");
    CASE("a socket in the way, kept, with noise in the upper bytes of bool", reg(SMFI_VERSION);
         smfi_setconn("unix:b6"); say(opensocket_int(0x7fffff00)); say_file("b6"));
    CASE("a socket in the way, removed, with noise in the upper bytes of bool", reg(SMFI_VERSION);
         smfi_setconn("unix:b6"); say(opensocket_int(0x7fffff01)); say_file("b6"));
    make_socket("b7");
    CASE("a socket in the way, kept, by a real bool", reg(SMFI_VERSION);
         smfi_setconn("unix:b7"); say(opensocket_bool(0)); say_file("b7"));
    CASE("a socket in the way, removed, by a real bool", reg(SMFI_VERSION);
         smfi_setconn("unix:b7"); say(opensocket_bool(1)); say_file("b7"));
    close(open("b2", O_CREAT | O_WRONLY, 0600));
    CASE("a file in the way", reg(SMFI_VERSION); smfi_setconn("unix:b2"); say(smfi_opensocket(0));
         say(smfi_opensocket(1)); say_file("b2"));
    mkdir("b3", 0700);
    CASE("a directory in the way", reg(SMFI_VERSION); smfi_setconn("unix:b3"); say(smfi_opensocket(1)));
    CASE("nothing in the way", reg(SMFI_VERSION); smfi_setconn("unix:b4"); say(smfi_opensocket(1)); say_file("b4"));
    CASE("open fails, then another place", reg(SMFI_VERSION); smfi_setconn("unix:b3/x/y"); say(smfi_opensocket(1));
         say(smfi_setconn("unix:b5")); say(smfi_opensocket(1)); say_file("b5"));
}

/* Everything that wants a context, without one. */
static void no_context(void)
{
    static unsigned char body[] = "body";

    CASE("getsymval of NULL", say(smfi_getsymval(NULL, "j") == NULL));
    CASE("getpriv of NULL", say(smfi_getpriv(NULL) == NULL));
    CASE("setpriv of NULL", say(smfi_setpriv(NULL, body)));
    CASE("setreply of NULL", say(smfi_setreply(NULL, "550", "5.7.1", "no")));
    CASE("setmlreply of NULL", say(smfi_setmlreply(NULL, "550", "5.7.1", "no", (char *)NULL)));
    CASE("setsymlist of NULL", say(smfi_setsymlist(NULL, SMFIM_CONNECT, "j")));
    CASE("addheader of NULL", say(smfi_addheader(NULL, "X", "y")));
    CASE("chgheader of NULL", say(smfi_chgheader(NULL, "X", 1, "y")));
    CASE("insheader of NULL", say(smfi_insheader(NULL, 1, "X", "y")));
    CASE("chgfrom of NULL", say(smfi_chgfrom(NULL, "<a@b>", NULL)));
    CASE("addrcpt of NULL", say(smfi_addrcpt(NULL, "<a@b>")));
    CASE("addrcpt_par of NULL", say(smfi_addrcpt_par(NULL, "<a@b>", NULL)));
    CASE("delrcpt of NULL", say(smfi_delrcpt(NULL, "<a@b>")));
    CASE("replacebody of NULL", say(smfi_replacebody(NULL, body, 4)));
    CASE("quarantine of NULL", say(smfi_quarantine(NULL, "why")));
    CASE("progress of NULL", say(smfi_progress(NULL)));
}

/* All cases. */
int main(void)
{
    order();
    versions();
    settings();
    specs();
    obstacles();
    no_context();
    return 0;
}
