/*
 * The interface of libmilter as a compiler sees it through one header: a shared library with debug information that
 * defines all functions that programs use, which do nothing. Built with the reference's header, it is what abidiff compares our
 * header and our library with, for Debian's own library carries no debug information. Not a library to run on.
 */

#include <stddef.h>
#include <libmilter/mfapi.h>

#define UNUSED(name) ((void)(name))

/* Library control. */

int smfi_register(struct smfiDesc descriptor) { UNUSED(descriptor); return MI_FAILURE; }
int smfi_main(void) { return MI_FAILURE; }
int smfi_stop(void) { return MI_FAILURE; }
int smfi_setconn(char *spec) { UNUSED(spec); return MI_FAILURE; }
int smfi_settimeout(int seconds) { UNUSED(seconds); return MI_FAILURE; }
int smfi_setbacklog(int length) { UNUSED(length); return MI_FAILURE; }
int smfi_setdbg(int level) { UNUSED(level); return MI_FAILURE; }
int smfi_opensocket(bool remove) { UNUSED(remove); return MI_FAILURE; }
size_t smfi_setmaxdatasize(size_t size) { return size; }
int smfi_version(unsigned int *major, unsigned int *minor, unsigned int *patch)
{ UNUSED(major); UNUSED(minor); UNUSED(patch); return MI_FAILURE; }

/* At any time. */

char *smfi_getsymval(SMFICTX *ctx, char *name) { UNUSED(ctx); return name; }
void *smfi_getpriv(SMFICTX *ctx) { return ctx; }
int smfi_setpriv(SMFICTX *ctx, void *data) { UNUSED(ctx); UNUSED(data); return MI_FAILURE; }
int smfi_setreply(SMFICTX *ctx, char *rcode, char *xcode, char *text)
{ UNUSED(ctx); UNUSED(rcode); UNUSED(xcode); UNUSED(text); return MI_FAILURE; }
int smfi_setmlreply(SMFICTX *ctx, const char *rcode, const char *xcode, ...)
{ UNUSED(ctx); UNUSED(rcode); UNUSED(xcode); return MI_FAILURE; }
int smfi_setsymlist(SMFICTX *ctx, int stage, char *list)
{ UNUSED(ctx); UNUSED(stage); UNUSED(list); return MI_FAILURE; }
int smfi_progress(SMFICTX *ctx) { UNUSED(ctx); return MI_FAILURE; }

/* At the end of a message. */

int smfi_addheader(SMFICTX *ctx, char *name, char *value)
{ UNUSED(ctx); UNUSED(name); UNUSED(value); return MI_FAILURE; }
int smfi_chgheader(SMFICTX *ctx, char *name, int index, char *value)
{ UNUSED(ctx); UNUSED(name); UNUSED(index); UNUSED(value); return MI_FAILURE; }
int smfi_insheader(SMFICTX *ctx, int index, char *name, char *value)
{ UNUSED(ctx); UNUSED(index); UNUSED(name); UNUSED(value); return MI_FAILURE; }
int smfi_chgfrom(SMFICTX *ctx, char *address, char *arguments)
{ UNUSED(ctx); UNUSED(address); UNUSED(arguments); return MI_FAILURE; }
int smfi_addrcpt(SMFICTX *ctx, char *address) { UNUSED(ctx); UNUSED(address); return MI_FAILURE; }
int smfi_addrcpt_par(SMFICTX *ctx, char *address, char *arguments)
{ UNUSED(ctx); UNUSED(address); UNUSED(arguments); return MI_FAILURE; }
int smfi_delrcpt(SMFICTX *ctx, char *address) { UNUSED(ctx); UNUSED(address); return MI_FAILURE; }
int smfi_replacebody(SMFICTX *ctx, unsigned char *bytes, int length)
{ UNUSED(ctx); UNUSED(bytes); UNUSED(length); return MI_FAILURE; }
int smfi_quarantine(SMFICTX *ctx, char *reason) { UNUSED(ctx); UNUSED(reason); return MI_FAILURE; }

/* In no header. */

int mi_stop(void) { return MI_FAILURE; }
size_t sm_strlcpy(char *dst, const char *src, ssize_t size) { UNUSED(dst); UNUSED(src); return (size_t)size; }
size_t sm_strlcat(char *dst, const char *src, ssize_t size) { UNUSED(dst); UNUSED(src); return (size_t)size; }
size_t sm_strlcat2(char *dst, const char *src1, const char *src2, ssize_t size)
{ UNUSED(dst); UNUSED(src1); UNUSED(src2); return (size_t)size; }
size_t sm_strlcpyn(char *dst, ssize_t size, int n, ...) { UNUSED(dst); UNUSED(n); return (size_t)size; }
const char *sm_errstring(int number) { UNUSED(number); return NULL; }
