#!/usr/bin/env python3
"""Writes gen/options.h and gen/options.c from spec/options.toml: struct config, the table that
server/config.c fills it by, and the help text.

Usage: options.py OUTDIR    writes the files
       options.py --list    prints where each belongs
       options.py --docs    prints docs/configuration.md
"""
import json
import sys
import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = ["- options.h", "server options.c"]
KINDS = {"text", "path", "uint", "bool", "choice", "listen"}

HEADER = """\
/* Generated from spec/options.toml: do not edit. The contract is in server/config.h. */
#ifndef WEIR_GEN_OPTIONS_H
#define WEIR_GEN_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_TEXT_BYTES 4096 /* with the ending NUL */
#define CONFIG_HOST_BYTES 256
#define CONFIG_LISTEN_MAX 16

enum config_face {{
{faces}
    CONFIG_FACE_COUNT,
}};

/* One address to take connections at. */
struct config_listen {{
    enum config_face face;
    char host[CONFIG_HOST_BYTES]; /* name or address, without brackets */
    uint16_t port;                /* 0: any free one */
}};

{enums}
enum option_id {{
{ids}
    OPTION_COUNT,
}};

enum config_source {{ CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENVIRONMENT, CONFIG_FLAG }};

struct config {{
{fields}
    enum config_source source[OPTION_COUNT]; /* where each value comes from */
}};

enum option_kind {{ KIND_TEXT, KIND_UINT, KIND_BOOL, KIND_CHOICE, KIND_LISTEN }};

struct option_row {{
    const char *name;
    enum option_kind kind;
    bool in_file;
    size_t offset; /* in struct config */
    size_t size;
    uint64_t min, max;
    const char *const *choices; /* ends with NULL */
    const char *initial;
}};

struct option_face {{
    const char *name;
    const char *addr; /* where it listens when nothing is said */
}};

extern const struct option_row OPTIONS[OPTION_COUNT];
extern const struct option_face OPTION_FACES[CONFIG_FACE_COUNT];
extern const char OPTIONS_HELP[];

#endif
"""

SOURCE = """\
/* Generated from spec/options.toml: do not edit. */
#include "gen/options.h"

{choices}
const struct option_row OPTIONS[OPTION_COUNT] = {{
{rows}
}};

const struct option_face OPTION_FACES[CONFIG_FACE_COUNT] = {{
{faces}
}};

const char OPTIONS_HELP[] =
{help};
"""


def quoted(text):
    return json.dumps(text)


def constant(*words):
    return "_".join(words).replace("-", "_").upper()


def field_of(option):
    return option["name"].replace("-", "_")


def default_of(option):
    value = option["default"]
    return str(value).lower() if isinstance(value, bool) else str(value)


def load():
    spec = tomllib.loads((ROOT / "spec/options.toml").read_text())
    for option in spec["option"]:
        if option["kind"] not in KINDS:
            sys.exit(f"spec/options.toml: {option['name']}: unknown kind {option['kind']}")
    return spec


def field_lines(option):
    name, comment = field_of(option), f" /* {option['help']} */"
    match option["kind"]:
        case "text" | "path":
            return [f"    char {name}[CONFIG_TEXT_BYTES];{comment}"]
        case "uint":
            width = 32 if option["max"] < 2**32 else 64
            return [f"    uint{width}_t {name};{comment}"]
        case "bool":
            return [f"    bool {name};{comment}"]
        case "choice":
            return [f"    enum config_{name} {name};{comment}"]
        case "listen":
            return [f"    struct config_listen {name}[CONFIG_LISTEN_MAX];{comment}",
                    f"    uint32_t {name}_count;"]


def row(option):
    name = field_of(option)
    kind = {"path": "text"}.get(option["kind"], option["kind"]).upper()
    parts = [
        f".name = {quoted(option['name'])}",
        f".kind = KIND_{kind}",
        f".in_file = {str(option.get('file', True)).lower()}",
        f".offset = offsetof(struct config, {name})",
        f".size = sizeof(((struct config *)0)->{name})",
        f".initial = {quoted(default_of(option))}",
    ]
    if option["kind"] == "uint":
        parts += [f".min = UINT64_C({option['min']})", f".max = UINT64_C({option['max']})"]
    if option["kind"] == "choice":
        parts.append(f".choices = {constant(name)}_NAMES")
    return f"    [{constant('option', name)}] = {{{', '.join(parts)}}},"


