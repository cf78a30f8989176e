"""aio-pika: a sample of what the pika suite asks in full."""

import asyncio
import datetime
import decimal
import os

import aio_pika
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message
from aiormq.exceptions import (AMQPConnectionError, ChannelAccessRefused, ChannelInvalidStateError,
                               ChannelLockedResource, ChannelNotFoundEntity,
                               ChannelPreconditionFailed, DeliveryError, InvalidFrameError,
                               ProbableAuthenticationError, PublishError)


async def get(queue, no_ack=True, timeout_s=5):
    """The next message, waited for."""
    async with asyncio.timeout(timeout_s):
        while (message := await queue.get(no_ack=no_ack, fail=False)) is None:
            await asyncio.sleep(0.005)
    return message


async def until(condition, timeout_s=5):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def is_empty(queue):
    return await queue.get(no_ack=True, fail=False) is None


async def test_connects_and_opens_ten_channels(connection):
    channels = [await connection.channel() for _ in range(10)]
    numbers = [(await channel.get_underlay_channel()).number for channel in channels]
    assert len(set(numbers)) == 10


async def test_a_wrong_password_is_refused(url):
    with pytest.raises(ProbableAuthenticationError) as info:
        await aio_pika.connect(url.replace("guest:guest", "guest:wrong"))
    assert "Login was refused using authentication mechanism PLAIN" in str(info.value)


async def test_a_missing_vhost_is_refused(url):
    with pytest.raises(InvalidFrameError) as info:
        await aio_pika.connect(url + "no-such-vhost")
    assert "Connection.Close" in str(info.value)


async def test_properties_and_nested_headers_arrive(ch, queue):
    headers = {"text": "가입", "yes": True, "nothing": None, "number": -5, "big": 2**40, "real": 1.5,
               "bytes": bytearray(b"\x00\xff"), "price": decimal.Decimal("12.34"),
               "moment": datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc),
               "list": [1, "two", [3, {"four": 4}]], "table": {"a": {"b": {"c": ["deep"]}}}}
    moment = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)
    sent = Message(b"body", headers=headers, content_type="text/plain", content_encoding="utf-8",
                   delivery_mode=DeliveryMode.PERSISTENT, priority=4, correlation_id="c",
                   reply_to="r", expiration=60, message_id="m", timestamp=moment, type="t",
                   user_id="guest", app_id="a")
    await ch.default_exchange.publish(sent, queue.name)
    got = await get(queue)
    assert got.body == b"body"
    assert dict(got.headers) == headers
    for word in ("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id",
                 "reply_to", "message_id", "type", "user_id", "app_id"):
        assert getattr(got, word) == getattr(sent, word), word
    assert got.timestamp == moment
    assert float(got.expiration) == 60


@pytest.mark.parametrize("kind, pattern, key, miss", [
    (ExchangeType.DIRECT, "k", "k", "l"), (ExchangeType.FANOUT, "", "any", None),
    (ExchangeType.TOPIC, "a.*.#", "a.b.c", "b.b"), (ExchangeType.HEADERS, "", "", None)])
async def test_exchanges_route(ch, fresh, queue, kind, pattern, key, miss):
    x = await ch.declare_exchange(fresh("x"), kind, auto_delete=True)
    arguments = {"x-match": "all", "colour": "red"} if kind == ExchangeType.HEADERS else None
    await queue.bind(x, pattern, arguments=arguments)
    await x.publish(Message(b"hit", headers={"colour": "red"}), key)
    assert (await get(queue)).body == b"hit"
    if miss is not None or arguments:
        await x.publish(Message(b"miss", headers={"colour": "blue"}), miss or "", mandatory=False)
        assert await is_empty(queue)


async def test_exchange_to_exchange_and_alternate_exchange(ch, fresh):
    alternate = await ch.declare_exchange(fresh("alt"), ExchangeType.FANOUT, auto_delete=True)
    source = await ch.declare_exchange(fresh("source"), ExchangeType.DIRECT, auto_delete=True,
                                       arguments={"alternate-exchange": alternate.name})
    target = await ch.declare_exchange(fresh("target"), ExchangeType.FANOUT, auto_delete=True)
    await target.bind(source, "go")
    through, rest = [await ch.declare_queue(fresh(), exclusive=True) for _ in range(2)]
    await through.bind(target)
    await rest.bind(alternate)
    await source.publish(Message(b"1"), "go")
    await source.publish(Message(b"2"), "stay")
    assert (await get(through)).body == b"1"
    assert (await get(rest)).body == b"2"


async def test_publishes_are_confirmed_one_by_one_and_together(ch, queue):
    for number in range(20):
        await ch.default_exchange.publish(Message(b"%d" % number), queue.name)
    await asyncio.gather(*[
        ch.default_exchange.publish(Message(b"%d" % number, delivery_mode=2), queue.name)
        for number in range(20, 520)])
    got = [int((await get(queue)).body) for _ in range(520)]
    assert got == list(range(520))


