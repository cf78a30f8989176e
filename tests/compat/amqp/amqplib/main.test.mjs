// amqplib against the broker: a sample of what the pika suite asks in full.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import amqp from "amqplib";
import { address, channel, consume, exclusiveQueue, fresh, get, open, pause, until, url } from "./kit.mjs";

const failsWith = (code, text) => (error) => {
  assert.equal(error.code, code, error.message);
  assert.ok(error.message.includes(text), error.message);
  return true;
};

test("connects as guest and sees what the server is", async (t) => {
  const connection = await open(t);
  const { product, version, capabilities } = connection.connection.serverProperties;
  assert.ok(product && version);
  assert.equal(capabilities.publisher_confirms, true);
  assert.equal(capabilities["basic.nack"], true);
});

test("a wrong password is refused with 403", async () => {
  await assert.rejects(amqp.connect(`amqp://guest:wrong@${address}`), /403 \(ACCESS[-_]REFUSED\).*ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN/s);
});

test("a missing vhost is refused", async () => {
  await assert.rejects(amqp.connect(`${url}/no-such-vhost`), /Expected ConnectionOpenOk; got <ConnectionClose channel:0>/);
});

test("frameMax, channelMax and heartbeat are negotiated", async (t) => {
  const connection = await open(t, "?frameMax=8192&channelMax=20&heartbeat=5");
  const ch = await channel(connection);
  const queue = await exclusiveQueue(ch);
  const body = randomBytes(50000);
  ch.sendToQueue(queue, body);
  assert.deepEqual((await get(ch, queue)).content, body);
  assert.equal(connection.connection.frameMax, 8192);
  assert.equal(connection.connection.heartbeat, 5);
});

test("all properties and nested headers arrive", async (t) => {
  const ch = await channel(await open(t));
  const queue = await exclusiveQueue(ch);
  const headers = {
    text: "가입", yes: true, no: false, nothing: null, small: -7, big: 2 ** 40, real: 1.5,
    bytes: Buffer.from([0, 255]), list: [1, "two", [3, { four: 4 }]], table: { a: { b: { c: "deep" } } },
    moment: { "!": "timestamp", value: 1709208000 }, price: { "!": "decimal", value: { digits: 12345, places: 2 } },
    tiny: { "!": "byte", value: -3 }, short: { "!": "short", value: -300 }, wide: { "!": "long", value: 2 ** 33 },
    single: { "!": "float", value: 0.5 },
  };
  ch.publish("", queue, Buffer.from("body"), {
    contentType: "application/json", contentEncoding: "utf-8", headers, persistent: true, priority: 5,
    correlationId: "c", replyTo: "r", expiration: 60000, messageId: "m", timestamp: 1709208000, type: "t",
    userId: "guest", appId: "a",
  });
  const message = await get(ch, queue);
  assert.equal(message.content.toString(), "body");
  const p = message.properties;
  assert.deepEqual(
    [p.contentType, p.contentEncoding, p.deliveryMode, p.priority, p.correlationId, p.replyTo, p.expiration,
      p.messageId, p.timestamp, p.type, p.userId, p.appId],
    ["application/json", "utf-8", 2, 5, "c", "r", "60000", "m", 1709208000, "t", "guest", "a"]);
  const plain = { ...headers, tiny: -3, short: -300, wide: 2 ** 33, single: 0.5 };
  assert.deepEqual(JSON.parse(JSON.stringify(p.headers)), JSON.parse(JSON.stringify(plain)));
});

test("direct, fanout, topic and headers exchanges route", async (t) => {
  const ch = await channel(await open(t));
  const routes = [
    ["direct", "k", {}, "k", {}], ["fanout", "", {}, "anything", {}], ["topic", "a.*.#", {}, "a.b.c.d", {}],
    ["headers", "", { "x-match": "any", colour: "red", size: 5 }, "", { size: 5 }],
  ];
  for (const [kind, pattern, args, key, headers] of routes) {
    const x = fresh(kind);
    await ch.assertExchange(x, kind, { durable: false, autoDelete: true });
    const hit = await exclusiveQueue(ch);
    const miss = await exclusiveQueue(ch);
    await ch.bindQueue(hit, x, pattern, args);
    if (kind !== "fanout") await ch.bindQueue(miss, x, "other", { "x-match": "all", colour: "blue" });
    ch.publish(x, key, Buffer.from(kind), { headers });
    assert.equal((await get(ch, hit)).content.toString(), kind);
    assert.equal(await ch.get(miss), false);
  }
});

