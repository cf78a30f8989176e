#!/usr/bin/env python3
"""Writes gen/metrics.h and gen/metrics.c from spec/metrics.toml: enum metric, and the tables of what
is shown under which name.

Usage: metrics.py OUTDIR    writes the files
       metrics.py --list    prints where each belongs
       metrics.py --docs    prints docs/metrics.md
"""
import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = ["- metrics.h", "face metrics.c"]
KEYS = {"name", "type", "help", "labels", "series", "each", "rabbitmq", "divide"}

HEADER = """\
/* Generated from spec/metrics.toml: do not edit. What counts and what reads is in face/face.h. */
#ifndef WEIR_GEN_METRICS_H
#define WEIR_GEN_METRICS_H

#include <stdint.h>

/* Which of the metrics kept for each protocol are a connection's: METRIC_CONNECTIONS_AMQP + this. */
enum metric_protocol {{
{protocols}
    METRIC_PROTOCOL_COUNT,
}};

enum metric {{
{metrics}
    METRIC_COUNT,
}};

/* One line of /metrics: the sum of one or more metrics. */
struct metric_series {{
    const char *labels; /* {{name="value"}}, or empty */
    uint16_t first, count; /* in METRIC_PARTS */
}};

/* Lines that share a name. */
struct metric_family {{
    const char *name, *type, *help;
    uint32_t divide;       /* what is kept is shown divided by it: 1 or a power of ten */
    uint16_t first, count; /* in METRIC_SERIES */
}};

enum {{
    METRIC_OWN_FAMILIES = {own}, /* the weir_ ones; behind them the same figures under RabbitMQ's names */
    METRIC_FAMILY_COUNT = {families},
}};

extern const struct metric_family METRIC_FAMILIES[METRIC_FAMILY_COUNT];
extern const struct metric_series METRIC_SERIES[{series}];
extern const uint16_t METRIC_PARTS[{parts}];

#endif
"""

SOURCE = """\
/* Generated from spec/metrics.toml: do not edit. */
#include "gen/metrics.h"

const struct metric_family METRIC_FAMILIES[METRIC_FAMILY_COUNT] = {{
{families}
}};

const struct metric_series METRIC_SERIES[{series_count}] = {{
{series}
}};

const uint16_t METRIC_PARTS[{parts_count}] = {{
{parts}
}};
"""

DOCS = """\
# Metrics

<!-- Written by `python3 tools/gen/metrics.py --docs` from spec/metrics.toml: do not edit. -->

`GET /metrics` of the HTTP face (`http://127.0.0.1:15672/metrics`) gives these figures in Prometheus' text
format, those of all shards together; `GET /` shows them to a human. A shard makes its own known at
most every 100 ms. Counters begin at zero when the broker starts.

The same figures stand there again under the names of RabbitMQ's exporter, as far as one means the
other, for the dashboards and alerts that people have; where several have the same name and labels
they are added up. Unlike RabbitMQ's, a counter of channels never falls when a channel closes.

| metric | type | what it is | RabbitMQ |
|---|---|---|---|
{rows}

And what does not change while the broker runs, with the value 1:

| metric | labels |
|---|---|
| `weir_build_info` | `version` |
| `weir_node_info` | `node`, `cluster_id` |
| `rabbitmq_build_info` | `rabbitmq_version`, `prometheus_plugin_version`, `erlang_version` (empty), `product_name`, `product_version`: of Weir |
| `rabbitmq_identity_info` | `rabbitmq_node`, `rabbitmq_cluster`, `rabbitmq_cluster_permanent_id` |
"""


def fail(name, why):
    sys.exit(f"spec/metrics.toml: {name}: {why}")


def constant(*words):
    return "_".join(words).replace("-", "_").upper()


def labels_text(pairs):
    return "{" + ",".join(f'{k}="{v}"' for k, v in pairs) + "}" if pairs else ""


def check(metric):
    name = metric["name"]
    if metric.keys() - KEYS:
        fail(name, f"unknown keys {sorted(metric.keys() - KEYS)}")
    if not re.fullmatch(r"weir_[a-z0-9_]+", name):
        fail(name, "is no name of the weir_ family")
    if metric["type"] not in ("counter", "gauge") or \
            (metric["type"] == "counter") != name.endswith("_total"):
        fail(name, "a counter, and only a counter, ends in _total")
    if re.search(r"[\\\n\"|<>&]", metric["help"]) or not metric["help"].endswith("."):
        fail(name, "its help is not a plain sentence")
    if metric.get("divide", 1) not in (1, 10, 100, 1000):
        fail(name, "divide is not a power of ten")


