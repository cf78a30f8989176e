#!/usr/bin/env python3
"""Writes gen/err.h and gen/err.c from spec/errors.toml: enum err, its texts and each protocol's code.

Usage: errors.py OUTDIR    writes the files
       errors.py --list    prints where each belongs
"""
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUTPUTS = ["- err.h", "base err.c"]

HEADER = """/* Generated from spec/errors.toml: do not edit. */
#ifndef WEIR_GEN_ERR_H
#define WEIR_GEN_ERR_H

#include <stdint.h>

/* ERR_NONE is zero, so `if (err)` reads as it should. */
enum err {{
{enum}
    ERR_COUNT,
}};

/* One clause, lower case, no full stop. */
const char *err_text(enum err err);
/* Reply code of AMQP 0-9-1 (section 1.5.2.5 of its specification, and RabbitMQ's use of it). */
uint16_t err_amqp(enum err err);
/* Error code of the Kafka protocol. */
int16_t err_kafka(enum err err);

#endif
"""

SOURCE = """/* Generated from spec/errors.toml: do not edit. */
#include "gen/err.h"

static const struct {{
    const char *text;
    uint16_t amqp;
    int16_t kafka;
}} rows[ERR_COUNT] = {{
{rows}
}};

const char *err_text(enum err err)
{{
    return rows[err].text;
}}

uint16_t err_amqp(enum err err)
{{
    return rows[err].amqp;
}}

int16_t err_kafka(enum err err)
{{
    return rows[err].kafka;
}}
"""


def main() -> None:
    if sys.argv[1] == "--list":
        print("\n".join(OUTPUTS))
        return
    errors = tomllib.loads((ROOT / "spec/errors.toml").read_text())["error"]
    out = pathlib.Path(sys.argv[1])
    enum = "\n".join(f"    ERR_{e['name'].upper()}, /* {e['text']} */" for e in errors)
    rows = "\n".join(
        f"    [ERR_{e['name'].upper()}] = {{\"{e['text']}\", {e['amqp']}, {e['kafka']}}}," for e in errors
    )
    (out / "err.h").write_text(HEADER.format(enum=enum))
    (out / "err.c").write_text(SOURCE.format(rows=rows))


if __name__ == "__main__":
    main()
