// amqplib over restarts of the broker, alone and with its own recovery.
import assert from "node:assert/strict";
import { test } from "node:test";
import amqp from "amqplib";
import { canRestart, channel, consume, fresh, open, restart, until, url } from "./kit.mjs";

const skip = !canRestart && "WEIR_COMPAT_RESTART is not set";

for (const how of ["term", "kill"]) {
  test(`a durable queue and its persistent messages survive (${how})`, { skip }, async (t) => {
    const connection = await open(t);
    const ch = await channel(connection, "createConfirmChannel");
    const queue = (await ch.assertQueue(fresh(), { durable: true })).queue;
    const transient = (await ch.assertQueue(fresh(), { durable: false })).queue;
    for (let number = 0; number < 100; number++) ch.sendToQueue(queue, Buffer.from(`${number}`), { persistent: true });
    ch.sendToQueue(queue, Buffer.from("transient"));
    await ch.waitForConfirms();
    const ended = new Promise((resolve) => connection.once("close", resolve));
    restart(how);
    const error = await ended;
    if (how === "term") assert.match(String(error?.message), /320 \(CONNECTION-FORCED\)|CONNECTION_FORCED/);

    const after = await channel(await open(t));
    t.after(() => after.deleteQueue(queue).catch(() => {}));
    const consumer = await consume(after, queue);
    await consumer.wait(100);
    assert.deepEqual(consumer.bodies(), Array.from({ length: 100 }, (_, number) => `${number}`));
    after.ackAll();
    await assert.rejects(after.checkQueue(transient), /404/);
  });
}

test("a recovering connection goes on by itself", { skip }, async (t) => {
  const queue = fresh();
  const got = [];
  let ch;
  const setup = async (connection) => {
    ch = await connection.createConfirmChannel();
    await ch.assertQueue(queue, { durable: true });
    await ch.consume(queue, (message) => {
      if (message === null) return; // the queue is deleted at the end
      got.push(message.content.toString());
      ch.ack(message);
    });
  };
  const connection = await amqp.connect(url, { recovery: { initialDelay: 50, maxDelay: 200, setup } });
  t.after(() => connection.close().catch(() => {}));
  connection.on("error", () => {});
  const first = ch;
  first.sendToQueue(queue, Buffer.from("before"), { persistent: true });
  await until(() => got.includes("before"), "the first delivery");
  restart("kill");
  await until(() => ch !== first, "the recovery", 20000);
  await until(async () => {
    ch.sendToQueue(queue, Buffer.from("after"), { persistent: true });
    await ch.waitForConfirms();
    return got.includes("after");
  }, "the delivery after the recovery");
  await ch.deleteQueue(queue);
});
