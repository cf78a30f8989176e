#!/usr/bin/env python3
"""Turns spec/kafka into C: structs, tables for codec/kafka_schema.c, typed wrappers, error table.

kafka.py --list     the outputs, for the build
kafka.py OUTDIR     writes them
kafka.py --versions NAME:MIN-MAX of every API, for tests/tools/KafkaVectors.java

The notation is explained in spec/kafka/README.md. Everything is checked here, so that a table that
was generated can be trusted by the code that walks it.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

SPEC = Path(__file__).resolve().parents[2] / "spec" / "kafka"
OUTPUTS = [("-", "kafka_api.h"), ("codec", "kafka_api.c"), ("-", "kafka_error.h"),
           ("codec", "kafka_error.c"), ("-", "kafka_vectors.inc"),
           ("-", "kafka_batches.inc")]

# notation -> (C type, enum, bytes on the wire at least)
TYPES = {
    "bool": ("bool", "BOOL", 1),
    "int8": ("int8_t", "INT8", 1),
    "int16": ("int16_t", "INT16", 2),
    "int32": ("int32_t", "INT32", 4),
    "int64": ("int64_t", "INT64", 8),
    "uuid": ("struct kafka_uuid", "UUID", 16),
    "string": ("struct slice", "STRING", 1),
    "bytes": ("struct slice", "BYTES", 1),
    "records": ("struct slice", "RECORDS", 1),
}
ALWAYS = 127  # INT8_MAX: as an upper bound "and all later ones", as a lower one "never"


class SpecError(Exception):
    pass


@dataclass
class Field:
    name: str
    type: str
    array: bool
    since: int
    until: int
    null_since: int
    tag: int | None
    default: str | None
    struct: "Struct | None" = None

    def wire_min(self):
        """Least bytes in any version that has the field."""
        if self.array:
            return 1
        return self.struct.wire_min() if self.struct else TYPES[self.type][2]


@dataclass
class Struct:
    name: str  # C name
    fields: list[Field] = field(default_factory=list)
    version_min: int = 0
    version_max: int = 0

    def wire_min(self):
        def size_in(version):
            return sum(f.wire_min() for f in self.fields
                       if f.tag is None and f.since <= version <= f.until)
        return min(size_in(v) for v in range(self.version_min, self.version_max + 1))

    def ordered(self):
        """Fields in the order of the wire, then tagged ones by tag."""
        return ([f for f in self.fields if f.tag is None]
                + sorted((f for f in self.fields if f.tag is not None), key=lambda f: f.tag))


@dataclass
class Api:
    name: str
    key: int
    version_min: int
    version_max: int
    flexible: int | None
    offered_min: int
    about: list[str]
    messages: dict[str, list[Struct]] = field(default_factory=dict)  # inner structs first

    @property
    def snake(self):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name).lower()


def span_parse(text):
    match = re.fullmatch(r"(\d+)(?:(\+)|-(\d+))?", text)
    if not match:
        raise SpecError(f"not a range of versions: {text}")
    since = int(match[1])
    return since, ALWAYS if match[2] else int(match[3] or since)


def api_parse(line, about):
    match = re.fullmatch(
        r"api (\w+) key (\d+) versions (\d+)-(\d+)(?: flexible (\d+)\+)?(?: offered (\d+))?", line)
    if not match:
        raise SpecError("expected: api NAME key N versions N-N [flexible N+] [offered N]")
    low = int(match[3])
    return Api(match[1], int(match[2]), low, int(match[4]), int(match[5]) if match[5] else None,
               int(match[6]) if match[6] else low, about)


def field_parse(line, since, until):
    """One line of a message; since..until are the versions of what encloses it."""
    words = line.split()
    name, kind = words[0], words[1]
    words = words[2:]
    null_since, tag, default = ALWAYS, None, None
    if words and words[0][0].isdigit():
        low, high = span_parse(words.pop(0))
        if low < since or (high != ALWAYS and high > until):
            raise SpecError(f"{name}: outside the versions of what encloses it")
        since, until = low, min(high, until)
    while words:
        word = words.pop(0)
        if word == "null":
            null_since = since
            if words and words[0][0].isdigit():
                null_since, null_until = span_parse(words.pop(0))
                if null_since < since or null_until < until:
                    raise SpecError(f"{name}: null must reach to the field's last version")
        elif word == "tag":
            tag = int(words.pop(0))
        elif word == "=":
            default = words.pop(0)
        else:
            raise SpecError(f"unknown word: {word}")
    return Field(name, kind.removeprefix("[]"), kind.startswith("[]"), since, until, null_since,
                 tag, default)


def message_parse(api, prefix, lines):
    """Structs of one message, inner ones first; lines are (number, depth, text)."""
    structs = []

    def struct_parse(name, depth, since, until):
        struct = Struct(name, [], since, min(until, api.version_max))
        while lines and lines[0][1] == depth:
            number, _, text = lines.pop(0)
            try:
                f = field_parse(text, since, until)
                if any(other.name == f.name for other in struct.fields):
                    raise SpecError(f"{f.name}: twice")
                if f.tag is not None and (api.flexible is None or f.since < api.flexible):
                    raise SpecError(f"{f.name}: a tag needs a flexible version")
                if lines and lines[0][1] > depth:
                    if lines[0][1] != depth + 1 or f.type in TYPES:
                        raise SpecError(f"{f.name}: wrong indentation below it")
                    f.struct = struct_parse(f"{prefix}_{f.type}", depth + 1, f.since, f.until)
                elif f.type not in TYPES:
                    raise SpecError(f"{f.name}: unknown type {f.type}")
                struct.fields.append(f)
            except SpecError as error:
                raise SpecError(f"{number}: {error}") from None
        if any(other.name == name for other in structs):
            raise SpecError(f"{name}: two structs of that name")
        if not struct.fields:
            raise SpecError(f"{name}: empty")
        structs.append(struct)
        return struct

    struct_parse(prefix, 1, api.version_min, ALWAYS)
    if lines:
        raise SpecError(f"{lines[0][0]}: wrong indentation")
    for struct in structs:
        if struct.name != prefix and struct.wire_min() < 1:
            raise SpecError(f"{struct.name}: takes no bytes in some version")
    return structs


def file_parse(path):
    api, about, sections, section = None, [], {}, None
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        text = raw.strip()
        try:
            if text.startswith("#") and api is None:
                about.append(text[1:].strip())
            elif not text or text.startswith("#"):
                continue
            elif text.startswith("api "):
                api = api_parse(text, about)
            elif text in ("request", "response"):
                section = sections.setdefault(text, [])
            else:
                indent = len(raw) - len(raw.lstrip(" "))
                if section is None or indent % 4 or indent == 0:
                    raise SpecError("wrong indentation")
                section.append((number, indent // 4, text))
        except SpecError as error:
            raise SystemExit(f"{path}:{number}: {error}")
    if api is None or set(sections) != {"request", "response"}:
        raise SystemExit(f"{path}: needs api, request and response")
    for name, lines in sections.items():
        try:
            api.messages[name] = message_parse(api, f"kafka_{api.snake}_{name}", lines)
        except SpecError as error:
            raise SystemExit(f"{path}:{error}")
    return api


def struct_header(struct):
    out = [f"struct {struct.name} {{"]
    for f in struct.fields:
        ctype = f"struct {f.struct.name}" if f.struct else TYPES[f.type][0]
        notes = []
        if f.since > struct.version_min:
            notes.append(f"{f.since}+" if f.until == ALWAYS or f.until >= struct.version_max
                         else f"{f.since}-{f.until}")
        elif f.until < struct.version_max:
            notes.append(f"{f.since}-{f.until}")
        if f.null_since != ALWAYS:
            notes.append("may be null" if f.null_since == f.since else
                         f"may be null from {f.null_since} on")
        note = f" /* {', '.join(notes)} */" if notes else ""
        if f.array:
            out.append(f"    {ctype} *{f.name};{note}")
            out.append(f"    int32_t {f.name}_count;")
        else:
            out.append(f"    {ctype} {f.name};{note}")
    out += ["};", f"extern const struct {struct.name} {struct.name}_default;", ""]
    return out


def default_initialiser(f):
    if f.struct and not f.array:
        inner = [f".{g.name} = {v}" for g in f.struct.fields if (v := default_initialiser(g))]
        return "{" + ", ".join(inner) + "}" if inner else None
    if f.default is None:
        return None
    if f.array or f.type in ("uuid", "string", "bytes", "records"):
        raise SystemExit(f"{f.name}: this type has no default but the empty one")
    value = int(f.default) if f.type != "bool" else f.default
    if value in (-2**31, -2**63):
        return f"INT{32 if value == -2**31 else 64}_MIN"
    return str(value)


def struct_source(struct):
    ordered = struct.ordered()
    out = [f"static const struct kafka_field {struct.name}_fields[] = {{"]
    for f in ordered:
        items = []
        if f.struct:
            items.append(f".schema = &{f.struct.name}_schema")
        items.append(f".offset = offsetof(struct {struct.name}, {f.name})")
        if f.array:
            items.append(f".count_offset = offsetof(struct {struct.name}, {f.name}_count)")
            items.append(".array = true")
        items.append(f".type = KAFKA_TYPE_{'STRUCT' if f.struct else TYPES[f.type][1]}")
        items.append(f".since = {f.since}, .until = {f.until}, .null_since = {f.null_since}")
        if f.tag is not None:
            items.append(f".tag = {f.tag}")
        out.append("    {" + ", ".join(items) + "},")
    out.append("};")
    inits = [f".{f.name} = {v}" for f in struct.fields if (v := default_initialiser(f))]
    out.append(f"const struct {struct.name} {struct.name}_default = "
               f"{{{', '.join(inits) or '0'}}};")
    tagged = sum(f.tag is not None for f in ordered)
    out += [f"static const struct kafka_schema {struct.name}_schema = {{",
            f"    .fields = {struct.name}_fields,",
            f"    .defaults = &{struct.name}_default,",
            f"    .size = sizeof(struct {struct.name}),",
            f"    .wire_bytes_min = {struct.wire_min()},",
            f"    .fields_count = {len(ordered) - tagged},",
            f"    .tagged_count = {tagged},",
            "};", ""]
    return out


def wrappers(api, kind):
    name = f"kafka_{api.snake}_{kind}"
    table = f"kafka_apis[{api_enum(api)}_INDEX].{kind}"
    call = f"{api.snake}_{kind}"
    return [f"""__attribute__((warn_unused_result)) static inline bool