def series_of(metric, protocols):
    """(values, labels as text, names of RabbitMQ's) of each series."""
    names = metric.get("labels", [])
    if metric.get("each") == "protocol":
        theirs = metric.get("rabbitmq", {})
        return [([p], labels_text([("protocol", p)]), theirs.get(p, [])) for p in protocols]
    if not names:
        return [([], "", metric.get("rabbitmq", []))]
    found = []
    for series in metric["series"]:
        values = series["values"]
        if len(values) != len(names):
            fail(metric["name"], f"{values} are not values of {names}")
        found.append((values, labels_text(list(zip(names, values))), series.get("rabbitmq", [])))
    return found


def load():
    """Metrics, own families and RabbitMQ's families. A family is a dict with name, type, help, divide
    and series: labels -> list of constants."""
    spec = tomllib.loads((ROOT / "spec/metrics.toml").read_text())
    metrics, own, theirs = [], [], {}
    for metric in spec["metric"]:
        check(metric)
        base = metric["name"].removeprefix("weir_").removesuffix("_total")
        family = {"name": metric["name"], "type": metric["type"], "help": metric["help"],
                  "divide": metric.get("divide", 1), "series": {}, "rabbitmq": []}
        own.append(family)
        for values, labels, rabbitmq in series_of(metric, spec["protocols"]):
            name = constant("metric", base, *values)
            metrics.append((name, metric["help"]))
            family["series"][labels] = [name]
            family["rabbitmq"] += [n for n in rabbitmq if n not in family["rabbitmq"]]
            for known in rabbitmq:
                found = re.fullmatch(r'(rabbitmq_[a-z0-9_]+)((?:\{\w+="\w+"\})?)', known)
                if not found:
                    fail(metric["name"], f"{known} is no name of RabbitMQ's")
                other = theirs.setdefault(found[1], dict(family, name=found[1], series={}))
                if (other["type"], other["divide"]) != (family["type"], family["divide"]):
                    fail(metric["name"], f"{known} is of another type")
                other["series"].setdefault(found[2], []).append(name)
    names = [m[0] for m in metrics]
    if len(set(names)) != len(names):
        fail("enum metric", "two metrics have one name")
    return spec["protocols"], metrics, own, sorted(theirs.values(), key=lambda f: f["name"])


def tables(families):
    """Rows of the three tables."""
    family_rows, series_rows, parts = [], [], []
    for family in families:
        family_rows.append(
            f"    {{{json.dumps(family['name'])}, \"{family['type']}\",\n     {json.dumps(family['help'])},\n"
            f"     {family['divide']}, {len(series_rows)}, {len(family['series'])}}},")
        for labels, of in family["series"].items():
            series_rows.append(f"    {{{json.dumps(labels)}, {len(parts)}, {len(of)}}},")
            parts += of
    return family_rows, series_rows, parts


def write(out):
    protocols, metrics, own, theirs = load()
    family_rows, series_rows, parts = tables(own + theirs)
    (out / "metrics.h").write_text(HEADER.format(
        protocols="\n".join(f"    {constant('metric_protocol', p)}," for p in protocols),
        metrics="\n".join(f"    {name}, /* {text} */" for name, text in metrics),
        own=len(own), families=len(family_rows), series=len(series_rows), parts=len(parts)))
    (out / "metrics.c").write_text(SOURCE.format(
        families="\n".join(family_rows), series="\n".join(series_rows),
        parts="\n".join(f"    {part}," for part in parts),
        series_count=len(series_rows), parts_count=len(parts)))


def docs():
    rows = []
    for family in load()[2]:
        names = "<br>".join(f"`{name}{labels}`" for labels in family["series"]
                            for name in [family["name"]])
        theirs = "<br>".join(f"`{name}`" for name in family["rabbitmq"])
        rows.append(f"| {names} | {family['type']} | {family['help']} | {theirs} |")
    return DOCS.format(rows="\n".join(rows))


def main():
    if sys.argv[1] == "--list":
        print("\n".join(OUTPUTS))
    elif sys.argv[1] == "--docs":
        print(docs(), end="")
    else:
        write(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