test("exchange to exchange bindings and an alternate exchange", async (t) => {
  const ch = await channel(await open(t));
  const [source, target, alternate] = [fresh("source"), fresh("target"), fresh("alternate")];
  await ch.assertExchange(alternate, "fanout", { autoDelete: true });
  await ch.assertExchange(source, "direct", { autoDelete: true, alternateExchange: alternate });
  await ch.assertExchange(target, "fanout", { autoDelete: true });
  await ch.bindExchange(target, source, "go");
  const [through, rest] = [await exclusiveQueue(ch), await exclusiveQueue(ch)];
  await ch.bindQueue(through, target, "");
  await ch.bindQueue(rest, alternate, "");
  ch.publish(source, "go", Buffer.from("1"));
  ch.publish(source, "stay", Buffer.from("2"));
  assert.equal((await get(ch, through)).content.toString(), "1");
  assert.equal((await get(ch, rest)).content.toString(), "2");
  await ch.unbindExchange(target, source, "go");
});

test("consume, ack, nack and reject", async (t) => {
  const ch = await channel(await open(t));
  const queue = await exclusiveQueue(ch);
  for (const word of ["ack", "requeue", "drop"]) ch.sendToQueue(queue, Buffer.from(word));
  const consumer = await consume(ch, queue, {}, (message) => {
    const word = message.content.toString();
    if (word === "drop") ch.reject(message, false);
    else if (word === "requeue" && !message.fields.redelivered) ch.nack(message, false, true);
    else ch.ack(message);
  });
  await consumer.wait(4);
  assert.deepEqual(consumer.bodies(), ["ack", "requeue", "drop", "requeue"]);
  assert.equal(consumer.messages[3].fields.redelivered, true);
  await ch.cancel(consumer.consumerTag);
  assert.equal(await ch.get(queue), false);
});

test("prefetch holds deliveries back, per consumer and per channel", async (t) => {
  const connection = await open(t);
  for (const [global, held] of [[false, 4], [true, 2]]) {
    const ch = await channel(connection);
    const queue = await exclusiveQueue(ch);
    await ch.prefetch(2, global);
    const [one, two] = [await consume(ch, queue), await consume(ch, queue)];
    const delivered = () => one.messages.length + two.messages.length;
    for (let number = 0; number < 6; number++) ch.sendToQueue(queue, Buffer.from(`${number}`));
    await until(() => delivered() >= held, "the first deliveries");
    await pause(100);
    assert.equal(delivered(), held);
    ch.ackAll();
    await until(() => delivered() >= Math.min(6, 2 * held), "deliveries after the ack");
  }
});

test("messages go round among consumers", async (t) => {
  const ch = await channel(await open(t));
  const queue = await exclusiveQueue(ch);
  const consumers = [];
  for (let number = 0; number < 3; number++) consumers.push(await consume(ch, queue, { noAck: true }));
  for (let number = 0; number < 30; number++) ch.sendToQueue(queue, Buffer.from(`${number}`));
  await until(() => consumers.reduce((sum, c) => sum + c.messages.length, 0) === 30, "all deliveries");
  assert.deepEqual(consumers.map((c) => c.messages.length), [10, 10, 10]);
});

test("cancel, and null for a consumer whose queue is deleted", async (t) => {
  const ch = await channel(await open(t));
  const queue = await exclusiveQueue(ch);
  const consumer = await consume(ch, queue);
  await ch.deleteQueue(queue);
  await consumer.wait(1);
  assert.deepEqual(consumer.messages, [null]);
  await ch.cancel("never seen");
});

