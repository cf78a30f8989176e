#!/usr/bin/env python3
"""Turns spec/amqp.toml into C: a struct per method with decoder and encoder, the properties of a
message, reply codes, senders for the face, and the fuzzers' dictionary.

amqp.py --list     the outputs, for the build
amqp.py OUTDIR     writes them
"""

import sys
import tomllib
from pathlib import Path

SPEC = Path(__file__).resolve().parents[2] / "spec" / "amqp.toml"
OUTPUTS = [("-", "amqp_method.h"), ("codec", "amqp_method.c"), ("-", "amqp_send.h"),
           ("-", "amqp_face.dict")]
# type -> (C type, reader, bytes when fixed)
TYPES = {
    "octet": ("uint8_t", "reader_u8", 1),
    "short": ("uint16_t", "reader_u16", 2),
    "long": ("uint32_t", "reader_u32", 4),
    "longlong": ("uint64_t", "reader_u64", 8),
    "timestamp": ("uint64_t", "reader_u64", 8),
    "shortstr": ("struct slice", "amqp_shortstr", 0),
    "longstr": ("struct slice", "amqp_longstr", 0),
    "table": ("struct slice", "amqp_longstr", 0),
    "bit": ("bool", None, 0),
}
PUT = {"short": "be16_put", "long": "be32_put", "longlong": "be64_put", "timestamp": "be64_put"}


def methods(spec):
    """(class, class id, name, method id, from, fields) in the order of the table."""
    for group, body in spec.items():
        if not isinstance(body, dict) or "id" not in body:
            continue
        for line in body["methods"]:
            head, _, rest = line.partition(":")
            name, number, sender = head.split()
            fields = [tuple(part.split()) for part in rest.split(",") if part.strip()]
            for _, kind in fields:
                if kind not in TYPES:
                    raise SystemExit(f"amqp.toml: unknown type {kind} in {group}.{name}")
            yield group, body["id"], name, int(number), sender, fields


def steps(fields):
    """The fields with runs of bits gathered: ("bits", [names]) or (type, name)."""
    out = []
    for name, kind in fields:
        if kind == "bit":
            if not out or out[-1][0] != "bits" or len(out[-1][1]) == 8:
                out.append(("bits", []))
            out[-1][1].append(name)
        else:
            out.append((kind, name))
    return out


def struct_of(name, fields):
    members = [f"    {TYPES[kind][0]} {field};" for field, kind in fields if field != "reserved"]
    return "\n".join([f"struct {name} {{", *(members or ["    char unused;"]), "};"])


def read_of(name, fields):
    used = any(field != "reserved" for field, _ in fields)
    lines = [f"bool {name}_read(struct slice arguments, struct {name} *out)", "{",
             "    struct reader reader = reader_over(arguments);"]
    for kind, what in steps(fields):
        if kind == "bits":
            if all(bit == "reserved" for bit in what):
                lines.append("    (void)reader_u8(&reader);")
                continue
            lines.append("    uint8_t bits = reader_u8(&reader);")
            lines += [f"    out->{bit} = bits >> {i} & 1;" for i, bit in enumerate(what) if bit != "reserved"]
        elif what == "reserved":
            lines.append(f"    (void){TYPES[kind][1]}(&reader);")
        else:
            lines.append(f"    out->{what} = {TYPES[kind][1]}(&reader);")
    if not used:
        lines.append("    (void)out;")
    lines += ["    return !reader.failed && reader.at == reader.end;", "}"]
    return "\n".join(lines)


def size_of(name, fields):
    fixed, parts = 12, []  # frame head 7, method id 4, frame end 1
    for kind, what in steps(fields):
        if kind == "bits":
            fixed += 1
        elif TYPES[kind][2]:
            fixed += TYPES[kind][2]
        else:
            fixed += 1 if kind == "shortstr" else 4
            if what != "reserved":
                parts.append(f"m->{what}.len")
    body = " + ".join([str(fixed), *parts])
    unused = "" if parts else "    (void)m;\n"
    return (f"static inline size_t {name}_frame_size(const struct {name} *m)\n{{\n"
            f"{unused}    return {body};\n}}")


