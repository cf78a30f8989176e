package weir.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static weir.compat.Kit.eventually;
import static weir.compat.Kit.fresh;
import static weir.compat.Kit.receive;
import static weir.compat.Kit.send;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.junit.jupiter.api.Test;

/** The admin client: topics, partitions, configurations, offsets, groups, cluster. */
class AdminTest {
    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(20, TimeUnit.SECONDS);
    }

    private static void fails(Class<? extends Throwable> with, KafkaFuture<?> future) {
        var error = assertThrows(ExecutionException.class, () -> get(future));
        assertInstanceOf(with, error.getCause());
    }

    private static KafkaFuture<Void> create(Kit kit, NewTopic topic) {
        return kit.admin().createTopics(List.of(topic)).all();
    }

    private static NewTopic named(String name) {
        return new NewTopic(name, 1, (short) 1);
    }

    @Test
    void topicIsCreatedDescribedAndDeleted() throws Exception {
        try (Kit kit = new Kit()) {
            String name = fresh("t");
            var created = kit.admin().createTopics(List.of(new NewTopic(name, 3, (short) 1)));
            get(created.all());
            Uuid id = get(created.topicId(name));
            assertEquals(3, get(created.numPartitions(name)));
            assertEquals(1, get(created.replicationFactor(name)));
            assertEquals("604800000", get(created.config(name)).get("retention.ms").value());
            eventually("known", () -> kit.partitionsOf(name) == 3);
            var described = get(kit.admin().describeTopics(List.of(name)).allTopicNames()).get(name);
            assertEquals(id, described.topicId());
            assertFalse(described.isInternal());
            var byId = get(kit.admin().describeTopics(TopicCollection.ofTopicIds(List.of(id)))
                .allTopicIds()).get(id);
            assertEquals(name, byId.name());
            assertTrue(get(kit.admin().listTopics().names()).contains(name));
            get(kit.admin().deleteTopics(List.of(name)).all());
            eventually("gone", () -> !get(kit.admin().listTopics().names()).contains(name));
            fails(UnknownTopicOrPartitionException.class, kit.admin().deleteTopics(List.of(name)).all());
        }
    }

    @Test
    void topicIsDeletedById() throws Exception {
        try (Kit kit = new Kit()) {
            String name = kit.topic(1);
            Uuid id = get(kit.admin().describeTopics(List.of(name)).allTopicNames()).get(name).topicId();
            assertNotEquals(Uuid.ZERO_UUID, id);
            get(kit.admin().deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
            eventually("gone", () -> !get(kit.admin().listTopics().names()).contains(name));
            fails(UnknownTopicIdException.class,
                kit.admin().deleteTopics(TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).all());
        }
    }

    @Test
    void refusalsOfCreateTopics() throws Exception {
        try (Kit kit = new Kit()) {
            fails(TopicExistsException.class, create(kit, named(kit.topic(1))));
            fails(InvalidTopicException.class, create(kit, named("bad/name")));
            fails(InvalidTopicException.class, create(kit, named("..")));
            fails(InvalidTopicException.class, create(kit, named("x".repeat(250))));
            fails(InvalidReplicationFactorException.class,
                create(kit, new NewTopic(fresh("t"), 1, (short) 2)));
            fails(InvalidPartitionsException.class, create(kit, new NewTopic(fresh("t"), 0, (short) 1)));
            fails(InvalidConfigurationException.class,
                create(kit, named(fresh("t")).configs(Map.of("no.such.setting", "1"))));
            fails(InvalidConfigurationException.class,
                create(kit, named(fresh("t")).configs(Map.of("retention.ms", "soon"))));
        }
    }

    @Test
    void validateOnlyCreatesNothing() throws Exception {
        try (Kit kit = new Kit()) {
            String name = fresh("t");
            get(kit.admin().createTopics(List.of(named(name)),
                new CreateTopicsOptions().validateOnly(true)).all());
            assertFalse(get(kit.admin().listTopics().names()).contains(name));
        }
    }

    @Test
    void defaultsOfCreateTopics() throws Exception {
        try (Kit kit = new Kit()) {
            String name = fresh("t");
            var created = kit.admin().createTopics(
                List.of(new NewTopic(name, Optional.empty(), Optional.empty())));
            assertEquals(1, get(created.numPartitions(name)));
            assertEquals(1, get(created.replicationFactor(name)));
        }
    }

    @Test
    void partitionsAreAdded() throws Exception {
        try (Kit kit = new Kit()) {
            String name = kit.topic(2);
            get(kit.admin().createPartitions(Map.of(name, NewPartitions.increaseTo(4))).all());
            eventually("four", () -> kit.partitionsOf(name) == 4);
            fails(InvalidPartitionsException.class,
                kit.admin().createPartitions(Map.of(name, NewPartitions.increaseTo(3))).all());
            fails(UnknownTopicOrPartitionException.class,
                kit.admin().createPartitions(Map.of(fresh("absent"), NewPartitions.increaseTo(3))).all());
        }
    }

    @Test
    void configurationsAreDescribed() throws Exception {
        try (Kit kit = new Kit()) {
            var topic = new ConfigResource(ConfigResource.Type.TOPIC, kit.topic(1, "retention.ms", "7200000"));
            var found = get(kit.admin().describeConfigs(List.of(topic)).all()).get(topic);
            assertEquals("7200000", found.get("retention.ms").value());
            assertEquals(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, found.get("retention.ms").source());
            assertEquals("delete", found.get("cleanup.policy").value());
            assertEquals(ConfigEntry.ConfigType.LONG, found.get("retention.ms").type());
            assertTrue(found.get("cleanup.policy").isDefault());
            fails(UnknownTopicOrPartitionException.class, kit.admin().describeConfigs(
                List.of(new ConfigResource(ConfigResource.Type.TOPIC, fresh("absent")))).all());
            String node = get(kit.admin().describeCluster().controller()).idString();
            var broker = new ConfigResource(ConfigResource.Type.BROKER, node);
            assertEquals("1048588", get(kit.admin().describeConfigs(List.of(broker)).all()).get(broker)
                .get("message.max.bytes").value());
        }
    }

    @Test
    void offsetsAreListed() throws Exception {
        try (Kit kit = new Kit()) {
            String name = kit.topic(1);
            var producer = kit.producer();
            long base = 1_700_000_000_000L;
            for (long stamp : new long[] {base, base + 5000, base + 1000}) {
                producer.send(new ProducerRecord<>(name, 0, stamp, "k", "v")).get();
            }
            var at = new TopicPartition(name, 0);
            assertEquals(0, list(kit, at, OffsetSpec.earliest()).offset());
            assertEquals(3, list(kit, at, OffsetSpec.latest()).offset());
            assertEquals(1, list(kit, at, OffsetSpec.maxTimestamp()).offset());
            assertEquals(base + 5000, list(kit, at, OffsetSpec.maxTimestamp()).timestamp());
            assertEquals(1, list(kit, at, OffsetSpec.forTimestamp(base + 1)).offset());
            assertEquals(-1, list(kit, at, OffsetSpec.forTimestamp(base + 9000)).offset());
        }
    }

    private static ListOffsetsResult.ListOffsetsResultInfo list(Kit kit, TopicPartition at, OffsetSpec spec)
        throws Exception {
        return get(kit.admin().listOffsets(Map.of(at, spec)).partitionResult(at));
    }

    @Test
    void clusterIsDescribed() throws Exception {
        try (Kit kit = new Kit()) {
            var cluster = kit.admin().describeCluster();
            var nodes = get(cluster.nodes());
            assertEquals(1, nodes.size());
            var node = nodes.iterator().next();
            assertEquals(Kit.BROKER, node.host() + ":" + node.port());
            assertEquals(node.id(), get(cluster.controller()).id());
            assertTrue(get(cluster.clusterId()).length() > 0);
        }
    }

    @Test
    void featuresAreDescribed() throws Exception {
        try (Kit kit = new Kit()) {
            assertTrue(get(kit.admin().describeFeatures().featureMetadata()) != null);
        }
    }

    @Test
    void liveGroupIsDescribedAndCannotBeDeleted() throws Exception {
        try (Kit kit = new Kit()) {
            String name = kit.topic(2);
            String group = fresh("g");
            send(kit.producer(), name, 0, 1);
            var consumer = kit.consumer(group, "client.id", "my-client");
            consumer.subscribe(List.of(name));
            receive(consumer, 1);
            var described = get(kit.admin().describeConsumerGroups(List.of(group)).all()).get(group);
            assertEquals("STABLE", described.state().name());
            assertEquals("range", described.partitionAssignor());
            var member = described.members().iterator().next();
            assertEquals("my-client", member.clientId());
            assertEquals(Set.of(new TopicPartition(name, 0), new TopicPartition(name, 1)),
                member.assignment().topicPartitions());
            fails(GroupNotEmptyException.class, kit.admin().deleteConsumerGroups(List.of(group)).all());
            consumer.close();
            eventually("empty", () -> get(kit.admin().describeConsumerGroups(List.of(group)).all())
                .get(group).members().isEmpty());
        }
    }

    @Test
    void idleGroup() throws Exception {
        try (Kit kit = new Kit()) {
            String name = kit.topic(2);
            String group = fresh("g");
            var one = new TopicPartition(name, 0);
            var two = new TopicPartition(name, 1);
            var consumer = kit.consumer(group);
            consumer.commitSync(Map.of(one, new OffsetAndMetadata(4, "note")), Duration.ofSeconds(10));
            consumer.close();
            var listed = get(kit.admin().listConsumerGroups().all()).stream()
                .filter(g -> g.groupId().equals(group)).findAny().orElseThrow();
            assertTrue(listed.isSimpleConsumerGroup());
            var offsets = get(kit.admin().listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
            assertEquals(4, offsets.get(one).offset());
            assertEquals("note", offsets.get(one).metadata());
            get(kit.admin().alterConsumerGroupOffsets(group, Map.of(one, new OffsetAndMetadata(1),
                two, new OffsetAndMetadata(9))).all());
            offsets = get(kit.admin().listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
            assertEquals(1, offsets.get(one).offset());
            assertEquals(9, offsets.get(two).offset());
            get(kit.admin().deleteConsumerGroups(List.of(group)).all());
            fails(GroupIdNotFoundException.class, kit.admin().deleteConsumerGroups(List.of(group)).all());
        }
    }

    @Test
    void recreatedTopicIsEmptyAndHasANewId() throws Exception {
        try (Kit kit = new Kit()) {
            String name = kit.topic(1);
            Uuid before = get(kit.admin().describeTopics(List.of(name)).allTopicNames()).get(name).topicId();
            var producer = kit.producer();
            send(producer, name, 0, 5);
            producer.close();
            get(kit.admin().deleteTopics(List.of(name)).all());
            eventually("gone", () -> !get(kit.admin().listTopics().names()).contains(name));
            get(create(kit, named(name)));
            eventually("back", () -> kit.partitionsOf(name) == 1);
            Uuid after = get(kit.admin().describeTopics(List.of(name)).allTopicNames()).get(name).topicId();
            assertNotEquals(before, after);
            assertEquals(0, list(kit, new TopicPartition(name, 0), OffsetSpec.latest()).offset());
        }
    }
}