test("a confirm channel confirms each message and all", async (t) => {
  const ch = await channel(await open(t), "createConfirmChannel");
  const queue = (await ch.assertQueue(fresh(), { durable: true })).queue;
  t.after(() => ch.deleteQueue(queue).catch(() => {}));
  let confirmed = 0;
  for (let number = 0; number < 500; number++) {
    ch.sendToQueue(queue, Buffer.from(`${number}`), { persistent: true }, (error) => {
      assert.equal(error, null);
      confirmed++;
    });
  }
  await ch.waitForConfirms();
  assert.equal(confirmed, 500);
  assert.equal((await ch.checkQueue(queue)).messageCount, 500);
  await ch.deleteQueue(queue);
});

test("a full queue that rejects makes the confirm fail", async (t) => {
  const ch = await channel(await open(t), "createConfirmChannel");
  const queue = await exclusiveQueue(ch, { maxLength: 1, arguments: { "x-overflow": "reject-publish" } });
  ch.sendToQueue(queue, Buffer.from("fits"));
  await ch.waitForConfirms();
  ch.sendToQueue(queue, Buffer.from("does not"));
  await assert.rejects(ch.waitForConfirms());
});

test("a mandatory message comes back before its confirm", async (t) => {
  const ch = await channel(await open(t), "createConfirmChannel");
  const events = [];
  ch.on("return", (message) => events.push(`return ${message.fields.replyCode} ${message.fields.replyText} ${message.content}`));
  ch.publish("amq.direct", fresh(), Buffer.from("back"), { mandatory: true }, () => events.push("confirm"));
  await ch.waitForConfirms();
  assert.deepEqual(events, ["return 312 NO_ROUTE back", "confirm"]);
});

test("server-named, exclusive and auto-delete queues", async (t) => {
  const connection = await open(t);
  const ch = await channel(connection);
  const { queue } = await ch.assertQueue("", { exclusive: true });
  assert.match(queue, /^amq\.gen-/);
  const other = await channel(await open(t));
  await assert.rejects(other.checkQueue(queue), failsWith(405, `RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${queue}' in vhost '/'`));
  const short = (await ch.assertQueue(fresh(), { autoDelete: true, durable: false })).queue;
  const { consumerTag } = await ch.consume(short, () => {});
  await ch.cancel(consumerTag);
  await assert.rejects(ch.checkQueue(short), failsWith(404, `NOT_FOUND - no queue '${short}' in vhost '/'`));
});

