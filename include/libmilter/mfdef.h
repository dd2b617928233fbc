/*
 * libmilter/mfdef.h: the constants of the protocol between a mail server and a mail filter.
 *
 * Made by cbindgen: change the Rust source in src/ffi, then `make header`.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef _LIBMILTER_MFDEF_H
#define _LIBMILTER_MFDEF_H 1

/* The newest version of the protocol. */
#ifndef SMFI_PROT_VERSION
#define SMFI_PROT_VERSION 6
#endif

/* Bytes of the length in front of each packet. */
#define MILTER_LEN_BYTES 4

/* Bytes of an option negotiation. */
#define MILTER_OPTLEN (MILTER_LEN_BYTES * 3)

/* The largest piece of a body that a filter is sent. */
#define MILTER_CHUNK_SIZE 65535

/* The largest payload of a packet, unless smfi_setmaxdatasize says otherwise. */
#define MILTER_MAX_DATA_SIZE 65535

/* All actions of protocol version 1. */
#define SMFI_V1_ACTS 0x0000000FL

/* All actions of protocol version 2. */
#define SMFI_V2_ACTS 0x0000003FL

/* All actions of this version. */
#define SMFI_CURR_ACTS 0x000001FFL

/* All steps of protocol version 1. */
#define SMFI_V1_PROT 0x0000003FL

/* All steps of protocol version 2. */
#define SMFI_V2_PROT 0x0000007FL

/* All steps of this version. */
#define SMFI_CURR_PROT 0x001FFFFFL

/* Bits that the MTA and the library keep to themselves. */
#define SMFI_INTERNAL 0x70000000L

/* Connection from nowhere that has an address. */
#define SMFIA_UNKNOWN 'U'

/* Connection through a unix socket. */
#define SMFIA_UNIX 'L'

/* Connection through IPv4. */
#define SMFIA_INET '4'

/* Connection through IPv6. */
#define SMFIA_INET6 '6'

/* The message is given up. */
#define SMFIC_ABORT 'A'

/* A piece of the body. */
#define SMFIC_BODY 'B'

/* A client has connected. */
#define SMFIC_CONNECT 'C'

/* Macro definitions. */
#define SMFIC_MACRO 'D'

/* End of the body, perhaps with its last piece. */
#define SMFIC_BODYEOB 'E'

/* HELO or EHLO. */
#define SMFIC_HELO 'H'

/* Quit, but keep the connection for the next SMTP session. */
#define SMFIC_QUIT_NC 'K'

/* A header line. */
#define SMFIC_HEADER 'L'

/* MAIL FROM. */
#define SMFIC_MAIL 'M'

/* End of the header. */
#define SMFIC_EOH 'N'

/* Option negotiation. */
#define SMFIC_OPTNEG 'O'

/* Quit. */
#define SMFIC_QUIT 'Q'

/* RCPT TO. */
#define SMFIC_RCPT 'R'

/* DATA. */
#define SMFIC_DATA 'T'

/* An unknown SMTP command. */
#define SMFIC_UNKNOWN 'U'

/* Add a recipient. */
#define SMFIR_ADDRCPT '+'

/* Remove a recipient. */
#define SMFIR_DELRCPT '-'

/* Add a recipient with ESMTP parameters. */
#define SMFIR_ADDRCPT_PAR '2'

/* Answer 421 and close the connection. */
#define SMFIR_SHUTDOWN '4'

/* Accept. */
#define SMFIR_ACCEPT 'a'

/* Replace the body, piece by piece. */
#define SMFIR_REPLBODY 'b'

/* Continue. */
#define SMFIR_CONTINUE 'c'

/* Discard. */
#define SMFIR_DISCARD 'd'

/* Change the sender. */
#define SMFIR_CHGFROM 'e'

/* Cause the connection to fail. */
#define SMFIR_CONN_FAIL 'f'

/* Add a header. */
#define SMFIR_ADDHEADER 'h'

/* Insert a header. */
#define SMFIR_INSHEADER 'i'

/* The macros that the filter wants. */
#define SMFIR_SETSYMLIST 'l'

/* Change a header. */
#define SMFIR_CHGHEADER 'm'

/* Still working. */
#define SMFIR_PROGRESS 'p'

/* Quarantine the message. */
#define SMFIR_QUARANTINE 'q'

/* Reject. */
#define SMFIR_REJECT 'r'

/* Send no more of this kind. */
#define SMFIR_SKIP 's'

/* Fail for now. */
#define SMFIR_TEMPFAIL 't'

/* An SMTP reply of the filter's own. */
#define SMFIR_REPLYCODE 'y'

/* The MTA need not send connections. */
#define SMFIP_NOCONNECT 0x00000001L

/* The MTA need not send HELO. */
#define SMFIP_NOHELO 0x00000002L

/* The MTA need not send MAIL. */
#define SMFIP_NOMAIL 0x00000004L

/* The MTA need not send RCPT. */
#define SMFIP_NORCPT 0x00000008L

/* The MTA need not send the body. */
#define SMFIP_NOBODY 0x00000010L

/* The MTA need not send header lines. */
#define SMFIP_NOHDRS 0x00000020L

/* The MTA need not send the end of the header. */
#define SMFIP_NOEOH 0x00000040L

/* The filter does not answer header lines. */
#define SMFIP_NR_HDR 0x00000080L

/* The filter does not answer header lines: the older name. */
#define SMFIP_NOHREPL SMFIP_NR_HDR

/* The MTA need not send unknown commands. */
#define SMFIP_NOUNKNOWN 0x00000100L

/* The MTA need not send DATA. */
#define SMFIP_NODATA 0x00000200L

/* The MTA understands SMFIS_SKIP. */
#define SMFIP_SKIP 0x00000400L

/* The MTA sends rejected recipients too. */
#define SMFIP_RCPT_REJ 0x00000800L

/* The filter does not answer connections. */
#define SMFIP_NR_CONN 0x00001000L

/* The filter does not answer HELO. */
#define SMFIP_NR_HELO 0x00002000L

/* The filter does not answer MAIL. */
#define SMFIP_NR_MAIL 0x00004000L

/* The filter does not answer RCPT. */
#define SMFIP_NR_RCPT 0x00008000L

/* The filter does not answer DATA. */
#define SMFIP_NR_DATA 0x00010000L

/* The filter does not answer unknown commands. */
#define SMFIP_NR_UNKN 0x00020000L

/* The filter does not answer the end of the header. */
#define SMFIP_NR_EOH 0x00040000L

/* The filter does not answer pieces of the body. */
#define SMFIP_NR_BODY 0x00080000L

/* Header values keep their leading space. */
#define SMFIP_HDR_LEADSPC 0x00100000L

/* Packets of up to 256 KiB. */
#define SMFIP_MDS_256K 0x10000000L

/* Packets of up to 1 MiB. */
#define SMFIP_MDS_1M 0x20000000L

#endif
