// kafkajs 2.2.4 against the broker: everything that can share it with other tests.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import kafkajs from 'kafkajs'
import { CompressionTypes, broker, eventually, fresh, hasType, sleep, withKit } from './kit.mjs'

const { AssignerProtocol, PartitionAssigners } = kafkajs
const numbered = (n, from = 0) => Array.from({ length: n }, (_, i) => ({ value: `m${from + i}` }))
const valuesOf = messages => messages.map(m => m.value)

describe('kafkajs', { concurrency: 8 }, () => {
  test('keys, values, headers and timestamps come back', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    const [result] = await producer.send({
      topic,
      messages: [
        { key: 'k', value: 'v', timestamp: '1600000000123', headers: { a: '1', b: ['2', '3'] } },
        { key: null, value: 'no key' },
        { key: 'gone', value: null },
        { key: '', value: '' },
        { value: Buffer.from([0, 255, 1]) },
      ],
    })
    assert.equal(result.errorCode, 0)
    assert.equal(result.baseOffset, '0')
    const reader = await kit.reader(topic)
    await reader.has(5)
    const [first, noKey, tombstone, empty, binary] = reader.got
    assert.equal(first.key.toString(), 'k')
    assert.equal(first.timestamp, '1600000000123')
    assert.equal(first.headers.a.toString(), '1')
    assert.deepEqual(first.headers.b.map(String), ['2', '3'])
    assert.equal(noKey.key, null)
    assert.equal(tombstone.value, null)
    assert.equal(empty.key.length, 0)
    assert.equal(empty.value.length, 0)
    assert.deepEqual([...binary.value], [0, 255, 1])
    assert.deepEqual(reader.got.map(m => m.offset), ['0', '1', '2', '3', '4'])
  }))

  for (const name of ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD']) {
    test(`codec ${name}`, withKit(async kit => {
      const topic = await kit.topic()
      const producer = await kit.producer()
      const messages = Array.from({ length: 200 }, (_, i) => ({ value: `${i}-`.repeat(40) }))
      await producer.send({ topic, compression: CompressionTypes[name], messages })
      const reader = await kit.reader(topic)
      await reader.has(200)
      assert.deepEqual(reader.values(), valuesOf(messages))
    }))
  }

  for (const acks of [0, 1, -1]) {
    test(`acks ${acks}`, withKit(async kit => {
      const topic = await kit.topic()
      const producer = await kit.producer()
      for (let i = 0; i < 5; i++) {
        await producer.send({ topic, acks, messages: numbered(10, i * 10) })
      }
      const reader = await kit.reader(topic)
      await reader.has(50)
      assert.deepEqual(reader.values(), valuesOf(numbered(50)))
    }))
  }

  test('idempotent producer', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer({ idempotent: true, maxInFlightRequests: 1 })
    for (let i = 0; i < 20; i++) await producer.send({ topic, messages: numbered(10, i * 10) })
    const reader = await kit.reader(topic)
    await reader.has(200)
    assert.deepEqual(reader.values(), valuesOf(numbered(200)))
  }))

  test('messages with the same key share a partition', withKit(async kit => {
    const topic = await kit.topic({ numPartitions: 5 })
    const producer = await kit.producer()
    const messages = Array.from({ length: 200 }, (_, i) => ({ key: `k${i % 20}`, value: `${i}` }))
    await producer.send({ topic, messages })
    const reader = await kit.reader(topic)
    await reader.has(200)
    const where = new Map()
    for (const { key, partition } of reader.got) {
      const known = where.get(key.toString()) ?? partition
      assert.equal(partition, known)
      where.set(key.toString(), partition)
    }
    assert.ok(new Set(where.values()).size > 1)
  }))

  test('one batch goes to several topics', withKit(async kit => {
    const topics = [await kit.topic(), await kit.topic()]
    const producer = await kit.producer()
    await producer.sendBatch({
      topicMessages: topics.map(topic => ({ topic, messages: numbered(3) })),
    })
    const reader = await kit.reader(topics)
    await reader.has(6)
    for (const topic of topics) {
      assert.equal(reader.got.filter(m => m.topic === topic).length, 3)
    }
  }))

  test('a message over the limit is too large', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: [{ value: randomBytes(1000000) }] })
    await assert.rejects(
      producer.send({ topic, messages: [{ value: randomBytes(1100000) }] }),
      hasType('MESSAGE_TOO_LARGE')
    )
    const reader = await kit.reader(topic)
    await reader.has(1)
    assert.equal(reader.got[0].value.length, 1000000)
  }))

  test('producing creates the topic', withKit(async kit => {
    const topic = fresh('auto')
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(3) })
    const reader = await kit.reader(topic)
    await reader.has(3)
  }))

  test('without creation an unknown topic is an error', withKit(async kit => {
    const producer = await kit.producer({ allowAutoTopicCreation: false, retry: { retries: 2 } })
    await assert.rejects(
      producer.send({ topic: fresh('absent'), messages: numbered(1) }),
      hasType('UNKNOWN_TOPIC_OR_PARTITION')
    )
  }))

  test('an invalid topic name is refused', withKit(async kit => {
    const producer = await kit.producer({ retry: { retries: 2 } })
    await assert.rejects(
      producer.send({ topic: 'bad/name', messages: numbered(1) }),
      hasType('INVALID_TOPIC_EXCEPTION')
    )
  }))

  test('a later member of the group begins at the committed offset', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(10) })
    const first = await kit.reader(topic)
    await first.has(10)
    await first.consumer.disconnect()
    await producer.send({ topic, messages: numbered(5, 10) })
    const second = await kit.reader(topic, { groupId: first.groupId })
    await second.has(5)
    assert.deepEqual(second.values(), valuesOf(numbered(5, 10)))
  }))

  test('offsets are committed by hand', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(10) })
    const reader = await kit.reader(topic, { run: { autoCommit: false } })
    await reader.has(10)
    await reader.consumer.commitOffsets([
      { topic, partition: 0, offset: '4', metadata: 'here' },
    ])
    const admin = await kit.admin()
    const [found] = await admin.fetchOffsets({ groupId: reader.groupId, topics: [topic] })
    assert.deepEqual(found.partitions, [{ partition: 0, offset: '4', metadata: 'here' }])
  }))

  test('from the end only what comes later is read', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(5) })
    const reader = await kit.reader(topic, { fromBeginning: false })
    await eventually(() => reader.joins)
    await sleep(500)
    await producer.send({ topic, messages: numbered(2, 5) })
    await reader.has(2)
    assert.deepEqual(reader.values(), ['m5', 'm6'])
  }))

  test('seek goes back', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(10) })
    const reader = await kit.reader(topic)
    await reader.has(10)
    reader.consumer.seek({ topic, partition: 0, offset: '7' })
    await reader.has(13)
    assert.deepEqual(reader.values().slice(10), ['m7', 'm8', 'm9'])
  }))

  test('an offset out of range is reset', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(4) })
    const reader = await kit.reader(topic)
    await reader.has(4)
    reader.consumer.seek({ topic, partition: 0, offset: '999' })
    await reader.has(8)
    assert.deepEqual(reader.values().slice(4), valuesOf(numbered(4)))
  }))

  test('pause and resume', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    const reader = await kit.reader(topic)
    await eventually(() => reader.joins)
    reader.consumer.pause([{ topic }])
    await producer.send({ topic, messages: numbered(3) })
    await sleep(400)
    assert.equal(reader.got.length, 0)
    reader.consumer.resume([{ topic }])
    await reader.has(3)
  }))

  test('a waiting fetch ends when a message comes', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    const reader = await kit.reader(topic, { maxWaitTimeInMs: 5000, sessionTimeout: 30000 })
    await producer.send({ topic, messages: numbered(1) })
    await reader.has(1)
    await sleep(300)
    const begin = Date.now()
    await producer.send({ topic, messages: numbered(1) })
    await reader.has(2)
    assert.ok(Date.now() - begin < 2000)
  }))

  test('eachBatch shows the high watermark', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(30) })
    const marks = []
    let count = 0
    await kit.reader(topic, {
      run: {
        eachMessage: undefined,
        eachBatch: async ({ batch }) => {
          marks.push(batch.highWatermark)
          count += batch.messages.length
        },
      },
    })
    await eventually(() => count === 30)
    assert.ok(marks.every(mark => mark === '30'))
  }))

  test('two members share the partitions, and one takes all when the other leaves',
    withKit(async kit => {
      const topic = await kit.topic({ numPartitions: 4 })
      const one = await kit.reader(topic)
      await eventually(() => one.count(topic) === 4)
      const two = await kit.reader(topic, { groupId: one.groupId })
      await eventually(() => one.count(topic) === 2 && two.count(topic) === 2, 'halves')
      assert.deepEqual([...one.assigned[topic], ...two.assigned[topic]].sort(), [0, 1, 2, 3])
      await two.consumer.disconnect()
      await eventually(() => one.count(topic) === 4, 'all')
    }))

  test('three members share six partitions', withKit(async kit => {
    const topic = await kit.topic({ numPartitions: 6 })
    const groupId = fresh('g')
    const members = await Promise.all([1, 2, 3].map(() => kit.reader(topic, { groupId })))
    await eventually(() => members.every(m => m.count(topic) === 2), 'thirds')
    const producer = await kit.producer()
    await producer.send({
      topic,
      messages: Array.from({ length: 60 }, (_, i) => ({ value: `${i}`, partition: i % 6 })),
    })
    await eventually(() => members.reduce((sum, m) => sum + m.got.length, 0) === 60)
    assert.ok(members.every(m => m.got.length === 20))
  }))

  test('a custom assigner is carried by the protocol', withKit(async kit => {
    const topic = await kit.topic({ numPartitions: 3 })
    const firstTakesAll = ({ cluster }) => ({
      name: 'FirstTakesAll',
      version: 1,
      async assign({ members, topics }) {
        await cluster.connect()
        const sorted = members.map(m => m.memberId).sort()
        return sorted.map((memberId, i) => ({
          memberId,
          memberAssignment: AssignerProtocol.MemberAssignment.encode({
            version: 1,
            assignment: i === 0 ? Object.fromEntries(topics.map(t => [t, [0, 1, 2]])) : {},
          }),
        }))
      },
      protocol: ({ topics }) => ({
        name: 'FirstTakesAll',
        metadata: AssignerProtocol.MemberMetadata.encode({ version: 1, topics }),
      }),
    })
    assert.ok(PartitionAssigners.roundRobin)
    const groupId = fresh('g')
    const options = { groupId, partitionAssigners: [firstTakesAll] }
    const one = await kit.reader(topic, options)
    const two = await kit.reader(topic, options)
    await eventually(() => [one, two].map(m => m.count(topic)).sort().join() === '0,3')
  }))

  test('topics are created, listed and deleted', withKit(async kit => {
    const admin = await kit.admin()
    const topic = fresh()
    assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: 3 }], waitForLeaders: false }), true)
    await eventually(async () => (await admin.listTopics()).includes(topic))
    assert.equal(await admin.createTopics({ topics: [{ topic }] }), false)
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.equal(topics[0].partitions.length, 3)
    await admin.deleteTopics({ topics: [topic] })
    await eventually(async () => !(await admin.listTopics()).includes(topic))
  }))

  test('refusals of createTopics carry their codes', withKit(async kit => {
    const admin = await kit.admin()
    const refused = async (topic, type) =>
      assert.rejects(
        admin.createTopics({ topics: [topic], waitForLeaders: false }), hasType(type))
    await refused({ topic: 'bad/name' }, 'INVALID_TOPIC_EXCEPTION')
    await refused({ topic: fresh(), replicationFactor: 3 }, 'INVALID_REPLICATION_FACTOR')
    await refused({ topic: fresh(), numPartitions: 0 }, 'INVALID_PARTITIONS')
    await refused(
      { topic: fresh(), configEntries: [{ name: 'no.such', value: '1' }] }, 'INVALID_CONFIG')
  }))

  test('an absent topic cannot be deleted', withKit(async kit => {
    const admin = await kit.admin()
    await assert.rejects(admin.deleteTopics({ topics: [fresh('absent')], timeout: 2000 }))
  }))

  test('partitions are added', withKit(async kit => {
    const topic = await kit.topic()
    const admin = await kit.admin()
    await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
    await eventually(async () => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
      return topics[0].partitions.length === 4
    })
    await assert.rejects(admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] }),
      hasType('INVALID_PARTITIONS'))
  }))

  test('offsets of a topic by end and by time', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    const base = 1700000000000
    for (let i = 0; i < 5; i++) {
      await producer.send({ topic, messages: [{ value: 'v', timestamp: `${base + i * 1000}` }] })
    }
    const admin = await kit.admin()
    const [{ low, high }] = await admin.fetchTopicOffsets(topic)
    assert.deepEqual([low, high], ['0', '5'])
    const at = async stamp =>
      (await admin.fetchTopicOffsetsByTimestamp(topic, stamp))[0].offset
    assert.equal(await at(base + 1500), '2')
    assert.equal(await at(base + 9000), '5')
  }))

  test('group offsets are set', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(10) })
    const admin = await kit.admin()
    const groupId = fresh('g')
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '6' }] })
    const reader = await kit.reader(topic, { groupId })
    await reader.has(4)
    assert.deepEqual(reader.values(), valuesOf(numbered(4, 6)))
  }))

  test('group offsets are reset', withKit(async kit => {
    const topic = await kit.topic()
    const producer = await kit.producer()
    await producer.send({ topic, messages: numbered(10) })
    const { consumer, groupId, has } = await kit.reader(topic)
    await has(10)
    await consumer.disconnect()
    const admin = await kit.admin()
    await admin.resetOffsets({ groupId, topic, earliest: true })
    const [found] = await admin.fetchOffsets({ groupId, topics: [topic], resolveOffsets: true })
    assert.equal(found.partitions[0].offset, '0')
  }))

  test('groups are listed, described and deleted', withKit(async kit => {
    const topic = await kit.topic({ numPartitions: 2 })
    const reader = await kit.reader(topic)
    await eventually(() => reader.count(topic) === 2)
    const admin = await kit.admin()
    const { groups } = await admin.listGroups()
    assert.ok(groups.some(g => g.groupId === reader.groupId && g.protocolType === 'consumer'))
    const described = await eventually(async () => {
      const found = (await admin.describeGroups([reader.groupId])).groups[0]
      return found.state === 'Stable' && found
    })
    assert.equal(described.members.length, 1)
    const assignment = AssignerProtocol.MemberAssignment.decode(
      described.members[0].memberAssignment)
    assert.deepEqual(assignment.assignment[topic].sort(), [0, 1])
    await assert.rejects(admin.deleteGroups([reader.groupId]),
      hasType('NON_EMPTY_GROUP'))
    await reader.consumer.disconnect()
    await admin.deleteGroups([reader.groupId])
    assert.ok(!(await admin.listGroups()).groups.some(g => g.groupId === reader.groupId))
    await assert.rejects(admin.deleteGroups([reader.groupId]),
      hasType('GROUP_ID_NOT_FOUND'))
  }))

  test('the cluster is described', withKit(async kit => {
    const admin = await kit.admin()
    const cluster = await admin.describeCluster()
    assert.equal(cluster.brokers.length, 1)
    assert.equal(`${cluster.brokers[0].host}:${cluster.brokers[0].port}`, broker)
    assert.equal(cluster.controller, cluster.brokers[0].nodeId)
    assert.ok(cluster.clusterId)
  }))

  test('configurations are described', withKit(async kit => {
    const topic = await kit.topic({ configEntries: [{ name: 'retention.ms', value: '3600000' }] })
    const admin = await kit.admin()
    const { resources } = await admin.describeConfigs({
      resources: [{ type: 2, name: topic, configNames: ['retention.ms', 'cleanup.policy'] }],
    })
    const value = Object.fromEntries(
      resources[0].configEntries.map(e => [e.configName, e.configValue]))
    assert.deepEqual(value, { 'retention.ms': '3600000', 'cleanup.policy': 'delete' })
  }))
})
