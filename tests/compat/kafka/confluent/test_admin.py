"""librdkafka's admin client: topics, partitions, configurations, groups, offsets, cluster."""

import pytest
from confluent_kafka import (ConsumerGroupState, ConsumerGroupTopicPartitions,
                             ConsumerGroupType, KafkaError, KafkaException, TopicCollection,
                             TopicPartition)
from confluent_kafka.admin import (ConfigResource, ConfigSource, NewPartitions, NewTopic,
                                   OffsetSpec, ResourceType)
from conftest import at, receive, send, send_one
from support import eventually, fresh


def create(kit, name, partitions=1, replication=1, **options):
    new = NewTopic(name, num_partitions=partitions, replication_factor=replication,
                   config=options.pop("config", {}))
    return kit.admin.create_topics([new], operation_timeout=10, **options)[name].result(15)


def code(caught):
    return caught.value.args[0].code()


def configs(kit, kind, name):
    resource = ConfigResource(kind, name)
    return kit.admin.describe_configs([resource])[resource].result(15)


def test_created_topic_is_listed_with_its_partitions(kit):
    topic = kit.topic(partitions=5)
    partitions = kit.admin.list_topics(topic, timeout=10).topics[topic].partitions
    assert sorted(partitions) == list(range(5))
    for partition in partitions.values():
        assert partition.leader in partition.replicas
        assert partition.isrs == partition.replicas and len(partition.replicas) == 1


def test_existing_topic_cannot_be_created(kit):
    topic = kit.topic()
    with pytest.raises(KafkaException) as caught:
        create(kit, topic)
    assert code(caught) == KafkaError.TOPIC_ALREADY_EXISTS


@pytest.mark.parametrize("name", ["bad/name", "bad name", "naïve", ".", "..", "x" * 250])
def test_invalid_topic_name(kit, name):
    with pytest.raises(KafkaException) as caught:
        create(kit, name)
    assert code(caught) == KafkaError.TOPIC_EXCEPTION


def test_longest_topic_name_is_allowed(kit):
    name = fresh("long").ljust(249, "x")
    create(kit, name)
    send(kit.producer(), name, 3)


def test_names_that_differ_only_by_dot_and_underscore_collide(kit):
    base = fresh("collide")
    create(kit, f"{base}.x")
    with pytest.raises(KafkaException) as caught:
        create(kit, f"{base}_x")
    assert code(caught) == KafkaError.TOPIC_EXCEPTION


def test_replication_factor_above_the_number_of_brokers(kit):
    with pytest.raises(KafkaException) as caught:
        create(kit, fresh(), replication=2)
    assert code(caught) == KafkaError.INVALID_REPLICATION_FACTOR


def test_default_partitions_and_replication(kit):
    topic = fresh()
    create(kit, topic, partitions=-1, replication=-1)
    assert eventually(lambda: len(kit.partitions(topic)) == 1)


def test_unknown_configuration_key(kit):
    with pytest.raises(KafkaException) as caught:
        create(kit, fresh(), config={"no.such.setting": "1"})
    assert code(caught) == KafkaError.INVALID_CONFIG


def test_bad_configuration_value(kit):
    with pytest.raises(KafkaException) as caught:
        create(kit, fresh(), config={"retention.ms": "soon"})
    assert code(caught) == KafkaError.INVALID_CONFIG


def test_validate_only_creates_nothing(kit):
    topic = fresh()
    create(kit, topic, validate_only=True)
    assert topic not in kit.admin.list_topics(timeout=10).topics
    create(kit, topic)


def test_replica_assignment_to_the_one_broker(kit):
    topic = fresh()
    [broker] = kit.admin.list_topics(timeout=10).brokers
    new = NewTopic(topic, num_partitions=2, replica_assignment=[[broker], [broker]])
    kit.admin.create_topics([new])[topic].result(15)
    assert eventually(lambda: len(kit.partitions(topic)) == 2)


def test_one_request_creates_what_it_can(kit):
    exists, good, bad = kit.topic(), fresh(), "bad/name"
    futures = kit.admin.create_topics(
        [NewTopic(name, num_partitions=1, replication_factor=1) for name in (exists, good, bad)])
    futures[good].result(15)
    for name, expected in [(exists, KafkaError.TOPIC_ALREADY_EXISTS),
                           (bad, KafkaError.TOPIC_EXCEPTION)]:
        with pytest.raises(KafkaException) as caught:
            futures[name].result(15)
        assert code(caught) == expected


def test_deleted_topic_is_gone(kit):
    topic = kit.topic()
    kit.admin.delete_topics([topic], operation_timeout=10)[topic].result(15)
    eventually(lambda: topic not in kit.admin.list_topics(timeout=10).topics)


