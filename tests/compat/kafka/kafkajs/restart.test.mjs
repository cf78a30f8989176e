// kafkajs 2.2.4 over restarts of the broker: these tests run alone, one after the other.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { eventually, restartBroker, restartCommand, withKit } from './kit.mjs'

const numbered = (n, from = 0) => Array.from({ length: n }, (_, i) => ({ value: `m${from + i}` }))
const retry = { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 }

describe('kafkajs over a restart', { skip: !restartCommand }, () => {
  for (const how of ['term', 'kill']) {
    test(`data and committed offsets survive (${how})`, withKit(async kit => {
      const topic = await kit.topic({ numPartitions: 2 })
      const producer = await kit.producer()
      await producer.send({ topic, messages: numbered(50).map(m => ({ ...m, partition: 1 })) })
      const first = await kit.reader(topic)
      await first.has(50)
      await first.consumer.disconnect()
      await restartBroker(how)
      const again = await kit.producer({ retry })
      await again.send({ topic, messages: [{ value: 'after', partition: 1 }] })
      const second = await kit.reader(topic, { groupId: first.groupId, retry })
      await eventually(() => second.got.length >= 1, 'one message', 40000)
      assert.deepEqual(second.values(), ['after'])
      assert.equal(second.got[0].offset, '50')
      const all = await kit.reader(topic, { retry })
      await all.has(51)
    }))
  }

  test('a running producer and consumer go on', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer({ retry })
    const reader = await kit.reader(topic, { retry })
    await producer.send({ topic, messages: numbered(5) })
    await reader.has(5)
    await restartBroker()
    await producer.send({ topic, messages: numbered(5, 5) })
    await eventually(() => new Set(reader.values()).size === 10, 'all ten', 40000)
  }))
})
