/*
 * The filter of the differential tests. It does what a script says, one script for each session, and logs
 * all that it sees and every result of a call. Scripts and logs live in a file shared with the test, cut in
 * slots (play.rs knows the layout); a session takes the slot that the test has named last when its first
 * callback runs. The probe judges nothing: the test compares.
 *
 * usage: probe SOCKET SHARED-FILE VERSION FLAGS CALLBACKS [MAXDATA]     (numbers in hex)
 */
#include <fcntl.h>
#include <libmilter/mfapi.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { SLOTS = 8, SLOT_BYTES = 1 << 20, FIRST_SLOT = 4096, SCRIPT_AT = 128, LOG_AT = 1 << 19 };

enum callback { CONNECT, HELO, ENVFROM, ENVRCPT, HEADER, EOH, BODY, EOM, ABORT, CLOSE, UNKNOWN, DATA, NEGOTIATE, CALLBACKS };

enum op {
	GETSYMVAL, SETREPLY, SETMLREPLY, SETSYMLIST, ADDHEADER, INSHEADER, CHGHEADER, CHGFROM, ADDRCPT,
	ADDRCPT_PAR, DELRCPT, REPLACEBODY, QUARANTINE, PROGRESS, SETPRIV, GETPRIV, SCRIBBLE, ACTIONS, STEPS
};

/* What the file begins with. */
struct shared {
	uint32_t next;          /* the slot for the next session */
	_Atomic uint32_t stray; /* callbacks that belonged to no session */
};

/* What a slot begins with. */
struct slot {
	_Atomic uint64_t ctx;
	uint32_t log_len;
	uint32_t script_len;
	uint32_t calls[CALLBACKS];
	_Atomic uint32_t ended; /* calls that have returned */
};

/* A call under way: its session, its script, the arguments that SCRIBBLE may overwrite. */
struct call {
	SMFICTX *ctx;
	struct slot *slot;
	char *edit[8];
	size_t edit_len[8];
	int edits;
	unsigned long *actions, *steps;
};

static const char *const names[CALLBACKS] = {"connect", "helo",  "envfrom", "envrcpt", "header", "eoh", "body",
					     "eom",	"abort", "close",   "unknown", "data",	 "negotiate"};
static unsigned char *base;

/* The n-th slot. */
static struct slot *slot_at(unsigned n)
{
	return (struct slot *)(void *)(base + FIRST_SLOT + (size_t)n * SLOT_BYTES);
}

/* Appends bytes to a session's log; a full log stays full. */
static void put(struct slot *s, const char *bytes, size_t len)
{
	if (s->log_len + len > SLOT_BYTES - LOG_AT)
		len = SLOT_BYTES - LOG_AT - s->log_len;
	memcpy((char *)s + LOG_AT + s->log_len, bytes, len);
	s->log_len += (uint32_t)len;
}

/* Appends a text. */
static void put_text(struct slot *s, const char *text)
{
	put(s, text, strlen(text));
}

/* Appends a number. */
static void put_number(struct slot *s, long long number)
{
	char digits[32];

	put(s, digits, (size_t)snprintf(digits, sizeof digits, " %lld", number));
}

/* Appends bytes so that a reader can tell them from everything else; of many only some, and a checksum. */
static void put_bytes(struct slot *s, const unsigned char *bytes, size_t len)
{
	uint32_t sum = 2166136261u;
	size_t shown = len > 400 ? 40 : len, i;
	char text[64];

	put_text(s, " \"");
	for (i = 0; i < shown; i++) {
		if (bytes[i] > ' ' && bytes[i] < 127 && bytes[i] != '"' && bytes[i] != '\\')
			put(s, (const char *)bytes + i, 1);
		else
			put(s, text, (size_t)snprintf(text, sizeof text, "\\x%02x", bytes[i]));
	}
	put_text(s, "\"");
	if (shown < len) {
		for (i = 0; i < len; i++)
			sum = (sum ^ bytes[i]) * 16777619u;
		put(s, text, (size_t)snprintf(text, sizeof text, "... %zu bytes, sum %08x", len, (unsigned)sum));
	}
}

/* Appends a C string, NULL included. */
static void put_string(struct slot *s, const char *string)
{
	if (string == NULL)
		put_text(s, " NULL");
	else
		put_bytes(s, (const unsigned char *)string, strlen(string));
}