def test_absent_topic_cannot_be_deleted(kit):
    topic = fresh("absent")
    with pytest.raises(KafkaException) as caught:
        kit.admin.delete_topics([topic])[topic].result(15)
    assert code(caught) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_recreated_topic_is_empty(kit):
    topic = kit.topic()
    # A producer that refreshes its metadata would create the topic anew by itself.
    send(kit.producer(allow_auto_create_topics=False), topic, 10)
    kit.admin.delete_topics([topic], operation_timeout=10)[topic].result(15)
    eventually(lambda: topic not in kit.admin.list_topics(timeout=10).topics)
    kit.topic(name=topic)
    [message] = send(kit.producer(), topic, 1)
    assert message.offset() == 0
    consumer = kit.consumer()
    consumer.assign([at(topic, 0, 0)])
    assert receive(consumer, 1)[0].offset() == 0


def test_partitions_can_be_added(kit):
    topic = kit.topic(partitions=2)
    send(kit.producer(), topic, 3, partition=1)
    kit.admin.create_partitions([NewPartitions(topic, 5)])[topic].result(15)
    eventually(lambda: len(kit.partitions(topic)) == 5)
    [message] = send(kit.producer(), topic, 1, partition=4)
    assert message.offset() == 0
    assert kit.consumer().get_watermark_offsets(at(topic, 1), timeout=10) == (0, 3)


@pytest.mark.parametrize("count", [2, 3])
def test_partitions_cannot_shrink_or_stay(kit, count):
    topic = kit.topic(partitions=3)
    with pytest.raises(KafkaException) as caught:
        kit.admin.create_partitions([NewPartitions(topic, count)])[topic].result(15)
    assert code(caught) == KafkaError.INVALID_PARTITIONS


def test_partitions_of_an_absent_topic(kit):
    topic = fresh("absent")
    with pytest.raises(KafkaException) as caught:
        kit.admin.create_partitions([NewPartitions(topic, 3)])[topic].result(15)
    assert code(caught) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_topic_configuration_shows_defaults(kit):
    found = configs(kit, ResourceType.TOPIC, kit.topic())
    expected = {
        "cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1",
        "max.message.bytes": "1048588", "compression.type": "producer",
        "message.timestamp.type": "CreateTime", "min.insync.replicas": "1",
        "segment.bytes": "1073741824"}
    assert {key: found[key].value for key in expected} == expected
    assert all(found[key].is_default for key in expected if key != "min.insync.replicas")


def test_topic_configuration_shows_what_was_set(kit):
    found = configs(kit, ResourceType.TOPIC, kit.topic(retention_ms=3600000,
                                                       cleanup_policy="compact,delete"))
    entry = found["retention.ms"]
    assert (entry.value, entry.is_default) == ("3600000", False)
    assert entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    assert found["cleanup.policy"].value == "compact,delete"


def test_configuration_of_an_absent_topic(kit):
    with pytest.raises(KafkaException) as caught:
        configs(kit, ResourceType.TOPIC, fresh("absent"))
    assert code(caught) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_broker_configuration(kit):
    [broker] = kit.admin.list_topics(timeout=10).brokers
    found = configs(kit, ResourceType.BROKER, str(broker))
    assert "message.max.bytes" in found and "num.partitions" in found
    assert found["message.max.bytes"].value == "1048588"


def test_topics_are_described_with_ids(kit):
    a, b = kit.topic(partitions=2), kit.topic()
    futures = kit.admin.describe_topics(TopicCollection([a, b]))
    one, two = futures[a].result(15), futures[b].result(15)
    assert (one.name, len(one.partitions), one.is_internal) == (a, 2, False)
    assert [p.id for p in one.partitions] == [0, 1]
    assert one.partitions[0].leader.host == "127.0.0.1"
    assert str(one.topic_id) != str(two.topic_id)


def test_absent_topic_cannot_be_described(kit):
    topic = fresh("absent")
    with pytest.raises(KafkaException) as caught:
        kit.admin.describe_topics(TopicCollection([topic]))[topic].result(15)
    assert code(caught) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_recreated_topic_has_a_new_id(kit):
    topic = kit.topic()

    def topic_id():
        future = kit.admin.describe_topics(TopicCollection([topic]))[topic]
        return str(future.result(15).topic_id)

    before = topic_id()
    kit.admin.delete_topics([topic], operation_timeout=10)[topic].result(15)
    eventually(lambda: topic not in kit.admin.list_topics(timeout=10).topics)
    kit.topic(name=topic)
    assert topic_id() != before


def test_cluster_is_described(kit):
    found = kit.admin.describe_cluster().result(15)
    assert found.cluster_id and found.controller is not None
    [node] = found.nodes
    assert node.host == "127.0.0.1"
    assert kit.admin.list_topics(timeout=10).cluster_id == found.cluster_id


@pytest.fixture
def idle_group(kit):
    """A group without members that has committed offset 4 of a topic of two partitions."""
    name, topic = fresh("g"), kit.topic(partitions=2)
    consumer = kit.consumer(name)
    consumer.commit(offsets=[at(topic, 0, 4)], asynchronous=False)
    consumer.close()
    return name, topic


def group_offsets(kit, name, topic=None, count=2):
    partitions = [TopicPartition(topic, p) for p in range(count)] if topic else None
    request = ConsumerGroupTopicPartitions(name, partitions)
    found = kit.admin.list_consumer_group_offsets([request])[name].result(15)
    return {p.partition: p.offset for p in found.topic_partitions}


