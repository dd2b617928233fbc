/*
 * stopper: smfi_stop where there is nobody to stop, as a signal handler may call it: in a child that was forked while
 * smfi_main runs in the parent. It must leave errno alone. The argument is the socket.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

static void *serve(void *result)
{
    *(int *)result = smfi_main();
    return NULL;
}

int main(int argc, char **argv)
{
    struct smfiDesc filter = {.xxfi_name = "stopper", .xxfi_version = SMFI_VERSION};
    pthread_t thread;
    int result = 1, status;

    if (argc != 2 || smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
        return 64;
    if (pthread_create(&thread, NULL, serve, &result) != 0)
        return 65;
    while (access(argv[1], F_OK) != 0)
        usleep(1000);
    usleep(300000);
    if (fork() == 0) {
        errno = EBUSY;
        int stopped = smfi_stop();
        int error = errno;
        printf("stop %d, errno is %s\n", stopped, error == EBUSY ? "as before" : "another");
        fflush(stdout);
        _exit(0);
    }
    wait(&status);
    smfi_stop();
    pthread_join(thread, NULL);
    printf("main %d\n", result);
    return 0;
}
