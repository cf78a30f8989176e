"""kcat (librdkafka 2.0.2, as Debian ships both) against the broker: what people type in a shell."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from support import BOOTSTRAP, RESTART_CMD, eventually, fresh, restart_broker  # noqa: E402

QUICK = ["-X", "broker.address.family=v4", "-X", "topic.metadata.refresh.interval.ms=1000",
         "-X", "reconnect.backoff.ms=20", "-X", "reconnect.backoff.max.ms=200"]


def kcat(*words, data=b"", timeout_s=30, check=True):
    """Runs kcat to its end; returns what it printed."""
    done = subprocess.run(["kcat", "-b", BOOTSTRAP, *QUICK, *words], input=data,
                          capture_output=True, timeout=timeout_s, check=False)
    assert not check or done.returncode == 0, done.stderr.decode()
    return done.stdout if check else done


def produce(topic, *lines, words=()):
    kcat("-P", "-t", topic, *words, data="".join(f"{line}\n" for line in lines).encode())


def consume(topic, *words, offset="beginning"):
    """Reads a topic up to its end."""
    return kcat("-C", "-e", "-q", "-t", topic, "-o", offset, *words).decode()


def create(topic):
    """A topic by auto-creation, since kcat cannot create one itself."""
    produce(topic, "first")
    return topic


def test_lines_come_back():
    topic = fresh()
    produce(topic, "one", "two", "three")
    assert consume(topic) == "one\ntwo\nthree\n"


def test_keys_headers_and_format():
    topic = fresh()
    produce(topic, "k1:v1", "k2:v2", words=["-K:", "-H", "a=1", "-H", "b=2"])
    found = consume(topic, "-f", "%t %p %o %k=%s %h\\n")
    assert found == f"{topic} 0 0 k1=v1 a=1,b=2\n{topic} 0 1 k2=v2 a=1,b=2\n"


def test_json_output_shows_nulls_and_time():
    topic = fresh()
    before = time.time() * 1000
    produce(topic, "k:", words=["-K:", "-Z"])
    produce(topic, "plain")
    tombstone, plain = [json.loads(line) for line in consume(topic, "-J").splitlines()]
    assert (tombstone["key"], tombstone["payload"]) == ("k", None)
    assert (plain["key"], plain["payload"]) == (None, "plain")
    assert plain["tstype"] == "create" and plain["ts"] > before - 1000


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_codec(codec):
    topic = fresh()
    lines = [f"{i}-" * 30 for i in range(300)]
    produce(topic, *lines, words=["-z", codec, "-X", "linger.ms=20"])
    assert consume(topic).splitlines() == lines


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(acks):
    topic = create(fresh())
    produce(topic, *[f"m{i}" for i in range(100)], words=["-X", f"acks={acks}"])
    eventually(lambda: consume(topic, offset="1").splitlines() == [f"m{i}" for i in range(100)])


def test_idempotent_producer():
    topic = create(fresh())
    lines = [f"m{i}" for i in range(5000)]
    produce(topic, *lines, words=["-X", "enable.idempotence=true", "-X", "batch.num.messages=50"])
    assert consume(topic, offset="1").splitlines() == lines


def test_offsets():
    topic = fresh()
    produce(topic, *[f"m{i}" for i in range(10)])
    assert consume(topic, offset="7").split() == ["m7", "m8", "m9"]
    assert consume(topic, offset="-2").split() == ["m8", "m9"]
    assert consume(topic, "-c", "3").split() == ["m0", "m1", "m2"]
    assert consume(topic, offset="end") == ""


def test_offset_by_time():
    topic = fresh()
    produce(topic, "old")
    time.sleep(0.05)
    now = int(time.time() * 1000)
    time.sleep(0.05)
    produce(topic, "new")
    assert consume(topic, offset=f"s@{now}").split() == ["new"]
    assert kcat("-Q", "-t", f"{topic}:0:{now}").decode().strip() == f"{topic} [0] offset 1"


def test_metadata_listing():
    topic = create(fresh())
    listing = json.loads(kcat("-L", "-J"))
    assert [b["name"] for b in listing["brokers"]] == [BOOTSTRAP]
    [found] = [t for t in listing["topics"] if t["topic"] == topic]
    assert [p["partition"] for p in found["partitions"]] == [0]
    text = kcat("-L", "-t", topic).decode()
    assert f'topic "{topic}" with 1 partitions' in text


def test_unknown_topic_in_a_listing():
    absent = fresh("absent")
    text = kcat("-L", "-t", absent, "-X", "allow.auto.create.topics=false").decode()
    assert "Unknown topic or partition" in text or "0 partitions" in text


def test_message_too_large():
    topic = create(fresh())
    done = kcat("-P", "-t", topic, "-X", "message.max.bytes=4000000",
                data=os.urandom(1_100_000).replace(b"\n", b"x"), check=False)
    assert b"too large" in done.stderr


def test_binary_file_as_one_message(tmp_path):
    topic = create(fresh())
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(700_000))
    kcat("-P", "-t", topic, str(blob))
    out = kcat("-C", "-e", "-q", "-t", topic, "-o", "1", "-f", "%s")
    assert out == blob.read_bytes()


def test_group_reads_on_where_it_left():
    topic, group = create(fresh()), fresh("g")
    words = ["-q", "-G", group, "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000",
             "-X", "heartbeat.interval.ms=300", "-e"]
    assert kcat(*words, topic).decode().split() == ["first"]
    produce(topic, "second", "third")
    assert kcat(*words, topic).decode().split() == ["second", "third"]


def test_follower_sees_new_messages():
    topic = create(fresh())
    follower = subprocess.Popen(["kcat", "-b", BOOTSTRAP, *QUICK, "-C", "-q", "-u", "-t", topic],
                                stdout=subprocess.PIPE, text=True)
    try:
        assert follower.stdout.readline() == "first\n"
        for i in range(5):
            produce(topic, f"m{i}")
            assert follower.stdout.readline() == f"m{i}\n"
    finally:
        follower.send_signal(signal.SIGTERM)
        follower.communicate(timeout=10)


@pytest.mark.restart
@pytest.mark.skipif(not RESTART_CMD, reason="the broker is not ours to restart")
@pytest.mark.parametrize("kill", [False, True])
def test_messages_survive_a_restart_under_a_follower(kill):
    topic = create(fresh())
    # -E: goes on when no broker can be reached.
    follower = subprocess.Popen(["kcat", "-b", BOOTSTRAP, *QUICK, "-C", "-E", "-q", "-u", "-t", topic],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert follower.stdout.readline() == "first\n"
        restart_broker(kill)
        eventually(lambda: kcat("-L", "-t", topic, check=False).returncode == 0)
        produce(topic, "second")
        assert follower.stdout.readline() == "second\n"
        assert consume(topic).split() == ["first", "second"]
    finally:
        follower.kill()
        follower.communicate(timeout=10)
