/*
 * What a C program needs besides its compiler's sanitizer to run on a library that Rust has built with one.
 */
#include <string.h>

/* ISO C wants something in each file. */
extern int nothing;

#ifdef __SANITIZE_THREAD__
/* Rust's compiler calls these, which the runtime of an older C compiler has by the plain names alone. */
void *__tsan_memcpy(void *to, const void *from, size_t length)
{
    return memcpy(to, from, length);
}

void *__tsan_memmove(void *to, const void *from, size_t length)
{
    return memmove(to, from, length);
}

void *__tsan_memset(void *to, int byte, size_t length)
{
    return memset(to, byte, length);
}
#endif