def write_of(name, ident, fields):
    lines = [f"static inline size_t {name}_frame(uint8_t *at, uint16_t channel, const struct {name} *m)",
             "{", f"    uint8_t *begin = at;", f"    at = amqp_frame_begin(at, channel, {ident});"]
    used = False
    for kind, what in steps(fields):
        if kind == "bits":
            terms = [f"m->{bit} << {i}" for i, bit in enumerate(what) if bit != "reserved"]
            used = used or bool(terms)
            lines.append(f"    *at++ = (uint8_t)({' | '.join(terms) or '0'});")
            continue
        if what != "reserved":
            used = True
        if kind == "octet":
            lines.append(f"    *at++ = {'0' if what == 'reserved' else 'm->' + what};")
        elif kind in PUT:
            lines.append(f"    {PUT[kind]}(at, {'0' if what == 'reserved' else 'm->' + what});")
            lines.append(f"    at += {TYPES[kind][2]};")
        elif what == "reserved":
            width = 1 if kind == "shortstr" else 4
            lines.append(f"    memset(at, 0, {width});")
            lines.append(f"    at += {width};")
        else:
            put = "amqp_shortstr_put" if kind == "shortstr" else "amqp_longstr_put"
            lines.append(f"    at = {put}(at, m->{what});")
    if not used:
        lines.append("    (void)m;")
    lines += ["    return amqp_frame_end(begin, at);", "}"]
    return "\n".join(lines)


def properties_of(spec):
    fields = [tuple(line.split()) for line in spec["basic"]["properties"]]
    out = ["/* The properties of a message; a field counts when its flag is set. */",
           "enum {"]
    out += [f"    AMQP_{name.upper()} = 1 << {15 - i}," for i, (name, _) in enumerate(fields)]
    out += ["};", "", "struct amqp_properties {", "    uint16_t flags;"]
    out += [f"    {TYPES[kind][0]} {name};" for name, kind in fields]
    out += ["};", "",
            "/* Reads property flags and list; false when malformed. Fields that are absent stay untouched. */",
            "bool amqp_properties_read(struct slice list, struct amqp_properties *out);",
            "/* Size of the flags and list, and writing them. */",
            "size_t amqp_properties_size(const struct amqp_properties *properties);",
            "void amqp_properties_write(uint8_t *at, const struct amqp_properties *properties);"]
    read = ["bool amqp_properties_read(struct slice list, struct amqp_properties *out)", "{",
            "    struct reader reader = reader_over(list);",
            "    uint16_t flags = reader_u16(&reader);", "    out->flags = flags;"]
    size = ["size_t amqp_properties_size(const struct amqp_properties *properties)", "{",
            "    size_t size = 2;"]
    write = ["void amqp_properties_write(uint8_t *at, const struct amqp_properties *properties)", "{",
             "    be16_put(at, properties->flags);", "    at += 2;"]
    for name, kind in fields:
        flag = f"AMQP_{name.upper()}"
        read += [f"    if (flags & {flag})", f"        out->{name} = {TYPES[kind][1]}(&reader);"]
        width = TYPES[kind][2]
        if width:
            size += [f"    if (properties->flags & {flag})", f"        size += {width};"]
        else:
            head = 1 if kind == "shortstr" else 4
            size += [f"    if (properties->flags & {flag})",
                     f"        size += {head} + properties->{name}.len;"]
        if kind == "octet":
            put = [f"        *at++ = properties->{name};"]
        elif kind in PUT:
            put = [f"        {PUT[kind]}(at, properties->{name});", f"        at += {width};"]
        else:
            call = "amqp_shortstr_put" if kind == "shortstr" else "amqp_longstr_put"
            put = [f"        at = {call}(at, properties->{name});"]
        write += [f"    if (properties->flags & {flag}) {{", *put, "    }"] if len(put) > 1 else \
                 [f"    if (properties->flags & {flag})", *put]
    known = " | ".join(f"AMQP_{name.upper()}" for name, _ in fields)
    read += [f"    return !reader.failed && reader.at == reader.end && !(flags & ~({known}));", "}"]
    size += ["    return size;", "}"]
    write += ["}"]
    return "\n".join(out), "\n".join([*read, "", *size, "", *write])