/*
 * The slot of a session; a new session gets the one that the test has named. The test names a slot anew when the callbacks of
 * the session before have returned. ThreadSanitizer cannot see that, and is told by `ended`. A lock would tell it more, that
 * each callback comes after those of all other sessions, and so hide races in the library.
 */
static struct slot *slot_of(SMFICTX *ctx)
{
	struct shared *shared = (struct shared *)(void *)base;
	uint64_t session = (uint64_t)(uintptr_t)ctx, nobody = 0;
	unsigned n;

	for (n = 0; n < SLOTS; n++)
		if (atomic_load_explicit(&slot_at(n)->ctx, memory_order_relaxed) == session)
			return slot_at(n);
	n = shared->next;
	if (n < SLOTS && atomic_compare_exchange_strong_explicit(&slot_at(n)->ctx, &nobody, session, memory_order_relaxed,
								 memory_order_relaxed)) {
		(void)atomic_load_explicit(&slot_at(n)->ended, memory_order_acquire);
		return slot_at(n);
	}
	atomic_fetch_add_explicit(&shared->stray, 1, memory_order_relaxed);
	return NULL;
}

/* Reads an unsigned number of the script. */
static uint32_t number_at(const unsigned char **p)
{
	uint32_t n;

	memcpy(&n, *p, sizeof n);
	*p += sizeof n;
	return n;
}

/* Names an argument that SCRIBBLE may overwrite. */
static void editable(struct call *c, void *bytes, size_t len)
{
	if (c->edits < 8) {
		c->edit[c->edits] = bytes;
		c->edit_len[c->edits++] = len;
	}
}

/* Does one thing that the script says, and logs what came of it. */
static void operate(struct call *c, enum op op, int number, char **a)
{
	SMFICTX *ctx = c->ctx;
	struct slot *s = c->slot;
	unsigned char *body;
	char *value;
	int i, result = 0;

	switch (op) {
	case GETSYMVAL:
		value = smfi_getsymval(ctx, a[0]);
		put_text(s, "  getsymval");
		put_string(s, a[0]);
		put_text(s, " =");
		put_string(s, value);
		put_text(s, "\n");
		if (value != NULL)
			editable(c, value, strlen(value));
		return;
	case GETPRIV:
		put_text(s, "  getpriv =");
		put_number(s, (long long)(intptr_t)smfi_getpriv(ctx));
		put_text(s, "\n");
		return;
	case SCRIBBLE:
		for (i = 0; i < c->edits; i++)
			memset(c->edit[i], number, c->edit_len[i]);
		return;
	case ACTIONS:
		if (c->actions != NULL)
			*c->actions = (unsigned int)number;
		return;
	case STEPS:
		if (c->steps != NULL)
			*c->steps = (unsigned int)number;
		return;
	case SETREPLY:
		result = smfi_setreply(ctx, a[0], a[1], a[2]);
		break;
	case SETMLREPLY:
		result = smfi_setmlreply(ctx, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
					 a[12], a[13], a[14], a[15], a[16], a[17], a[18], a[19], a[20], a[21], a[22],
					 a[23], a[24], a[25], a[26], a[27], a[28], a[29], a[30], a[31], a[32], a[33],
					 a[34], a[35], (char *)NULL);
		break;
	case SETSYMLIST:
		result = smfi_setsymlist(ctx, number, a[0]);
		break;
	case ADDHEADER:
		result = smfi_addheader(ctx, a[0], a[1]);
		break;
	case INSHEADER:
		result = smfi_insheader(ctx, number, a[0], a[1]);
		break;
	case CHGHEADER:
		result = smfi_chgheader(ctx, a[0], number, a[1]);
		break;
	case CHGFROM:
		result = smfi_chgfrom(ctx, a[0], a[1]);
		break;
	case ADDRCPT:
		result = smfi_addrcpt(ctx, a[0]);
		break;
	case ADDRCPT_PAR:
		result = smfi_addrcpt_par(ctx, a[0], a[1]);
		break;
	case DELRCPT:
		result = smfi_delrcpt(ctx, a[0]);
		break;
	case REPLACEBODY:
		body = a[0] == NULL || number < 0 ? NULL : malloc((size_t)number + 1);
		if (body != NULL)
			memset(body, a[0][0], (size_t)number);
		result = smfi_replacebody(ctx, body == NULL ? (unsigned char *)a[0] : body, number);
		free(body);
		break;
	case QUARANTINE:
		result = smfi_quarantine(ctx, a[0]);
		break;
	case PROGRESS:
		result = smfi_progress(ctx);
		break;
	case SETPRIV:
		result = smfi_setpriv(ctx, (void *)(intptr_t)number);
		break;
	}
	put_text(s, "  call =");
	put_number(s, result);
	put_text(s, "\n");
}