def help_text(spec):
    """The text of `weir serve --help`, at most 100 columns wide."""
    lines = ["Usage: weir serve [--OPTION VALUE]...", "", "Starts a broker.", ""]
    for option in spec["option"]:
        left = f"  --{option['name']} {option['value']}"
        about = option["help"]
        if default_of(option):
            about += f" (default {default_of(option)})"
        elif option["kind"] == "listen":
            faces = ", ".join(f"{f['name']}={f['addr']}" for f in spec["face"])
            about += f" (default {faces})"
        wrapped = textwrap.wrap(about, 62, break_on_hyphens=False)
        if len(left) > 35:
            lines.append(left)
            left = ""
        lines.append(f"{left:36}{wrapped[0]}")
        lines += [" " * 36 + more for more in wrapped[1:]]
    lines += ["", "Each option is also an environment variable (--log-level is WEIR_LOG_LEVEL) and a line",
              "`name = value` of the configuration file. Flags go before the environment, the",
              "environment before the file."]
    return lines


def docs(spec):
    lines = ["# Configuration", "",
             "<!-- Written by `python3 tools/gen/options.py --docs` from spec/options.toml: do not edit. -->",
             "", "An option is a flag of `weir serve`, an environment variable, or a line `name = value` of the",
             "file that `--config` names. Flags go before the environment, the environment before the file,",
             "the file before the defaults. A name that does not exist is an error, which suggests the",
             "nearest one that does.", "",
             "| option | environment | default | what it is |", "|---|---|---|---|"]
    for option in spec["option"]:
        about = option["help"][0].upper() + option["help"][1:] + "."
        if "about" in option:
            about += " " + option["about"]
        if option["kind"] == "uint":
            about += f" From {option['min']} to {option['max']}."
        default = f"`{default_of(option)}`" if default_of(option) else ""
        value = option["value"].replace("|", "\\|")
        lines.append(f"| `--{option['name']} {value}` | `{constant('weir', option['name'])}` | "
                     f"{default} | {about} |")
    lines += ["", "| face | listens at | speaks |", "|---|---|---|"]
    lines += [f"| `{f['name']}` | `{f['addr']}` | {f['about']} |" for f in spec["face"]]
    return "\n".join(lines) + "\n"


def write(out, spec):
    options, faces = spec["option"], spec["face"]
    choices = [o for o in options if o["kind"] == "choice"]
    enums, names = "", ""
    for option in choices:
        name = field_of(option)
        members = ", ".join(constant("config", name, c) for c in option["choices"])
        enums += f"enum config_{name} {{ {members} }};\n\n"
        listed = ", ".join(quoted(c) for c in option["choices"])
        names += f"static const char *const {constant(name)}_NAMES[] = {{{listed}, NULL}};\n"
    (out / "options.h").write_text(HEADER.format(
        faces="\n".join(f"    {constant('config_face', f['name'])}, /* {f['about']} */" for f in faces),
        enums=enums,
        ids="\n".join(f"    {constant('option', o['name'])}," for o in options),
        fields="\n".join(line for o in options for line in field_lines(o))))
    (out / "options.c").write_text(SOURCE.format(
        choices=names,
        rows="\n".join(row(o) for o in options),
        faces="\n".join(f"    [{constant('config_face', f['name'])}] = "
                        f"{{{quoted(f['name'])}, {quoted(f['addr'])}}}," for f in faces),
        help="\n".join(f"    {quoted(line + chr(10))}" for line in help_text(spec))))


def main():
    if sys.argv[1] == "--list":
        print("\n".join(OUTPUTS))
    elif sys.argv[1] == "--docs":
        print(docs(load()), end="")
    else:
        write(Path(sys.argv[1]), load())


if __name__ == "__main__":
    main()
