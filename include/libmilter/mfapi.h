/*
 * libmilter/mfapi.h: the interface between a mail filter and the library that talks to the mail server.
 *
 * Made by cbindgen: change the Rust sources in src/ffi, then `make header`.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef _LIBMILTER_MFAPI_H
#define _LIBMILTER_MFAPI_H 1

#include <sys/types.h>
#include <sys/socket.h>

#include "mfdef.h"

/*
 * bool: C++ and C23 have it. SM_CONF_STDBOOL_H, defined as not 0, asks for <stdbool.h>. Where a source says, as
 * <stdbool.h> does, that it has defined bool, true and false, its own are left alone. Otherwise it gets an int.
 */
#if defined SM_CONF_STDBOOL_H && SM_CONF_STDBOOL_H + 0
#include <stdbool.h>
#elif defined __cplusplus || defined __bool_true_false_are_defined
#elif defined __STDC_VERSION__ && __STDC_VERSION__ >= 202311L
#elif defined __STDC_VERSION__ && __STDC_VERSION__ > 201710L && defined __clang__ && __clang_major__ >= 15
#elif defined __STDC_VERSION__ && __STDC_VERSION__ > 201710L && defined __GNUC__ && __GNUC__ >= 13
#else
#ifndef bool
typedef int bool;
#endif
#ifndef true
#define true 1
#endif
#ifndef false
#define false 0
#endif
#define __bool_true_false_are_defined 1
#endif

/* Prototypes of old sources. */
#ifndef __P
#define __P(X) X
#endif
#ifndef SM__P
#define SM__P(X) __P(X)
#endif

#define LIBMILTER_API extern

/* The version of the API that a filter asks for. */
#ifndef SMFI_VERSION
#define SMFI_VERSION 0x01000001
#endif

/* The parts of a version. */
#define SM_LM_VRS_MAJOR(v) (((v) & 0x7f000000) >> 24)
#define SM_LM_VRS_MINOR(v) (((v) & 0x007fff00) >> 8)
#define SM_LM_VRS_PLVL(v) ((v) & 0x0000007f)

/* The address of a client, as the connect callback receives it. */
#ifndef _SOCK_ADDR
#define _SOCK_ADDR struct sockaddr
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The call succeeded. */
#define MI_SUCCESS 0

/* The call failed, and changed nothing. */
#define MI_FAILURE (-1)

/* No action. */
#define SMFIF_NONE 0x00000000L

/* The filter may add headers. */
#define SMFIF_ADDHDRS 0x00000001L

/* The filter may replace the body. */
#define SMFIF_CHGBODY 0x00000002L

/* The filter may replace the body: the older name. */
#define SMFIF_MODBODY SMFIF_CHGBODY

/* The filter may add recipients. */
#define SMFIF_ADDRCPT 0x00000004L

/* The filter may delete recipients. */
#define SMFIF_DELRCPT 0x00000008L

/* The filter may change or delete headers. */
#define SMFIF_CHGHDRS 0x00000010L

/* The filter may quarantine messages. */
#define SMFIF_QUARANTINE 0x00000020L

/* The filter may change the sender. */
#define SMFIF_CHGFROM 0x00000040L

/* The filter may add recipients with ESMTP parameters. */
#define SMFIF_ADDRCPT_PAR 0x00000080L

/* The filter may say which macros it wants. */
#define SMFIF_SETSYMLIST 0x00000100L

/* No stage of macros. */
#define SMFIM_NOMACROS (-1)

/* The first stage of macros. */
#define SMFIM_FIRST 0

/* Macros of the connection. */
#define SMFIM_CONNECT 0

/* Macros of HELO. */
#define SMFIM_HELO 1

/* Macros of MAIL. */
#define SMFIM_ENVFROM 2

/* Macros of RCPT. */
#define SMFIM_ENVRCPT 3

/* Macros of DATA. */
#define SMFIM_DATA 4

/* Macros of the end of message. */
#define SMFIM_EOM 5

/* Macros of the end of the header. */
#define SMFIM_EOH 6

/* The last stage of macros. */
#define SMFIM_LAST 6