test("errors close the channel with code and text, and not the connection", async (t) => {
  const connection = await open(t);
  const missing = fresh();
  const queue = await exclusiveQueue(await channel(connection));
  const cases = [
    [(ch) => ch.checkQueue(missing), 404, `NOT_FOUND - no queue '${missing}' in vhost '/'`],
    [(ch) => ch.checkExchange(missing), 404, `NOT_FOUND - no exchange '${missing}' in vhost '/'`],
    [(ch) => ch.assertQueue(queue, { exclusive: true, messageTtl: 5 }), 406,
      `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '${queue}' in vhost '/': received`],
    [(ch) => ch.assertQueue("amq.mine"), 403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"],
    [(ch) => ch.assertExchange("amq.direct", "fanout"), 406,
      "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'fanout' but current is 'direct'"],
    [(ch) => ch.consume(missing, () => {}), 404, `NOT_FOUND - no queue '${missing}' in vhost '/'`],
    [(ch) => ch.get(missing), 404, `NOT_FOUND - no queue '${missing}' in vhost '/'`],
  ];
  for (const [act, code, text] of cases) {
    const ch = await channel(connection);
    await assert.rejects(act(ch), failsWith(code, text));
    assert.equal((await ch.failure).code, code);
  }
  assert.ok(await channel(connection));
});

test("an unknown delivery tag and a missing exchange are told by an event", async (t) => {
  const connection = await open(t);
  const acking = await channel(connection);
  acking.ack({ fields: { deliveryTag: 7 } });
  failsWith(406, "PRECONDITION_FAILED - unknown delivery tag 7")(await acking.failure);
  const publishing = await channel(connection);
  const missing = fresh("x");
  publishing.publish(missing, "k", Buffer.from("m"));
  failsWith(404, `NOT_FOUND - no exchange '${missing}' in vhost '/'`)(await publishing.failure);
});

test("using a consumer tag twice ends the connection with 530", async (t) => {
  const connection = await open(t);
  const ended = new Promise((resolve) => connection.once("error", resolve));
  const ch = await channel(connection);
  const queue = await exclusiveQueue(ch);
  await ch.consume(queue, () => {}, { consumerTag: "c" });
  await assert.rejects(ch.consume(queue, () => {}, { consumerTag: "c" }));
  failsWith(530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'")(await ended);
});

test("large bodies arrive whole; one over the limit is refused", async (t) => {
  const connection = await open(t);
  const ch = await channel(connection);
  const queue = await exclusiveQueue(ch);
  for (const size of [0, 131064, 131065, 1 << 20, 15 << 20]) {
    const body = randomBytes(size);
    ch.sendToQueue(queue, body);
    assert.ok((await get(ch, queue)).content.equals(body), `${size} bytes`);
  }
  ch.sendToQueue(queue, Buffer.alloc((16 << 20) + 1));
  failsWith(406, "is larger than configured max size 16777216")(await ch.failure);
});

test("message TTL, dead letters and x-death", async (t) => {
  const ch = await channel(await open(t));
  const dead = await exclusiveQueue(ch);
  const queue = await exclusiveQueue(ch, { deadLetterExchange: "", deadLetterRoutingKey: dead, messageTtl: 60000 });
  ch.sendToQueue(queue, Buffer.from("expires"), { expiration: 50 });
  const expired = await get(ch, dead);
  assert.equal(expired.properties.expiration, undefined);
  assert.deepEqual([expired.properties.headers["x-death"][0].reason, expired.properties.headers["x-death"][0]["original-expiration"]],
    ["expired", "50"]);
  ch.sendToQueue(queue, Buffer.from("rejected"));
  ch.nack(await get(ch, queue, {}), false, false);
  const [death] = (await get(ch, dead)).properties.headers["x-death"];
  assert.deepEqual([death.count, death.reason, death.queue, death.exchange, death["routing-keys"]],
    [1, "rejected", queue, "", [queue]]);
});

test("queue TTL, purge, delete if unused and if empty", async (t) => {
  const connection = await open(t);
  const ch = await channel(connection);
  const expiring = (await ch.assertQueue(fresh(), { expires: 100, durable: false })).queue;
  const queue = await exclusiveQueue(ch);
  ch.sendToQueue(queue, Buffer.from("1"));
  ch.sendToQueue(queue, Buffer.from("2"));
  await until(async () => (await ch.checkQueue(queue)).messageCount === 2, "two messages");
  const guarded = await channel(connection);
  await assert.rejects(guarded.deleteQueue(queue, { ifEmpty: true }), failsWith(406, "not empty"));
  assert.equal((await ch.purgeQueue(queue)).messageCount, 2);
  await ch.consume(queue, () => {});
  const again = await channel(connection);
  await assert.rejects(again.deleteQueue(queue, { ifUnused: true }), failsWith(406, "in use"));
  await pause(500);
  await assert.rejects(ch.checkQueue(expiring), failsWith(404, "NOT_FOUND"));
});

test("recover gives unacked messages again", async (t) => {
  const ch = await channel(await open(t));
  const queue = await exclusiveQueue(ch);
  ch.sendToQueue(queue, Buffer.from("again"));
  const consumer = await consume(ch, queue);
  await consumer.wait(1);
  await ch.recover();
  await consumer.wait(2);
  assert.deepEqual(consumer.messages.map((message) => message.fields.redelivered), [false, true]);
});

test("ten channels with a consumer each keep their order", async (t) => {
  const connection = await open(t);
  const consumers = [];
  for (let number = 0; number < 10; number++) {
    const ch = await channel(connection);
    const queue = await exclusiveQueue(ch);
    consumers.push(await consume(ch, queue, { noAck: true }));
    for (let word = 0; word < 100; word++) ch.sendToQueue(queue, Buffer.from(`${number}:${word}`));
  }
  for (const [number, consumer] of consumers.entries()) {
    await consumer.wait(100);
    assert.deepEqual(consumer.bodies(), Array.from({ length: 100 }, (_, word) => `${number}:${word}`));
  }
});

test("a heartbeat of one second keeps an idle connection", async (t) => {
  const connection = await open(t, "?heartbeat=1");
  let closed = false;
  connection.on("close", () => (closed = true));
  await pause(3500);
  assert.equal(closed, false);
  await channel(connection);
});