async def test_an_unroutable_mandatory_message_fails_its_publish(connection, fresh):
    ch = await connection.channel(on_return_raises=True)
    with pytest.raises(PublishError) as info:
        await ch.default_exchange.publish(Message(b"m"), fresh())
    assert "NO_ROUTE" in str(info.value)


async def test_a_nack_of_the_broker_fails_its_publish(ch, fresh):
    queue = await ch.declare_queue(fresh(), exclusive=True, arguments={
        "x-max-length": 1, "x-overflow": "reject-publish"})
    await ch.default_exchange.publish(Message(b"fits"), queue.name)
    with pytest.raises(DeliveryError):
        await ch.default_exchange.publish(Message(b"does not"), queue.name)


async def test_ack_nack_and_reject(ch, queue):
    for word in (b"ack", b"requeue", b"drop"):
        await ch.default_exchange.publish(Message(word), queue.name)
    seen = []

    async def handle(message):
        seen.append((message.body, message.redelivered))
        if message.body == b"drop":
            await message.reject(requeue=False)
        elif message.body == b"requeue" and not message.redelivered:
            await message.nack(requeue=True)
        else:
            await message.ack()

    tag = await queue.consume(handle)
    await until(lambda: len(seen) == 4)
    await queue.cancel(tag)
    assert seen == [(b"ack", False), (b"requeue", False), (b"drop", False), (b"requeue", True)]
    assert await is_empty(queue)


async def test_the_iterator_and_process_settle_messages(ch, queue):
    for number in range(10):
        await ch.default_exchange.publish(Message(b"%d" % number), queue.name)
    got = []
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                got.append(int(message.body))
            if len(got) == 10:
                break
    assert got == list(range(10))
    assert await is_empty(queue)


async def test_prefetch_holds_deliveries_back(ch, queue):
    await ch.set_qos(prefetch_count=3)
    held = []

    async def hold(message):
        held.append(message)

    await queue.consume(hold)
    for number in range(6):
        await ch.default_exchange.publish(Message(b"%d" % number), queue.name)
    await until(lambda: len(held) == 3)
    await asyncio.sleep(0.1)
    assert len(held) == 3
    await held[-1].ack(multiple=True)
    await until(lambda: len(held) == 6)


async def test_errors_name_code_and_text(connection, fresh):
    name = fresh()
    owner = await connection.channel()
    await owner.declare_queue(name)
    missing = fresh()
    cases = [
        (ChannelNotFoundEntity, f"NOT_FOUND - no queue '{missing}' in vhost '/'",
         lambda ch: ch.declare_queue(missing, passive=True)),
        (ChannelNotFoundEntity, f"NOT_FOUND - no exchange '{missing}' in vhost '/'",
         lambda ch: ch.declare_exchange(missing, passive=True)),
        (ChannelPreconditionFailed, f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue "
         f"'{name}' in vhost '/': received 'true' but current is 'false'",
         lambda ch: ch.declare_queue(name, durable=True)),
        (ChannelAccessRefused, "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'",
         lambda ch: ch.declare_queue("amq.x")),
    ]
    for kind, text, act in cases:
        ch = await connection.channel()
        with pytest.raises(kind) as info:
            await act(ch)
        assert text in str(info.value)
    await owner.queue_delete(name)


async def test_an_exclusive_queue_is_locked_for_others(url, queue):
    async with await aio_pika.connect(url) as other:
        with pytest.raises(ChannelLockedResource) as info:
            await (await other.channel()).declare_queue(queue.name, exclusive=True)
        assert f"cannot obtain exclusive access to locked queue '{queue.name}'" in str(info.value)


async def test_server_named_queues(ch):
    names = [(await ch.declare_queue(exclusive=True)).name for _ in range(2)]
    assert names[0] != names[1]
    declared = await ch.declare_queue("", exclusive=True)
    assert declared.name.startswith(("amq.gen-", "amq_"))


async def test_acking_twice_is_an_unknown_delivery_tag(connection, queue):
    ch = await connection.channel()
    mine = await ch.declare_queue(queue.name, exclusive=True)
    await ch.default_exchange.publish(Message(b"m"), queue.name)
    message = await get(mine, no_ack=False)
    closed = asyncio.get_running_loop().create_future()
    ch.close_callbacks.add(lambda _, error: closed.done() or closed.set_result(error))
    raw = await ch.get_underlay_channel()
    await raw.basic_ack(message.delivery_tag)
    await raw.basic_ack(message.delivery_tag)
    error = await asyncio.wait_for(closed, 5)
    assert f"unknown delivery tag {message.delivery_tag}" in str(error)