/* Go on. */
#define SMFIS_CONTINUE 0

/* Reject: the client, the command, the recipient or the message, by stage. */
#define SMFIS_REJECT 1

/* Accept the message for the client, but do not deliver it. */
#define SMFIS_DISCARD 2

/* Accept, and do not ask this filter again. */
#define SMFIS_ACCEPT 3

/* Reject for now: the client may try again later. */
#define SMFIS_TEMPFAIL 4

/* Do not answer: only where SMFIP_NR_ was negotiated. */
#define SMFIS_NOREPLY 7

/* Send no more of this kind (recipients, headers, pieces of the body): only where SMFIP_SKIP was negotiated. */
#define SMFIS_SKIP 8

/* Negotiate: everything that the MTA offers. */
#define SMFIS_ALL_OPTS 10

/* A session with the MTA: opaque. Callbacks receive it and hand it on to the functions of the library. */
struct smfi_str;

/* What a callback returns: one of the SMFIS_ values. */
typedef int sfsistat;

/* A session with the MTA. */
typedef struct smfi_str SMFICTX;

/*
 * A filter: its name, the version of the API that it was written for, the actions (SMFIF_) that it may take, and
 * its callbacks. NULL for a callback: the MTA need not send what it is for.
 *
 * Texts and bytes that a callback receives are its own until it returns: it may write to them.
 */
struct smfiDesc {
    /* The filter's name, for the log. */
    char *xxfi_name;
    /* SMFI_VERSION. */
    int xxfi_version;
    /* SMFIF_ values. */
    unsigned long xxfi_flags;
    /* A client has connected; hostaddr is NULL when its address is unknown. */
    sfsistat (*xxfi_connect)(SMFICTX *ctx, char *hostname, _SOCK_ADDR *hostaddr);
    /* HELO or EHLO. */
    sfsistat (*xxfi_helo)(SMFICTX *ctx, char *helohost);
    /* MAIL FROM: the address, its ESMTP parameters, NULL. */
    sfsistat (*xxfi_envfrom)(SMFICTX *ctx, char **argv);
    /* RCPT TO: the address, its ESMTP parameters, NULL. */
    sfsistat (*xxfi_envrcpt)(SMFICTX *ctx, char **argv);
    /* A header line. */
    sfsistat (*xxfi_header)(SMFICTX *ctx, char *headerf, char *headerv);
    /* The end of the header. */
    sfsistat (*xxfi_eoh)(SMFICTX *ctx);
    /* A piece of the body. */
    sfsistat (*xxfi_body)(SMFICTX *ctx, unsigned char *bodyp, size_t len);
    /* The end of the message: the one place where it may be changed. */
    sfsistat (*xxfi_eom)(SMFICTX *ctx);
    /* The message is given up. */
    sfsistat (*xxfi_abort)(SMFICTX *ctx);
    /* The session is over. */
    sfsistat (*xxfi_close)(SMFICTX *ctx);
    /* An SMTP command that the MTA does not know. Read only if xxfi_version is above 2. */
    sfsistat (*xxfi_unknown)(SMFICTX *ctx, const char *arg);
    /* DATA. Read only if xxfi_version is above 3. */
    sfsistat (*xxfi_data)(SMFICTX *ctx);
    /* What the MTA offers (actions, steps), and what the filter takes of it. Read only if xxfi_version is above 4. */
    sfsistat (*xxfi_negotiate)(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2, unsigned long f3, unsigned long *pf0, unsigned long *pf1, unsigned long *pf2, unsigned long *pf3);
};

/* A pointer to a session. */
typedef SMFICTX *SMFICTX_PTR;

/* The same, as a type name. */
typedef struct smfiDesc smfiDesc_str;

/* A pointer to it. */
typedef struct smfiDesc *smfiDesc_ptr;

/* Registers a filter: its name, its callbacks, and the actions that it may want to take. */
LIBMILTER_API int smfi_register(struct smfiDesc desc);

/* Sets where to listen: `unix:path`, `inet:port[@host]`, `inet6:port[@host]`, `fd:number`. */
LIBMILTER_API int smfi_setconn(char *connspec);