HEADER = """/* Generated from spec/amqp.toml: do not edit. */
#ifndef WEIR_GEN_AMQP_METHOD_H
#define WEIR_GEN_AMQP_METHOD_H

#include "codec/amqp_wire.h"

#include <stdbool.h>

/* class << 16 | method */
enum amqp_method {
%(ids)s
};

/* "queue.declare", or NULL when there is no such method. */
const char *amqp_method_name(uint32_t method);
/* May a client send it? */
bool amqp_method_from_client(uint32_t method);
/* "NOT_FOUND" for 404; NULL when unknown. */
const char *amqp_reply_name(uint16_t code);
/* Does the error end the connection, and not just the channel? */
bool amqp_reply_is_hard(uint16_t code);

%(properties)s

/* Each method: its arguments (slices borrow), decoding (false when malformed), size of its frame,
 * and writing that into memory of this size. */

%(bodies)s

#endif
"""

SOURCE = """/* Generated from spec/amqp.toml: do not edit. */
#include "gen/amqp_method.h"

const char *amqp_method_name(uint32_t method)
{
    switch (method) {
%(names)s
    default:
        return NULL;
    }
}

bool amqp_method_from_client(uint32_t method)
{
    switch (method) {
%(clients)s
        return true;
    default:
        return false;
    }
}

const char *amqp_reply_name(uint16_t code)
{
    switch (code) {
%(replies)s
    default:
        return NULL;
    }
}

bool amqp_reply_is_hard(uint16_t code)
{
    switch (code) {
%(hard)s
        return true;
    default:
        return false;
    }
}

%(properties)s
"""

SEND = """/* Generated from spec/amqp.toml: do not edit. One function per method that a server sends. */
#ifndef WEIR_GEN_AMQP_SEND_H
#define WEIR_GEN_AMQP_SEND_H

#include "face/face.h"
#include "gen/amqp_method.h"

%s

#endif
"""


def send_of(name):
    return f"""static inline void {name}_send(struct conn *conn, uint16_t channel, const struct {name} *m)
{{
    uint8_t *at = conn_reserve(conn, {name}_frame_size(m));
    if (at)
        conn_commit(conn, {name}_frame(at, channel, m));
}}"""


def main():
    if sys.argv[1] == "--list":
        print("\n".join(f"{folder} {name}" for folder, name in OUTPUTS))
        return
    out = Path(sys.argv[1])
    spec = tomllib.loads(SPEC.read_text())
    ids, bodies, reads, names, clients, sends, words = [], [], [], [], [], [], []
    for group, group_id, name, number, sender, fields in methods(spec):
        struct = f"amqp_{group}_{name}"
        ident = struct.upper()
        ids.append(f"    {ident} = {group_id} << 16 | {number},")
        bodies += [struct_of(struct, fields),
                   f"bool {struct}_read(struct slice arguments, struct {struct} *out);",
                   size_of(struct, fields), write_of(struct, ident, fields)]
        reads.append(read_of(struct, fields))
        wire = "basic.recover-async" if name == "recover_async" else f"{group}.{name.replace('_', '-')}"
        names += [f"    case {ident}:", f'        return "{wire}";']
        if sender != "server":
            clients.append(f"    case {ident}:")
        if sender != "client":
            sends.append(send_of(struct))
        words.append(f'"\\x00\\x{group_id:02x}\\x{number >> 8:02x}\\x{number & 255:02x}"')
    declared, defined = properties_of(spec)
    replies = {**spec["reply"], **spec["reply_hard"]}
    (out / "amqp_method.h").write_text(HEADER % {
        "ids": "\n".join(ids), "properties": declared, "bodies": "\n\n".join(bodies)})
    (out / "amqp_method.c").write_text(SOURCE % {
        "names": "\n".join(names), "clients": "\n".join(clients), "properties": "\n\n".join([defined, *reads]),
        "replies": "\n".join(f'    case {code}:\n        return "{word}";' for code, word in replies.items()),
        "hard": "\n".join(f"    case {code}:" for code in spec["reply_hard"])})
    (out / "amqp_send.h").write_text(SEND % "\n\n".join(sends))
    words += [f'"{word}"' for word in ("AMQP\\x00\\x00\\x09\\x01", "\\x00guest\\x00guest", "PLAIN", "\\xce",
                                       "x-dead-letter-exchange", "x-max-priority", "x-stream-offset", "CC")]
    (out / "amqp_face.dict").write_text("\n".join(words) + "\n")


if __name__ == "__main__":
    main()
