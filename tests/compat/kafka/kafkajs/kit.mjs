// What the kafkajs tests share: clients with short timeouts that are closed after the test.
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import net from 'node:net'
import { promisify } from 'node:util'
import kafkajs from 'kafkajs'
import lz4 from 'lz4-napi'
import zstd from '@bokuweb/zstd-wasm'

const require = createRequire(import.meta.url)
export const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = kafkajs

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
await zstd.init()
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

export const broker = process.env.WEIR_COMPAT_KAFKA ?? '127.0.0.1:9092'
export const restartCommand = process.env.WEIR_COMPAT_RESTART

export const fresh = (prefix = 't') => `${prefix}-${randomBytes(6).toString('hex')}`
export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

export async function restartBroker(how = 'term') {
  const [program, ...words] = [...restartCommand.split(' '), how]
  await promisify(execFile)(program, words, { timeout: 120000 })
}

// True when the error, or one that caused it, has this protocol error's name.
export const hasType = type => error => {
  for (let e = error; e; e = e.cause) if (e.type === type) return true
  return (error.errors ?? error.groups?.map(g => g.error) ?? []).some(e => e.type === type)
}

// Polls check() until it is truthy and returns that.
export async function eventually(check, what = 'condition', timeoutMs = 20000) {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const result = await check()
    if (result) return result
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await sleep(30)
  }
}

// Runs body with a kit of clients and disconnects them in the end.
export const withKit = body => async () => {
  const kit = new Kit()
  try {
    await body(kit)
  } finally {
    await kit.close()
  }
}

const drop = socket => socket.destroy(new Error('the test is over'))

class Kit {
  constructor() {
    this.clients = []
    this.sockets = []
    this.closed = false
    this.kafka = new Kafka({
      clientId: 'weir-compat',
      brokers: [broker],
      logLevel: logLevel.NOTHING,
      connectionTimeout: 5000,
      socketFactory: ({ host, port, onConnect }) => this.socket(host, port, onConnect),
      retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 8 },
    })
  }

  // As kafkajs makes them itself. A heartbeat that is under way when its consumer disconnects may
  // open another connection, which nobody closes and which would keep the process alive.
  socket(host, port, onConnect) {
    const socket = net.connect({ host, port }, onConnect)
    socket.setKeepAlive(true, 60000)
    if (this.closed) setTimeout(drop, 500, socket)
    else this.sockets.push(socket)
    return socket
  }

  async open(client) {
    this.clients.push(client)
    await client.connect()
    return client
  }

  producer(options = {}) {
    return this.open(this.kafka.producer({ metadataMaxAge: 1000, ...options }))
  }

  admin() {
    return this.open(this.kafka.admin())
  }

  async topic(options = {}) {
    const topic = fresh()
    const admin = await this.admin()
    await admin.createTopics({
      topics: [{ topic, numPartitions: 1, ...options }],
      waitForLeaders: false,
    })
    await eventually(() => admin.fetchTopicMetadata({ topics: [topic] }).catch(() => false),
      'the topic is known')
    return topic
  }

  // A running consumer: collects messages in `got` and what it was given in `assigned`.
  async reader(topics, { groupId = fresh('g'), fromBeginning = true, run = {}, ...options } = {}) {
    const consumer = this.kafka.consumer({
      groupId,
      sessionTimeout: 6000,
      heartbeatInterval: 300,
      rebalanceTimeout: 10000,
      maxWaitTimeInMs: 100,
      metadataMaxAge: 1000,
      ...options,
    })
    const reader = { consumer, groupId, got: [], assigned: null, joins: 0, crashed: null }
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      reader.assigned = payload.memberAssignment
      reader.joins += 1
    })
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      reader.crashed = payload.error
    })
    await this.open(consumer)
    await consumer.subscribe({ topics: [topics].flat(), fromBeginning })
    await consumer.run({
      eachMessage: async ({ topic, partition, message }) => {
        reader.got.push({ topic, partition, ...message })
      },
      ...run,
    })
    reader.count = topic => (reader.assigned?.[topic] ?? []).length
    reader.values = () => reader.got.map(m => m.value?.toString())
    reader.has = n => eventually(() => reader.got.length >= n, `${n} messages`)
    return reader
  }

  async close() {
    await Promise.all(this.clients.map(client => client.disconnect().catch(() => {})))
    this.closed = true
    this.sockets.forEach(drop)
  }
}