/* Opens the socket that smfi_setconn named; with `rmsocket` a unix socket that is in the way is removed. */
LIBMILTER_API int smfi_opensocket(bool rmsocket);

/* Sets how many connections may wait to be accepted. */
LIBMILTER_API int smfi_setbacklog(int obacklog);

/* Sets how many seconds a read from the MTA or a write to it may take. */
LIBMILTER_API int smfi_settimeout(int otimeout);

/* Sets how much debug output goes to standard error; 0 is none. */
LIBMILTER_API int smfi_setdbg(int odbg);

/* Sets how many bytes of data a frame may carry; the value before that. */
LIBMILTER_API size_t smfi_setmaxdatasize(size_t sz);

/* Tells the version of the library; each pointer may be NULL. */
LIBMILTER_API int smfi_version(unsigned int *pmajor, unsigned int *pminor, unsigned int *ppl);

/* Serves MTAs until the filter is to stop: by smfi_stop or a signal. */
LIBMILTER_API int smfi_main(void);

/* Lets smfi_main stop, and return once the running messages are done. */
LIBMILTER_API int smfi_stop(void);

/* The value of a macro, or NULL if the MTA has not sent it. `x` and `{x}` are the same name. */
LIBMILTER_API char *smfi_getsymval(SMFICTX *ctx, char *symname);

/* Sets the pointer that belongs to the filter in this session. */
LIBMILTER_API int smfi_setpriv(SMFICTX *ctx, void *privatedata);

/* The pointer that smfi_setpriv has set, else NULL. */
LIBMILTER_API void *smfi_getpriv(SMFICTX *ctx);

/* Sets the SMTP reply of one line that stands for the next SMFIS_REJECT (code 5xx) or SMFIS_TEMPFAIL (4xx). */
LIBMILTER_API int smfi_setreply(SMFICTX *ctx, char *rcode, char *xcode, char *message);

/* Asks for the macros of a stage (SMFIM_*): names separated by space. To be called in the negotiate callback. */
LIBMILTER_API int smfi_setsymlist(SMFICTX *ctx, int stage, char *macros);

/* Adds a header field at the end. */
LIBMILTER_API int smfi_addheader(SMFICTX *ctx, char *headerf, char *headerv);

/* Inserts a header field so that `hdridx` fields stand before it. */
LIBMILTER_API int smfi_insheader(SMFICTX *ctx, int hdridx, char *headerf, char *headerv);

/* Changes the `hdridx`-th field of this name, or deletes it if the value is NULL or empty. */
LIBMILTER_API int smfi_chgheader(SMFICTX *ctx, char *headerf, int hdridx, char *headerv);

/* Changes the envelope sender; `args` are ESMTP arguments or NULL. */
LIBMILTER_API int smfi_chgfrom(SMFICTX *ctx, char *mail, char *args);

/* Adds a recipient. */
LIBMILTER_API int smfi_addrcpt(SMFICTX *ctx, char *rcpt);

/* Adds a recipient; `args` are ESMTP arguments or NULL. */
LIBMILTER_API int smfi_addrcpt_par(SMFICTX *ctx, char *rcpt, char *args);

/* Removes a recipient. */
LIBMILTER_API int smfi_delrcpt(SMFICTX *ctx, char *rcpt);

/* Replaces the body; several calls send the parts of the new body one after the other. */
LIBMILTER_API int smfi_replacebody(SMFICTX *ctx, unsigned char *bodyp, int bodylen);

/* Asks the MTA to hold the message. */
LIBMILTER_API int smfi_quarantine(SMFICTX *ctx, char *reason);

/* Tells the MTA at once that the filter is still working. */
LIBMILTER_API int smfi_progress(SMFICTX *ctx);

/*
 * Sets the SMTP reply of one to 32 lines, the last argument being a NULL of type char *, that stands for the next
 * SMFIS_REJECT (code 5xx) or SMFIS_TEMPFAIL (4xx).
 */
LIBMILTER_API int smfi_setmlreply(SMFICTX *ctx, const char *rcode, const char *xcode, ...);

#ifdef __cplusplus
}
#endif

#endif