def test_groups_are_listed(kit, idle_group):
    name, _ = idle_group
    listed = {g.group_id: g for g in kit.admin.list_consumer_groups().result(15).valid}
    assert listed[name].state == ConsumerGroupState.EMPTY
    assert listed[name].is_simple_consumer_group


def test_groups_are_listed_by_state(kit, idle_group):
    name, topic = idle_group
    live = fresh("g")
    consumer = kit.consumer(live)
    consumer.subscribe([topic])
    eventually(lambda: (consumer.poll(0.1), consumer.assignment())[1])

    def listed(*states):
        result = kit.admin.list_consumer_groups(states=set(states)).result(15)
        return {g.group_id for g in result.valid}

    eventually(lambda: live in listed(ConsumerGroupState.STABLE))
    assert name not in listed(ConsumerGroupState.STABLE)
    assert name in listed(ConsumerGroupState.EMPTY)
    assert live not in listed(ConsumerGroupState.EMPTY)


def test_groups_are_listed_by_type(kit, idle_group):
    name, _ = idle_group
    result = kit.admin.list_consumer_groups(types={ConsumerGroupType.CLASSIC}).result(15)
    listed = {g.group_id: g for g in result.valid}
    assert listed[name].type == ConsumerGroupType.CLASSIC


def test_absent_group_is_described_as_dead(kit):
    name = fresh("absent")
    try:
        found = kit.admin.describe_consumer_groups([name])[name].result(15)
        assert found.state == ConsumerGroupState.DEAD and found.members == []
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND


def test_offsets_of_a_group_are_listed(kit, idle_group):
    name, topic = idle_group
    assert group_offsets(kit, name) == {0: 4}
    assert group_offsets(kit, name, topic) == {0: 4, 1: -1001}


def test_offsets_of_an_absent_group_are_none(kit):
    topic = kit.topic()
    assert group_offsets(kit, fresh("absent"), topic, 1) == {0: -1001}


def test_offsets_of_an_idle_group_can_be_altered(kit, idle_group):
    name, topic = idle_group
    request = ConsumerGroupTopicPartitions(name, [at(topic, 0, 1), at(topic, 1, 9)])
    kit.admin.alter_consumer_group_offsets([request])[name].result(15)
    assert group_offsets(kit, name) == {0: 1, 1: 9}


def test_deleted_group_forgets_its_offsets(kit, idle_group):
    name, topic = idle_group
    kit.admin.delete_consumer_groups([name])[name].result(15)
    assert group_offsets(kit, name, topic) == {0: -1001, 1: -1001}
    listed = {g.group_id for g in kit.admin.list_consumer_groups().result(15).valid}
    assert name not in listed


def test_absent_group_cannot_be_deleted(kit):
    name = fresh("absent")
    with pytest.raises(KafkaException) as caught:
        kit.admin.delete_consumer_groups([name])[name].result(15)
    assert code(caught) == KafkaError.GROUP_ID_NOT_FOUND


def test_group_with_members_cannot_be_deleted(kit):
    name = fresh("g")
    consumer = kit.consumer(name)
    consumer.subscribe([kit.topic()])
    eventually(lambda: (consumer.poll(0.1), consumer.assignment())[1])
    with pytest.raises(KafkaException) as caught:
        kit.admin.delete_consumer_groups([name])[name].result(15)
    assert code(caught) == KafkaError.NON_EMPTY_GROUP


def test_offsets_of_partitions_are_listed(kit):
    topic = kit.topic()
    producer = kit.producer()
    base = 1_700_000_000_000
    for stamp in (base, base + 5000, base + 1000):
        error, _ = send_one(producer, topic, value=b"v", timestamp=stamp)
        assert error is None

    def find(spec):
        [future] = kit.admin.list_offsets({at(topic): spec}).values()
        result = future.result(15)
        return result.offset, result.timestamp

    assert find(OffsetSpec.earliest())[0] == 0
    assert find(OffsetSpec.latest())[0] == 3
    assert find(OffsetSpec.max_timestamp()) == (1, base + 5000)
    assert find(OffsetSpec.for_timestamp(base + 1)) == (1, base + 5000)
    assert find(OffsetSpec.for_timestamp(base + 9000)) == (-1, -1)


def test_max_timestamp_of_an_empty_partition(kit):
    topic = kit.topic()
    [future] = kit.admin.list_offsets({at(topic): OffsetSpec.max_timestamp()}).values()
    assert future.result(15).offset == -1


def test_many_topics_in_one_request(kit):
    topics = [fresh("many") for _ in range(100)]
    futures = kit.admin.create_topics(
        [NewTopic(name, num_partitions=2, replication_factor=1) for name in topics])
    for future in futures.values():
        future.result(30)
    eventually(lambda: set(topics) <= set(kit.admin.list_topics(timeout=10).topics))
    for future in kit.admin.delete_topics(topics).values():
        future.result(30)
    eventually(lambda: not set(topics) & set(kit.admin.list_topics(timeout=10).topics))
