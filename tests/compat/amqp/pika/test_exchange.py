"""Exchanges and bindings: what reaches which queue, and what may not be done."""

import re

import pytest
from pika import spec

import expect


@pytest.fixture
def bound(ch, name):
    """bound(exchange, key, arguments): a new queue with this binding; returns the queue."""
    def make(exchange, key="", arguments=None):
        queue = ch.queue_declare(name("bound"), exclusive=True).method.queue
        ch.queue_bind(queue, exchange, key, arguments)
        return queue
    return make


@pytest.fixture
def exchange(ch, name):
    """exchange("topic", ...): a new exchange; returns its name."""
    def make(kind, **options):
        made = name(kind)
        ch.exchange_declare(made, kind, **options)
        return made
    return make


def test_the_default_exchange_routes_by_queue_name(ch, name):
    first, second = (ch.queue_declare(name(), exclusive=True).method.queue for _ in range(2))
    ch.basic_publish("", second, b"to the second")
    assert expect.get(ch, second)[2] == b"to the second"
    expect.empty(ch, first)


def test_direct_routes_by_equal_key(ch, exchange, bound):
    x = exchange("direct")
    info, both, other = bound(x, "info"), bound(x, "info"), bound(x, "warn")
    ch.queue_bind(both, x, "warn")
    ch.basic_publish(x, "info", b"i")
    ch.basic_publish(x, "warn", b"w")
    ch.basic_publish(x, "inf", b"nobody's")
    assert expect.bodies(ch, info, 1) == [b"i"]
    assert expect.bodies(ch, both, 2) == [b"i", b"w"]
    assert expect.bodies(ch, other, 1) == [b"w"]
    for queue in (info, both, other):
        expect.empty(ch, queue)


def test_fanout_ignores_the_key(ch, exchange, bound):
    x = exchange("fanout")
    queues = [bound(x, key) for key in ("", "a", "b")]
    ch.basic_publish(x, "whatever", b"all")
    for queue in queues:
        assert expect.bodies(ch, queue, 1) == [b"all"]
        expect.empty(ch, queue)


TOPIC_CASES = [
    ("a.b.c", "a.b.c", True), ("a.b.c", "a.b", False), ("a.b.c", "a.b.c.d", False),
    ("a.*.c", "a.b.c", True), ("a.*.c", "a.c", False), ("a.*.c", "a.b.b.c", False),
    ("*", "a", True), ("*", "", False), ("*", "a.b", False),
    ("#", "", True), ("#", "a", True), ("#", "a.b.c.d", True),
    ("a.#", "a", True), ("a.#", "a.b.c", True), ("a.#", "ab", False),
    ("#.c", "c", True), ("#.c", "a.b.c", True), ("#.c", "a.b.cc", False),
    ("*.b.#", "a.b", True), ("*.b.#", "a.b.c.d", True), ("*.b.#", "b.c", False),
    ("a.#.z", "a.z", True), ("a.#.z", "a.b.c.z", True), ("a.#.z", "a.b.c", False),
    ("#.#", "", True), ("#.*", "a", True), ("#.*.#", "a", True),
    ("#.b.#.d.#", "a.b.c.d.e", True), ("#.b.#.d.#", "a.d.c.b", False),
    ("", "", True), ("", "a", False), ("a..b", "a..b", True), ("a.*.b", "a..b", True),
    ("..", "..", True), ("*.*", ".", True), ("a*", "ab", False), ("a#", "ab", False),
    ("A.b", "a.b", False), ("주문.*", "주문.생성", True),
]


def test_topic_patterns_match_words(ch, name):
    """All cases at once: each pattern has its queue on one exchange, each key is published once."""
    x = name("topic")
    ch.exchange_declare(x, "topic")
    queues = {}
    for pattern in dict.fromkeys(pattern for pattern, _, _ in TOPIC_CASES):
        queues[pattern] = ch.queue_declare(name(), exclusive=True).method.queue
        ch.queue_bind(queues[pattern], x, pattern)
    keys = dict.fromkeys(key for _, key, _ in TOPIC_CASES)
    for key in keys:
        ch.basic_publish(x, key, key.encode())
    received = {}
    for pattern, queue in queues.items():
        bodies = expect.all_bodies(ch, queue)
        assert len(bodies) == len(set(bodies)), pattern
        received[pattern] = bodies
    for pattern, key, matches in TOPIC_CASES:
        assert (key.encode() in received[pattern]) is matches, (pattern, key)