@pytest.mark.parametrize("size", [0, 131065, 1 << 20, 15 << 20])
async def test_large_bodies_arrive(ch, queue, size):
    body = os.urandom(size)
    await ch.default_exchange.publish(Message(body), queue.name)
    assert (await get(queue, timeout_s=20)).body == body


async def test_a_body_over_the_limit_is_refused(ch, queue):
    with pytest.raises((ChannelPreconditionFailed, ChannelInvalidStateError, DeliveryError)) as info:
        await ch.default_exchange.publish(Message(bytes((16 << 20) + 1)), queue.name)
    assert "larger than configured max size 16777216" in str(info.value)


async def test_expired_and_rejected_messages_are_dead_lettered(ch, queue, fresh):
    source = await ch.declare_queue(fresh(), exclusive=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue.name})
    await ch.default_exchange.publish(Message(b"expires", expiration=0.05), source.name)
    (death,) = (await get(queue)).headers["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("expired", source.name, 1)
    await ch.default_exchange.publish(Message(b"rejected"), source.name)
    await (await get(source, no_ack=False)).reject(requeue=False)
    (death,) = (await get(queue)).headers["x-death"]
    assert (death["reason"], death["routing-keys"]) == ("rejected", [source.name])


async def test_an_rpc_pattern_answers_calls(connection, fresh):
    """aio-pika's own RPC: reply queues, correlation ids, a dead-letter exchange for lost calls."""
    from aio_pika.patterns import RPC
    rpc = await RPC.create(await connection.channel())

    async def multiply(*, x, y):
        return x * y

    name = fresh("multiply")
    await rpc.register(name, multiply, auto_delete=True)
    results = await asyncio.gather(*[rpc.call(name, {"x": number, "y": 3}) for number in range(20)])
    assert results == [number * 3 for number in range(20)]
    await rpc.close()


async def test_a_transaction_commits_and_rolls_back(connection, queue):
    ch = await connection.channel(publisher_confirms=False)
    async with ch.transaction():
        await ch.default_exchange.publish(Message(b"committed"), queue.name)
        assert await is_empty(queue)
    assert (await get(queue)).body == b"committed"
    with pytest.raises(ZeroDivisionError):
        async with ch.transaction():
            await ch.default_exchange.publish(Message(b"rolled back"), queue.name)
            raise ZeroDivisionError
    assert await is_empty(queue)


async def test_a_heartbeat_of_two_seconds_keeps_an_idle_connection(url):
    async with await aio_pika.connect(url, heartbeat=2) as connection:
        ch = await connection.channel()
        await asyncio.sleep(5)
        assert not connection.is_closed
        assert (await ch.declare_queue(exclusive=True)).name


@pytest.mark.parametrize("how", ["term", "kill"])
async def test_a_robust_connection_goes_on_after_a_restart(url, restart, fresh, how):
    got = []
    async with await aio_pika.connect_robust(url, reconnect_interval=0.2) as connection:
        ch = await connection.channel()
        queue = await ch.declare_queue(fresh(), durable=True)
        exclusive = await ch.declare_queue(fresh(), exclusive=True)
        x = await ch.declare_exchange(fresh("x"), ExchangeType.FANOUT, auto_delete=True)
        await exclusive.bind(x)

        async def handle(message):
            got.append(message.body)
            await message.ack()

        await queue.consume(handle)
        await exclusive.consume(handle)
        await ch.default_exchange.publish(Message(b"before", delivery_mode=2), queue.name)
        await until(lambda: b"before" in got)
        await restart(how)

        async def try_publish(exchange, key, body):
            try:
                await asyncio.wait_for(exchange.publish(Message(body, delivery_mode=2), key), 2)
            except (AMQPConnectionError, ChannelInvalidStateError, TimeoutError, PublishError,
                    ConnectionError, asyncio.CancelledError, RuntimeError):
                await asyncio.sleep(0.1)

        async with asyncio.timeout(30):
            while b"after" not in got:
                await try_publish(ch.default_exchange, queue.name, b"after")
            while b"through the exchange" not in got:
                await try_publish(x, "", b"through the exchange")
        await queue.delete(if_unused=False, if_empty=False)


@pytest.mark.parametrize("how", ["term", "kill"])
async def test_persistent_messages_of_a_durable_queue_survive(url, restart, fresh, how):
    name = fresh()
    async with await aio_pika.connect(url) as connection:
        ch = await connection.channel()
        queue = await ch.declare_queue(name, durable=True)
        for number in range(50):
            await ch.default_exchange.publish(
                Message(b"%d" % number, delivery_mode=DeliveryMode.PERSISTENT), name)
        await ch.default_exchange.publish(Message(b"transient"), name)
    await restart(how)
    async with await aio_pika.connect(url) as connection:
        ch = await connection.channel()
        queue = await ch.declare_queue(name, passive=True)
        assert queue.declaration_result.message_count == 50
        assert [int((await get(queue)).body) for _ in range(50)] == list(range(50))
        await queue.delete()
