/*
 * undeclared: the functions that no header declares and programs take from libmilter nevertheless, called in many
 * ways. With an argument it tells what mi_stop says: of a process that `smfi_stop` was called in, or whose smfi_main
 * ended for the signal of that number.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

int mi_stop(void);
size_t sm_strlcpy(char *dst, const char *src, ssize_t size);
size_t sm_strlcat(char *dst, const char *src, ssize_t size);
size_t sm_strlcat2(char *dst, const char *src1, const char *src2, ssize_t size);
size_t sm_strlcpyn(char *dst, ssize_t size, int n, ...);
const char *sm_errstring(int number);

#define BUFFER 24

static char buffer[BUFFER];

/* Fills the buffer with a string and marks behind it. */
static void begin(const char *content)
{
    memset(buffer, '#', sizeof buffer);
    strcpy(buffer, content);
}

/* Prints a result, and every byte of the buffer. */
static void show(const char *function, long size, size_t result)
{
    printf("%s %ld: %zu ", function, size, result);
    for (size_t i = 0; i < sizeof buffer; i++)
        printf((signed char)buffer[i] >= 32 ? "%c" : "<%02x>", (unsigned char)buffer[i]);
    putchar('\n');
}

static const char *const STRINGS[] = {"", "a", "bc", "defg", "hijklmno", "\351\377"};
#define COUNT (sizeof STRINGS / sizeof *STRINGS)

/* All combinations of strings, for one size. */
static void strings(ssize_t size)
{
    for (size_t i = 0; i < COUNT; i++) {
        begin("");
        buffer[0] = '#';
        show("cpy", size, sm_strlcpy(buffer, STRINGS[i], size));
        for (size_t j = 0; j < COUNT; j++) {
            begin(STRINGS[j]);
            show("cat", size, sm_strlcat(buffer, STRINGS[i], size));
            for (size_t k = 0; k < COUNT; k++) {
                begin(STRINGS[k]);
                show("cat2", size, sm_strlcat2(buffer, STRINGS[i], STRINGS[j], size));
            }
        }
    }
}

/* From -1 to 8 of the arguments, some in registers and some on the stack, for one size. */
static void arguments(ssize_t size)
{
    for (int n = -1; n <= 8; n++) {
        begin("");
        buffer[0] = '#';
        show("cpyn", size, sm_strlcpyn(buffer, size, n, "a", "", "bc", "d", "efg", "h", "", "ij"));
    }
}

/* Strings that are their own destination. */
static void overlapping(void)
{
    begin("abcdef");
    show("cpy to itself", 10, sm_strlcpy(buffer, buffer, 10));
    begin("abcdef");
    show("cpy to the left", 10, sm_strlcpy(buffer, buffer + 2, 10));
    begin("abcdef");
    show("cpyn to itself", 10, sm_strlcpyn(buffer, (ssize_t)10, 3, buffer, "x", "y"));
    begin("abcdef");
    show("cpyn to itself", 7, sm_strlcpyn(buffer, (ssize_t)7, 3, buffer, "x", "y"));
}

/* Ends smfi_main as `how` says, and tells what mi_stop says. */
static int stopped(const char *how)
{
    struct smfiDesc filter = {.xxfi_name = "undeclared", .xxfi_version = SMFI_VERSION};
    sigset_t signals;

    printf("before %d\n", mi_stop());
    if (smfi_register(filter) != MI_SUCCESS || smfi_setconn("unix:undeclared.sock") != MI_SUCCESS)
        return 1;
    if (strcmp(how, "smfi_stop") == 0) {
        smfi_stop();
        printf("after smfi_stop %d\n", mi_stop());
    } else {
        /* It waits until smfi_main looks for it. */
        sigemptyset(&signals);
        sigaddset(&signals, atoi(how));
        sigprocmask(SIG_BLOCK, &signals, NULL);
        kill(getpid(), atoi(how));
    }
    printf("smfi_main %d\n", smfi_main());
    printf("afterwards %d\n", mi_stop());
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return stopped(argv[1]);
    for (ssize_t size = -3; size <= 18; size++) {
        strings(size);
        arguments(size);
    }
    strings((ssize_t)(SIZE_MAX / 4));
    arguments((ssize_t)(SIZE_MAX / 4));
    overlapping();
    for (int number = -300; number <= 70000; number++)
        printf("%d %s\n", number, sm_errstring(number));
    errno = EBUSY;
    sm_errstring(ENOENT);
    printf("errno %d\n", errno);
    return 0;
}