kafka_decode_{call}(struct reader *reader, int16_t version, struct arena *arena,
    struct {name} *out)
{{
    return kafka_message_decode(reader, &{table}, version, arena, out);
}}

static inline size_t kafka_size_{call}(int16_t version, const struct {name} *in)
{{
    return kafka_message_size(&{table}, version, in);
}}

static inline void kafka_encode_{call}(struct writer *writer, int16_t version,
    const struct {name} *in)
{{
    kafka_message_encode(writer, &{table}, version, in);
}}
"""]


def api_enum(api):
    return f"KAFKA_{api.snake.upper()}"


GENERATED = "/* Generated by tools/gen/kafka.py from spec/kafka; edit that. */"


def api_header(apis):
    out = [GENERATED, """#ifndef WEIR_GEN_KAFKA_API_H
#define WEIR_GEN_KAFKA_API_H

/*
 * Kafka's messages: a struct for each, with every field of all its versions, its default, and
 *
 *   bool kafka_decode_X(reader, version, arena, &out)   see kafka_message_decode
 *   size_t kafka_size_X(version, &in)                   see kafka_message_size
 *   void kafka_encode_X(writer, version, &in)           see kafka_message_encode
 *
 * without the frame's length and without headers (codec/kafka_header.h).
 */

#include "codec/kafka_schema.h"

