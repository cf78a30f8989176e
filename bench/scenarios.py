"""What is measured: one entry per scenario, and the arguments its client gets.

A name tells all: amqp/SHAPE/SIZE/MODE/LOAD and kafka/CLIENT/OPERATION/SIZE/PARTITIONSxCLIENTS/
DURABILITY. `--only` matches these names. LEVELS say which belong to a quick, a default and a full
run.
"""

from dataclasses import dataclass, field

LEVELS = {"quick": 0, "default": 1, "full": 2}
SIZES = {"100B": 100, "1KiB": 1024, "10KiB": 10240}


@dataclass(frozen=True)
class Scenario:
    name: str
    level: str
    family: str                 # "amqp" or "kafka": which brokers meet
    operation: str              # run, produce, consume, flow
    size: int
    settings: dict = field(default_factory=dict, hash=False, compare=False)

    def __getattr__(self, name):
        try:
            return self.__dict__["settings"][name]
        except KeyError:
            raise AttributeError(name) from None


# Publishers = consumers, queues.
SHAPES = {"1x1": (1, 1), "4x4q4": (4, 4), "4x4q1": (4, 1)}
# Persistent, confirms in flight = prefetch; acknowledged by half of it at once.
MODES = {"transient": (False, 0), "durable-w100": (True, 100), "durable-w1000": (True, 1000)}
# Of a peer's own flat-out rate in the same scenario.
HALF = "half"


def amqp_scenario(level, shape, size, mode, load):
    pairs, queues = SHAPES[shape]
    durable, window = MODES[mode]
    return Scenario(
        f"amqp/{shape}/{size}/{mode}/{load}", level, "amqp", "run", SIZES[size],
        {"pairs": pairs, "queues": queues, "durable": durable, "window": window, "load": load,
         "flat": f"amqp/{shape}/{size}/{mode}/flat",
         "rate": {"flat": None, "1k": 1000, "20k": 20000, HALF: HALF}[load]})


def amqp_scenarios():
    quick = {("1x1", "100B", mode) for mode in MODES} | {("4x4q4", "100B", "durable-w1000")}
    full = {("4x4q1", "1KiB"), ("4x4q1", "10KiB")}
    for size in SIZES:
        for shape in SHAPES:
            for mode in MODES:
                level = ("quick" if (shape, size, mode) in quick else
                         "full" if (shape, size) in full else "default")
                yield amqp_scenario(level, shape, size, mode, "flat")
    for shape, size, mode, load in [
            ("1x1", "100B", "transient", "1k"), ("1x1", "100B", "durable-w100", "1k"),
            ("1x1", "100B", "transient", "20k"), ("1x1", "100B", "durable-w1000", "20k"),
            ("1x1", "100B", "transient", HALF), ("1x1", "100B", "durable-w100", HALF),
            ("1x1", "100B", "durable-w1000", HALF), ("4x4q4", "100B", "transient", HALF),
            ("4x4q4", "100B", "durable-w1000", HALF), ("4x4q1", "100B", "durable-w1000", HALF),
            ("1x1", "1KiB", "transient", HALF), ("1x1", "1KiB", "durable-w1000", HALF),
            ("1x1", "10KiB", "durable-w1000", HALF)]:
        quick = (load, mode) in ((("1k"), "durable-w100"), (HALF, "durable-w100")) and size == "100B"
        yield amqp_scenario("quick" if quick and shape == "1x1" else "default",
                            shape, size, mode, load)
    # The rest of the grid, for those who have the time.
    for size in SIZES:
        for shape in SHAPES:
            for mode in MODES:
                for load in ("1k", "20k", HALF):
                    yield amqp_scenario("full", shape, size, mode, load)


def kafka_scenario(level, client, operation, size, partitions, clients, durability, load=None):
    name = f"kafka/{client}/{operation}/{size}/{partitions}x{clients}/{durability}"
    return Scenario(
        name, level, "kafka", operation.split("-")[0], SIZES[size],
        {"client": client, "partitions": partitions, "clients": clients,
         "durability": durability, "cold": operation.endswith("disk"), "rate": load,
         "flat": name.replace("/flow/", "/produce/")})


def kafka_scenarios():
    """Durability `os`: acknowledged from the page cache, Kafka's default; `flush`: fsync'd first."""
    plain = [(1, 1), (12, 4)]
    for client in ("librdkafka", "java"):
        for durability in ("os", "flush"):
            for size in ("100B", "1KiB"):
                for partitions in (1, 12):
                    for clients in (1, 4):
                        level = "default" if (partitions, clients) in plain else "full"
                        if client == "java" and durability == "flush":
                            level = "full"
                        if (client, durability, size) == ("librdkafka", "os", "100B") and \
                                (partitions, clients) == (1, 1):
                            level = "quick"
                        yield kafka_scenario(level, client, "produce", size, partitions, clients,
                                             durability)
    yield kafka_scenario("quick", "librdkafka", "consume-cache", "100B", 1, 1, "os")
    for size in ("100B", "1KiB"):
        for client in ("librdkafka", "java"):
            for partitions, clients in ((1, 1), (12, 1), (12, 4)):
                if client == "java" and clients > 1:
                    continue
                level = "default" if partitions == 1 else "full"
                yield kafka_scenario(level, client, "consume-cache", size, partitions, clients,
                                     "os")
                if client == "java":
                    level = "full"
                yield kafka_scenario(level, client, "consume-disk", size, partitions, clients, "os")
    for size in ("100B", "1KiB"):
        for partitions, clients in plain:
            for durability in ("os", "flush"):
                level = "full" if (durability == "flush" and partitions > 1) else "default"
                yield kafka_scenario(level, "librdkafka", "flow", size, partitions, clients,
                                     durability, HALF)


def select(level, only=None):
    """The scenarios of a level, or all that match a pattern, each once, in order."""
    import re
    chosen = {}
    for scenario in [*amqp_scenarios(), *kafka_scenarios()]:
        wanted = (re.search(only, scenario.name) if only
                  else LEVELS[scenario.level] <= LEVELS[level])
        if wanted:
            chosen.setdefault(scenario.name, scenario)
    return list(chosen.values())
