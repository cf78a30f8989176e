// What the tests share: the broker's address, fresh names, connections that close with their test.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import amqp from "amqplib";

export const address = process.env.WEIR_COMPAT_AMQP;
if (!address) throw new Error("WEIR_COMPAT_AMQP is not set: run under tests/harness/with_weir.py");
export const url = `amqp://guest:guest@${address}`;

export const fresh = (word = "q") => `${word}-${randomBytes(6).toString("hex")}`;

export async function open(t, options = "") {
  const connection = await amqp.connect(url + options);
  connection.on("error", () => {});
  t.after(() => connection.close().catch(() => {}));
  return connection;
}

/** A channel whose errors are kept instead of thrown: `channel.failure` is a promise of the first. */
export async function channel(connection, kind = "createChannel") {
  const ch = await connection[kind]();
  ch.failure = new Promise((resolve) => ch.once("error", resolve));
  return ch;
}

export async function exclusiveQueue(ch, options = {}) {
  return (await ch.assertQueue(fresh(), { exclusive: true, ...options })).queue;
}

/** Waits until condition() is true. */
export async function until(condition, what, timeoutMs = 5000) {
  const end = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`${what} did not come true within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The next message, waited for. */
export async function get(ch, queue, options = { noAck: true }) {
  let message;
  await until(async () => (message = await ch.get(queue, options)), `a message in ${queue}`);
  return message;
}

/** A consumer that keeps what it is given. */
export async function consume(ch, queue, options = {}, onMessage = () => {}) {
  const messages = [];
  const { consumerTag } = await ch.consume(queue, (message) => {
    messages.push(message);
    onMessage(message);
  }, options);
  return {
    consumerTag, messages,
    bodies: () => messages.map((message) => message?.content.toString()),
    wait: (count, timeoutMs) => until(() => messages.length >= count, `${count} deliveries`, timeoutMs),
  };
}

/** Restarts the broker (how: term or kill); the caller skips when that is not possible. */
export const canRestart = Boolean(process.env.WEIR_COMPAT_RESTART);
export function restart(how) {
  execFileSync("sh", ["-c", `${process.env.WEIR_COMPAT_RESTART} ${how}`], { stdio: "inherit" });
}