enum kafka_api_key {"""]
    out += [f"    {api_enum(a)} = {a.key}," for a in apis]
    out += ["};", "", "/* Places in kafka_apis. */", "enum kafka_api_index {"]
    out += [f"    {api_enum(a)}_INDEX," for a in apis]
    out += ["    KAFKA_APIS_COUNT", "};", """
struct kafka_api {
    const char *name;
    int16_t key;
    int16_t offered_min; /* what ApiVersions says; at most the version_min that is served */
    int16_t version_min, version_max;
    int16_t flexible_since; /* INT16_MAX: never */
    struct kafka_message request, response;
};

/* In the order of their keys. */
extern const struct kafka_api kafka_apis[KAFKA_APIS_COUNT];

/* NULL for a key that is not in the table. */
const struct kafka_api *kafka_api_find(int16_t key);
"""]
    for api in apis:
        out.append("/* " + api.name + ": " + "\n * ".join(api.about) + " */")
        for kind in ("request", "response"):
            for struct in api.messages[kind]:
                out += struct_header(struct)
        for kind in ("request", "response"):
            out += wrappers(api, kind)
    out.append("#endif")
    return out


def api_source(apis):
    out = [GENERATED, '#include "gen/kafka_api.h"', ""]
    for api in apis:
        for kind in ("request", "response"):
            for struct in api.messages[kind]:
                out += struct_source(struct)
    out.append("const struct kafka_api kafka_apis[KAFKA_APIS_COUNT] = {")
    for a in apis:
        versions = (f".version_min = {a.version_min}, .version_max = {a.version_max}, "
                    f".flexible_since = {'INT16_MAX' if a.flexible is None else a.flexible}")
        out.append(f'    {{.name = "{a.name}", .key = {a.key}, .offered_min = {a.offered_min}, '
                   f'{versions},')
        out += [f"        .{kind} = {{.schema = &kafka_{a.snake}_{kind}_schema, {versions}}},"
                for kind in ("request", "response")]
        out.append("    },")
    out += ["};", "", "static const uint8_t index_of_key[] = { /* plus one */"]
    out += [f"    [{a.key}] = {api_enum(a)}_INDEX + 1," for a in apis]
    out += ["};", """
const struct kafka_api *kafka_api_find(int16_t key)
{
    if (key < 0 || (size_t)key >= sizeof index_of_key || !index_of_key[key])
        return NULL;
    return &kafka_apis[index_of_key[key] - 1];
}"""]
    return out


def errors_parse(path):
    errors = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r" *(-?\d+) +([A-Z0-9_]+) +(retry|final) +(.+)", line)
        if not match:
            raise SystemExit(f"{path}:{number}: expected: CODE NAME retry|final TEXT")
        errors.append((int(match[1]), match[2], match[3] == "retry", match[4]))
    codes = [code for code, *_ in errors]
    if codes != list(range(-1, len(codes) - 1)):
        raise SystemExit(f"{path}: codes must go from -1 up without a gap")
    return errors


def error_header(errors):
    out = [GENERATED, """#ifndef WEIR_GEN_KAFKA_ERROR_H
#define WEIR_GEN_KAFKA_ERROR_H

#include <stdbool.h>
#include <stdint.h>

/* The error codes of Kafka's protocol. */
enum kafka_error {"""]
    out += [f"    KAFKA_ERROR_{name} = {code}, /* {text} */" for code, name, _, text in errors]
    out += ["};", """
struct kafka_error_info {
    const char *name;
    const char *text;
    bool retriable; /* clients try again by themselves */
};

/* That of UNKNOWN_SERVER_ERROR for a code that is not in the table. */
const struct kafka_error_info *kafka_error_info(int16_t code);

#endif"""]
    return out


def error_source(errors):
    out = [GENERATED, '#include "gen/kafka_error.h"', "",
           "static const struct kafka_error_info infos[] = { /* by code plus one */"]
    out += [f'    {{"{name}", "{text}", {"true" if retry else "false"}}},'
            for _, name, retry, text in errors]
    out += ["};", """
const struct kafka_error_info *kafka_error_info(int16_t code)
{
    const int count = sizeof infos / sizeof infos[0];
    return &infos[code >= -1 && code + 1 < count ? code + 1 : 0];
}"""]
    return out


def vectors(path):
    """Messages that another implementation wrote, for the tests."""
    out = [GENERATED]
    for line in path.read_text().splitlines():
        api, kind, version, data = line.split()
        data = "" if data == "-" else data
        out.append(f'{{KAFKA_{api}, {str(kind == "request").lower()}, {version}, "{data}"}},')
    return out


def batches(path):
    """Record batches, likewise."""
    out = [GENERATED]
    for line in path.read_text().splitlines():
        compression, name, data = line.split()
        data = bytes.fromhex(data)
        out.append(f'{{"{compression}", "{name}", {len(data)}, (const uint8_t[]){{')
        out += [", ".join(map(str, data[i:i + 24])) + "," for i in range(0, len(data), 24)]
        out.append("}},")
    return out


def main():
    if sys.argv[1:] == ["--list"]:
        for folder, name in OUTPUTS:
            print(folder, name)
        return
    apis = sorted((file_parse(p) for p in SPEC.glob("*.api")), key=lambda a: a.key)
    if len({a.key for a in apis}) != len(apis):
        raise SystemExit("two APIs of one key")
    if sys.argv[1:] == ["--versions"]:
        print(*(f"{a.snake.upper()}:{a.version_min}-{a.version_max}" for a in apis))
        return
    outdir = Path(sys.argv[1])
    errors = errors_parse(SPEC / "errors.txt")
    texts = [api_header(apis), api_source(apis), error_header(errors), error_source(errors),
             vectors(SPEC / "vectors.txt"), batches(SPEC / "batches.txt")]
    for (_, name), lines in zip(OUTPUTS, texts):
        (outdir / name).write_text("\n".join(lines) + "\n")


main()