/* Plays the rule for this invocation: its operations, then its return value. */
static sfsistat play(struct call *c, enum callback which, sfsistat usual)
{
	const unsigned char *p = (const unsigned char *)c->slot + SCRIPT_AT, *end = p + c->slot->script_len;
	uint32_t turn = c->slot->calls[which]++;
	char *arguments[40];

	/* A rule: callback, invocation, status, length of the rest, operations. */
	while (p < end) {
		uint32_t rule_of = number_at(&p), rule_turn = number_at(&p);
		int status = (int)number_at(&p);
		uint32_t length = number_at(&p);
		const unsigned char *rest = p + length;

		if (rule_of == (uint32_t)which && rule_turn == turn) {
			while (p < rest) {
				uint32_t op = number_at(&p);
				int number = (int)number_at(&p);
				uint32_t count = number_at(&p), i;

				memset(arguments, 0, sizeof arguments);
				for (i = 0; i < count; i++) {
					uint32_t len = number_at(&p);

					if (len == UINT32_MAX)
						continue;
					arguments[i] = (char *)(uintptr_t)p;
					p += len + 1;
				}
				operate(c, (enum op)op, number, arguments);
			}
			return status;
		}
		p = rest;
	}
	return usual;
}

/* Begins the log of a call; 0 if the session is unknown. */
static int enter(struct call *c, SMFICTX *ctx, enum callback which)
{
	memset(c, 0, sizeof *c);
	c->ctx = ctx;
	c->slot = slot_of(ctx);
	if (c->slot == NULL)
		return 0;
	put_text(c->slot, names[which]);
	return 1;
}

/* Ends the line that the call began, and plays its rule. */
static sfsistat leave(struct call *c, enum callback which)
{
	sfsistat status;

	put_text(c->slot, "\n");
	status = play(c, which, which == NEGOTIATE ? SMFIS_ALL_OPTS : SMFIS_CONTINUE);
	atomic_fetch_add_explicit(&c->slot->ended, 1, memory_order_release);
	return status;
}

/* A callback whose argument is one string, or none. */
static sfsistat with_string(SMFICTX *ctx, enum callback which, char *string)
{
	struct call c;

	if (!enter(&c, ctx, which))
		return SMFIS_CONTINUE;
	if (string != NULL) {
		put_string(c.slot, string);
		editable(&c, string, strlen(string));
	}
	return leave(&c, which);
}

/* A callback whose argument is a list of strings. */
static sfsistat with_list(SMFICTX *ctx, enum callback which, char **list)
{
	struct call c;

	if (!enter(&c, ctx, which))
		return SMFIS_CONTINUE;
	for (; *list != NULL; list++) {
		put_string(c.slot, *list);
		editable(&c, *list, strlen(*list));
	}
	return leave(&c, which);
}

/* xxfi_connect */
static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
	struct call c;
	size_t len = 0;

	if (!enter(&c, ctx, CONNECT))
		return SMFIS_CONTINUE;
	put_string(c.slot, host);
	editable(&c, host, strlen(host));
	if (address == NULL)
		put_text(c.slot, " NULL");
	else if (address->sa_family == AF_INET)
		len = sizeof(struct sockaddr_in);
	else if (address->sa_family == AF_INET6)
		len = sizeof(struct sockaddr_in6);
	else if (address->sa_family == AF_UNIX)
		len = sizeof(struct sockaddr_un);
	else
		put_number(c.slot, address->sa_family);
	if (len != 0)
		put_bytes(c.slot, (const unsigned char *)address, len);
	return leave(&c, CONNECT);
}

/* xxfi_helo */
static sfsistat on_helo(SMFICTX *ctx, char *name)
{
	return with_string(ctx, HELO, name);
}

/* xxfi_envfrom */
static sfsistat on_envfrom(SMFICTX *ctx, char **argv)
{
	return with_list(ctx, ENVFROM, argv);
}

/* xxfi_envrcpt */
static sfsistat on_envrcpt(SMFICTX *ctx, char **argv)
{
	return with_list(ctx, ENVRCPT, argv);
}

/* xxfi_header */
static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
	char *pair[3];

	pair[0] = name;
	pair[1] = value;
	pair[2] = NULL;
	return with_list(ctx, HEADER, pair);
}