def test_topic_delivers_once_however_many_bindings_match(ch, exchange, bound):
    x = exchange("topic")
    queue = bound(x, "a.#")
    for pattern in ("#", "*.b", "a.b", "a.*"):
        ch.queue_bind(queue, x, pattern)
    ch.basic_publish(x, "a.b", b"once")
    assert expect.bodies(ch, queue, 1) == [b"once"]
    expect.empty(ch, queue)


def test_topic_unbind_takes_away_one_pattern(ch, exchange, bound):
    x = exchange("topic")
    queue = bound(x, "a.*")
    ch.queue_bind(queue, x, "a.#")
    ch.queue_unbind(queue, x, "a.#")
    ch.basic_publish(x, "a.b.c", b"no longer")
    ch.basic_publish(x, "a.b", b"still")
    assert expect.bodies(ch, queue, 1) == [b"still"]
    expect.empty(ch, queue)


HEADER_CASES = [
    # binding arguments, message headers, routed
    ({"x-match": "all", "a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 9}, True),
    ({"x-match": "all", "a": 1, "b": "x"}, {"a": 1}, False),
    ({"x-match": "all", "a": 1, "b": "x"}, {"a": 1, "b": "y"}, False),
    ({"x-match": "any", "a": 1, "b": "x"}, {"a": 2, "b": "x"}, True),
    ({"x-match": "any", "a": 1, "b": "x"}, {"a": 2, "b": "y"}, False),
    ({"x-match": "any", "a": 1}, {}, False),
    ({"x-match": "all"}, {}, True),
    ({"x-match": "all"}, {"a": 1}, True),
    ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    ({"a": 1, "b": 2}, {"a": 1}, False),
    ({"x-match": "all", "a": None}, {"a": "anything"}, True),
    ({"x-match": "all", "a": None}, {"b": 1}, False),
    ({"x-match": "all", "a": True}, {"a": True}, True),
    ({"x-match": "all", "a": True}, {"a": False}, False),
    ({"x-match": "all", "x-ignored": 1, "a": 1}, {"a": 1}, True),
    ({"x-match": "all-with-x", "x-seen": 1, "a": 1}, {"a": 1}, False),
    ({"x-match": "all-with-x", "x-seen": 1, "a": 1}, {"a": 1, "x-seen": 1}, True),
    ({"x-match": "any-with-x", "x-seen": 1, "a": 1}, {"x-seen": 1}, True),
    ({"x-match": "any", "x-seen": 1, "a": 1}, {"x-seen": 1}, False),
]


@pytest.mark.parametrize("arguments, headers, routed", HEADER_CASES)
def test_headers_exchange_matches(ch, exchange, bound, arguments, headers, routed):
    x = exchange("headers")
    queue = bound(x, "", arguments)
    ch.basic_publish(x, "ignored", b"m", spec.BasicProperties(headers=headers))
    assert expect.all_bodies(ch, queue) == ([b"m"] if routed else [])


def test_headers_exchange_without_headers_in_the_message(ch, exchange, bound):
    x = exchange("headers")
    wants, takes_all = bound(x, "", {"a": 1}), bound(x, "", {"x-match": "all"})
    ch.basic_publish(x, "", b"bare")
    expect.empty(ch, wants)
    assert expect.bodies(ch, takes_all, 1) == [b"bare"]


def test_a_bad_x_match_is_refused_with_406(ch, exchange, name):
    x = exchange("headers")
    queue = ch.queue_declare(name(), exclusive=True).method.queue
    with expect.channel_error(406, re.compile("PRECONDITION_FAILED - .*x-match.*")):
        ch.queue_bind(queue, x, "", {"x-match": "most", "a": 1})


def test_binding_twice_is_one_binding(ch, exchange, bound):
    x = exchange("direct")
    queue = bound(x, "k")
    ch.queue_bind(queue, x, "k")
    ch.basic_publish(x, "k", b"once")
    assert expect.bodies(ch, queue, 1) == [b"once"]
    expect.empty(ch, queue)
    ch.queue_unbind(queue, x, "k")
    ch.basic_publish(x, "k", b"gone")
    expect.empty(ch, queue)


def test_bindings_that_differ_in_arguments_are_two(ch, exchange, bound):
    x = exchange("direct")
    queue = bound(x, "k", {"note": 1})
    ch.queue_bind(queue, x, "k", {"note": 2})
    ch.queue_unbind(queue, x, "k", {"note": 1})
    ch.basic_publish(x, "k", b"by the second")
    assert expect.bodies(ch, queue, 1) == [b"by the second"]
    ch.queue_unbind(queue, x, "k", {"note": 2})
    ch.basic_publish(x, "k", b"by none")
    expect.empty(ch, queue)


def test_unbinding_what_is_not_bound_is_fine(ch, exchange, queue):
    ch.queue_unbind(queue, exchange("direct"), "never bound")


def test_exchange_to_exchange_binding_routes_by_both(ch, exchange, bound):
    source, target = exchange("direct"), exchange("topic")
    ch.exchange_bind(target, source, "a.b")
    queue = bound(target, "a.*")
    ch.basic_publish(source, "a.b", b"through")
    ch.basic_publish(source, "a.c", b"not through the source")
    assert expect.bodies(ch, queue, 1) == [b"through"]
    expect.empty(ch, queue)
    ch.exchange_unbind(target, source, "a.b")
    ch.basic_publish(source, "a.b", b"no longer")
    expect.empty(ch, queue)


def test_a_cycle_of_exchanges_delivers_once(ch, exchange, bound):
    one, two, three = (exchange("fanout") for _ in range(3))
    ch.exchange_bind(two, one)
    ch.exchange_bind(three, two)
    ch.exchange_bind(one, three)
    queue = bound(one)
    ch.queue_bind(queue, three, "")
    ch.basic_publish(two, "", b"round")
    assert expect.bodies(ch, queue, 1) == [b"round"]
    expect.empty(ch, queue)


def test_alternate_exchange_takes_what_matches_nothing(ch, exchange, bound):
    last = exchange("fanout")
    middle = exchange("direct", arguments={"alternate-exchange": last})
    first = exchange("direct", arguments={"alternate-exchange": middle})
    at_first, at_middle, at_last = bound(first, "1"), bound(middle, "2"), bound(last)
    for key in ("1", "2", "3"):
        ch.basic_publish(first, key, key.encode())
    assert expect.bodies(ch, at_first, 1) == [b"1"]
    assert expect.bodies(ch, at_middle, 1) == [b"2"]
    assert expect.bodies(ch, at_last, 1) == [b"3"]
    for queue in (at_first, at_middle, at_last):
        expect.empty(ch, queue)


def test_alternate_exchange_counts_as_routed_for_mandatory(ch, exchange, bound, name):
    alternate = exchange("fanout")
    first = exchange("direct", arguments={"alternate-exchange": alternate})
    bound(alternate)
    returned = []
    ch.add_on_return_callback(lambda *parts: returned.append(parts))
    ch.basic_publish(first, "nowhere", b"caught", mandatory=True)
    ch.queue_declare("", exclusive=True)
    ch.connection.process_data_events(time_limit=0.05)
    assert returned == []


def test_a_missing_alternate_exchange_loses_only_what_matches_nothing(ch, exchange, bound, name):
    x = exchange("direct", arguments={"alternate-exchange": name("missing")})
    queue = bound(x, "k")
    ch.basic_publish(x, "nowhere", b"lost")
    ch.basic_publish(x, "k", b"kept")
    assert expect.bodies(ch, queue, 1) == [b"kept"]


@pytest.mark.parametrize("standard, kind", [
    ("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.topic", "topic"),
    ("amq.headers", "headers"), ("amq.match", "headers")])
def test_standard_exchanges_exist(ch, standard, kind, name):
    ch.exchange_declare(standard, kind, passive=True)
    ch.exchange_declare(standard, kind, durable=True)
    queue = ch.queue_declare(name(), exclusive=True).method.queue
    key = name("key")
    ch.queue_bind(queue, standard, key, {"a": key})
    ch.basic_publish(standard, key, b"m", spec.BasicProperties(headers={"a": key}))
    assert expect.get(ch, queue)[2] == b"m"


def test_declaring_an_exchange_again_is_fine_when_it_is_equal(ch, name):
    x = name("x")
    for _ in range(2):
        ch.exchange_declare(x, "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
    ch.exchange_declare(x, "fanout", passive=True)  # a passive one asks for the name only


@pytest.mark.parametrize("change, what", [
    (dict(exchange_type="fanout"), "'type' for exchange '{}' in vhost '/': "
                                   "received 'fanout' but current is 'direct'"),
    (dict(durable=True), "'durable' for exchange '{}' in vhost '/': "
                         "received 'true' but current is 'false'"),
    (dict(auto_delete=True), "'auto_delete' for exchange '{}' in vhost '/': "
                             "received 'true' but current is 'false'"),
    (dict(internal=True), "'internal' for exchange '{}' in vhost '/': "
                          "received 'true' but current is 'false'"),
    (dict(arguments={"alternate-exchange": "other"}),
     "'alternate-exchange' for exchange '{}' in vhost '/': "
     "received the value 'other' of type 'longstr' but current is none"),
])
def test_an_unequal_exchange_declare_is_refused_with_406(ch, exchange, change, what):
    x = exchange("direct")
    with expect.channel_error(406, "PRECONDITION_FAILED - inequivalent arg " + what.format(x)):
        ch.exchange_declare(**{"exchange": x, "exchange_type": "direct", **change})


def test_exchange_arguments_that_nobody_knows_are_not_compared(ch, exchange):
    x = exchange("direct", arguments={"note": 1})
    ch.exchange_declare(x, "direct", arguments={"note": 2})


def test_an_unknown_exchange_type_is_refused(connection, name):
    kind = "x-no-such-type"
    if expect.before_4():
        with expect.connection_error(503, f"COMMAND_INVALID - unknown exchange type '{kind}'"):
            connection.channel().exchange_declare(name("x"), kind)
    else:
        with expect.channel_error(406, f"PRECONDITION_FAILED - unknown exchange type '{kind}'"):
            connection.channel().exchange_declare(name("x"), kind)


def test_a_passive_declare_of_a_missing_exchange_is_404(ch, name):
    x = name("x")
    with expect.channel_error(404, f"NOT_FOUND - no exchange '{x}' in vhost '/'"):
        ch.exchange_declare(x, "direct", passive=True)


def test_reserved_exchange_names_are_refused_with_403(ch):
    with expect.channel_error(403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved "
                                   "prefix 'amq.*'"):
        ch.exchange_declare("amq.mine", "direct")


DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"


@pytest.mark.parametrize("method", [
    spec.Exchange.Declare(exchange="", type="direct"),
    spec.Exchange.Delete(exchange=""),
    spec.Queue.Bind(queue="q", exchange="", routing_key="k"),
    spec.Queue.Unbind(queue="q", exchange="", routing_key="k"),
    spec.Exchange.Bind(destination="", source="amq.direct", routing_key="k"),
    spec.Exchange.Bind(destination="amq.direct", source="", routing_key="k"),
], ids=["declare", "delete", "bind", "unbind", "as destination", "as source"])
def test_the_default_exchange_cannot_be_changed(wire, name, method):
    peer = wire().login()
    peer.open_channel()
    if hasattr(method, "queue"):
        method.queue = peer.declare(1, name(), exclusive=True).queue
    peer.method(1, method)
    close = peer.expect(spec.Channel.Close)
    assert (close.reply_code, close.reply_text) == (403, DEFAULT_EXCHANGE)
    assert (close.class_id, close.method_id) == divmod(method.INDEX, 65536)


def test_binding_a_missing_queue_is_404(ch, exchange, name):
    missing = name()
    with expect.channel_error(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"):
        ch.queue_bind(missing, exchange("direct"), "k")


def test_binding_to_a_missing_exchange_is_404(ch, queue, name):
    missing = name("x")
    with expect.channel_error(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        ch.queue_bind(queue, missing, "k")


def test_exchange_bind_to_a_missing_one_is_404(ch, exchange, name):
    missing = name("x")
    with expect.channel_error(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        ch.exchange_bind(exchange("direct"), missing, "k")


def test_publishing_to_a_missing_exchange_is_404(ch, name):
    missing = name("x")
    with expect.channel_error(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        ch.basic_publish(missing, "k", b"m")
        ch.queue_declare("", exclusive=True)


def test_publishing_to_an_internal_exchange_is_403(ch, exchange):
    x = exchange("direct", internal=True)
    with expect.channel_error(403, f"ACCESS_REFUSED - cannot publish to internal exchange '{x}' "
                                   "in vhost '/'"):
        ch.basic_publish(x, "k", b"m")
        ch.queue_declare("", exclusive=True)


def test_an_internal_exchange_routes_what_other_exchanges_send(ch, exchange, bound):
    outer, inner = exchange("fanout"), exchange("fanout", internal=True)
    ch.exchange_bind(inner, outer)
    queue = bound(inner)
    ch.basic_publish(outer, "", b"inside")
    assert expect.bodies(ch, queue, 1) == [b"inside"]


def test_delete_if_unused_refuses_a_bound_exchange(ch, exchange, bound, connection):
    x = exchange("direct")
    queue = bound(x, "k")
    with expect.channel_error(406, f"PRECONDITION_FAILED - exchange '{x}' in vhost '/' in use"):
        ch.exchange_delete(x, if_unused=True)
    ch = connection.channel()
    ch.queue_unbind(queue, x, "k")
    ch.exchange_delete(x, if_unused=True)
    with expect.channel_error(404, f"NOT_FOUND - no exchange '{x}' in vhost '/'"):
        ch.exchange_declare(x, passive=True)


def test_deleting_a_missing_exchange_is_fine(ch, name):
    ch.exchange_delete(name("x"))


def test_deleting_an_exchange_takes_its_bindings(ch, name, queue):
    x = name("x")
    ch.exchange_declare(x, "fanout")
    ch.queue_bind(queue, x)
    ch.exchange_delete(x)
    ch.exchange_declare(x, "fanout")
    ch.basic_publish(x, "", b"to nobody")
    expect.empty(ch, queue)


def test_an_auto_delete_exchange_goes_with_its_last_binding(ch, exchange, bound, connection):
    x = exchange("direct", auto_delete=True)
    first = bound(x, "1")
    second = bound(x, "2")
    ch.queue_unbind(first, x, "1")
    ch.exchange_declare(x, passive=True)
    ch.queue_delete(second)
    with expect.channel_error(404, f"NOT_FOUND - no exchange '{x}' in vhost '/'"):
        ch.exchange_declare(x, passive=True)


def test_an_auto_delete_exchange_goes_with_its_last_target_exchange(ch, exchange):
    x, target = exchange("direct", auto_delete=True), exchange("fanout")
    ch.exchange_bind(target, x, "k")
    ch.exchange_delete(target)
    with expect.channel_error(404, f"NOT_FOUND - no exchange '{x}' in vhost '/'"):
        ch.exchange_declare(x, passive=True)


def test_cc_and_bcc_route_to_more_keys_and_bcc_is_taken_out(ch, exchange, bound):
    x = exchange("direct")
    queues = [bound(x, key) for key in ("to", "cc", "bcc")]
    ch.basic_publish(x, "to", b"m", spec.BasicProperties(
        headers={"CC": ["cc", "nowhere"], "BCC": ["bcc"], "other": 1}))
    for queue in queues:
        method, properties, body = expect.get(ch, queue)
        assert body == b"m"
        assert method.routing_key == "to"
        assert properties.headers == {"CC": ["cc", "nowhere"], "other": 1}
        expect.empty(ch, queue)