/* xxfi_eoh */
static sfsistat on_eoh(SMFICTX *ctx)
{
	return with_string(ctx, EOH, NULL);
}

/* xxfi_body */
static sfsistat on_body(SMFICTX *ctx, unsigned char *bytes, size_t len)
{
	struct call c;

	if (!enter(&c, ctx, BODY))
		return SMFIS_CONTINUE;
	put_bytes(c.slot, bytes, len);
	editable(&c, bytes, len);
	return leave(&c, BODY);
}

/* xxfi_eom */
static sfsistat on_eom(SMFICTX *ctx)
{
	return with_string(ctx, EOM, NULL);
}

/* xxfi_abort */
static sfsistat on_abort(SMFICTX *ctx)
{
	return with_string(ctx, ABORT, NULL);
}

/* xxfi_close */
static sfsistat on_close(SMFICTX *ctx)
{
	return with_string(ctx, CLOSE, NULL);
}

/* xxfi_unknown */
static sfsistat on_unknown(SMFICTX *ctx, const char *line)
{
	struct call c;

	if (!enter(&c, ctx, UNKNOWN))
		return SMFIS_CONTINUE;
	put_string(c.slot, line);
	return leave(&c, UNKNOWN);
}

/* xxfi_data */
static sfsistat on_data(SMFICTX *ctx)
{
	return with_string(ctx, DATA, NULL);
}

/* xxfi_negotiate */
static sfsistat on_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2, unsigned long f3,
			     unsigned long *pf0, unsigned long *pf1, unsigned long *pf2, unsigned long *pf3)
{
	struct call c;

	if (!enter(&c, ctx, NEGOTIATE))
		return SMFIS_ALL_OPTS;
	put_number(c.slot, (long long)f0);
	put_number(c.slot, (long long)f1);
	put_number(c.slot, (long long)f2);
	put_number(c.slot, (long long)f3);
	put_number(c.slot, (long long)*pf0);
	put_number(c.slot, (long long)*pf1);
	put_number(c.slot, (long long)*pf2);
	put_number(c.slot, (long long)*pf3);
	c.actions = pf0;
	c.steps = pf1;
	return leave(&c, NEGOTIATE);
}

/* Registers what the command line says, and serves until it is stopped. */
int main(int argc, char **argv)
{
	struct smfiDesc desc = {(char *)(uintptr_t)"probe", 0, 0, on_connect, on_helo, on_envfrom, on_envrcpt,
				on_header, on_eoh, on_body, on_eom, on_abort, on_close, on_unknown, on_data,
				on_negotiate};
	unsigned long callbacks;
	int fd;

	if (argc < 6 || argc > 7) {
		fprintf(stderr, "usage: probe SOCKET SHARED-FILE VERSION FLAGS CALLBACKS [MAXDATA]\n");
		return 64;
	}
	fd = open(argv[2], O_RDWR | O_CLOEXEC);
	base = mmap(NULL, FIRST_SLOT + (size_t)SLOTS * SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || base == MAP_FAILED) {
		perror(argv[2]);
		return 66;
	}
	desc.xxfi_version = (int)strtoul(argv[3], NULL, 16);
	desc.xxfi_flags = strtoul(argv[4], NULL, 16);
	callbacks = strtoul(argv[5], NULL, 16);
#define DROP(bit, member)                   \
	if ((callbacks & (1ul << (bit))) == 0) \
	desc.member = NULL
	DROP(CONNECT, xxfi_connect);
	DROP(HELO, xxfi_helo);
	DROP(ENVFROM, xxfi_envfrom);
	DROP(ENVRCPT, xxfi_envrcpt);
	DROP(HEADER, xxfi_header);
	DROP(EOH, xxfi_eoh);
	DROP(BODY, xxfi_body);
	DROP(EOM, xxfi_eom);
	DROP(ABORT, xxfi_abort);
	DROP(CLOSE, xxfi_close);
	DROP(UNKNOWN, xxfi_unknown);
	DROP(DATA, xxfi_data);
	DROP(NEGOTIATE, xxfi_negotiate);
#undef DROP
	if (argc == 7)
		(void)smfi_setmaxdatasize(strtoul(argv[6], NULL, 16));
	if (smfi_setconn(argv[1]) == MI_FAILURE || smfi_register(desc) == MI_FAILURE ||
	    smfi_opensocket(true) == MI_FAILURE)
		return 70;
	return smfi_main() == MI_SUCCESS ? 0 : 71;
}
