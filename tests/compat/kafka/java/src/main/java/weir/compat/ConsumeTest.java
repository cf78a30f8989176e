package weir.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static weir.compat.Kit.names;
import static weir.compat.Kit.receive;
import static weir.compat.Kit.send;
import static weir.compat.Kit.values;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.TimeoutException;
import org.junit.jupiter.api.Test;

/** Reading without a group: positions, times, waits, resets. */
class ConsumeTest {
    private static final Duration SOON = Duration.ofSeconds(10);

    private static TopicPartition at(String topic, int partition) {
        return new TopicPartition(topic, partition);
    }

    @Test
    void seeks() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var producer = kit.producer();
            send(producer, topic, 0, 50);
            var consumer = kit.reader(topic, 0, 20);
            assertEquals(names(20, 50), values(receive(consumer, 30)));
            consumer.seekToBeginning(consumer.assignment());
            assertEquals("m0", receive(consumer, 1).get(0).value());
            consumer.seekToEnd(consumer.assignment());
            assertEquals(50, consumer.position(at(topic, 0)));
            send(producer, topic, 50, 52);
            assertEquals(names(50, 52), values(receive(consumer, 2)));
        }
    }

    @Test
    void beginningAndEndOffsets() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(3);
            send(kit.producer(), topic, 1, 0, 7);
            var consumer = kit.consumer(null);
            var all = IntStream.range(0, 3).mapToObj(p -> at(topic, p)).toList();
            assertEquals(Map.of(all.get(0), 0L, all.get(1), 0L, all.get(2), 0L),
                consumer.beginningOffsets(all, SOON));
            assertEquals(Map.of(all.get(0), 0L, all.get(1), 7L, all.get(2), 0L),
                consumer.endOffsets(all, SOON));
        }
    }

    @Test
    void offsetsForTimes() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var producer = kit.producer();
            long base = 1_700_000_000_000L;
            for (int i = 0; i < 10; i++) {
                producer.send(new ProducerRecord<>(topic, 0, base + 1000L * i, "k", "m" + i)).get();
            }
            var consumer = kit.consumer(null);
            var found = consumer.offsetsForTimes(Map.of(at(topic, 0), base + 3500), SOON).get(at(topic, 0));
            assertEquals(4, found.offset());
            assertEquals(base + 4000, found.timestamp());
            assertNull(consumer.offsetsForTimes(Map.of(at(topic, 0), base + 99_000), SOON).get(at(topic, 0)));
        }
    }

    @Test
    void lagOfAPartition() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            send(kit.producer(), topic, 0, 30);
            var consumer = kit.reader(topic, 0, 0, "max.poll.records", 10);
            receive(consumer, 10);
            assertEquals(20, consumer.currentLag(at(topic, 0)).getAsLong());
        }
    }

    @Test
    void outOfRangeIsReset() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            send(kit.producer(), topic, 0, 5);
            assertEquals(names(0, 5), values(receive(kit.reader(topic, 0, 900), 5)));
        }
    }

    @Test
    void outOfRangeWithoutResetIsAnError() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            send(kit.producer(), topic, 0, 5);
            var consumer = kit.reader(topic, 0, 900, "auto.offset.reset", "none");
            var error = assertThrows(OffsetOutOfRangeException.class, () -> receive(consumer, 1));
            assertEquals(Map.of(at(topic, 0), 900L), error.offsetOutOfRangePartitions());
        }
    }

    @Test
    void withoutCommitAndResetThereIsNoPosition() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var consumer = kit.consumer(Kit.fresh("g"), "auto.offset.reset", "none");
            consumer.assign(List.of(at(topic, 0)));
            assertThrows(NoOffsetForPartitionException.class, () -> receive(consumer, 1));
        }
    }

    @Test
    void pauseAndResume() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            var producer = kit.producer();
            var consumer = kit.consumer(null);
            consumer.assign(List.of(at(topic, 0), at(topic, 1)));
            consumer.pause(List.of(at(topic, 0)));
            send(producer, topic, 0, 0, 3);
            send(producer, topic, 1, 0, 3);
            assertTrue(receive(consumer, 3).stream().allMatch(r -> r.partition() == 1));
            assertTrue(consumer.poll(Duration.ofMillis(300)).isEmpty());
            consumer.resume(List.of(at(topic, 0)));
            assertTrue(receive(consumer, 3).stream().allMatch(r -> r.partition() == 0));
        }
    }

    @Test
    void waitingFetchIsWoken() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var consumer = kit.reader(topic, 0, 0, "fetch.max.wait.ms", 8000);
            var producer = kit.producer();
            send(producer, topic, 0, 1);
            receive(consumer, 1);
            consumer.poll(Duration.ofMillis(300));
            long begin = System.nanoTime();
            send(producer, topic, 1, 2);
            receive(consumer, 1);
            assertTrue(System.nanoTime() - begin < 2_000_000_000L);
        }
    }

    @Test
    void minBytesAreWaitedForUpToMaxWait() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            send(kit.producer(), topic, 0, 1);
            var consumer = kit.reader(topic, 0, 0, "fetch.max.wait.ms", 1500, "fetch.min.bytes", 100_000);
            long begin = System.nanoTime();
            receive(consumer, 1);
            long waited = (System.nanoTime() - begin) / 1_000_000;
            assertTrue(waited > 1200 && waited < 6000, "waited " + waited);
        }
    }

    @Test
    void smallLimitsReadEverything() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            var producer = kit.producer("batch.size", 400);
            send(producer, topic, 0, 0, 1000);
            send(producer, topic, 1, 0, 1000);
            var consumer = kit.consumer(null, "max.partition.fetch.bytes", 500, "fetch.max.bytes", 800);
            consumer.assign(List.of(at(topic, 0), at(topic, 1)));
            assertEquals(2000, receive(consumer, 2000).size());
        }
    }

    @Test
    void fetchSessionsFollowManyPartitions() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(30);
            var consumer = kit.consumer(null);
            consumer.assign(IntStream.range(0, 30).mapToObj(p -> at(topic, p)).toList());
            consumer.seekToBeginning(consumer.assignment());
            var producer = kit.producer();
            for (int round = 0; round < 3; round++) {
                for (int partition = 0; partition < 30; partition += 1 + round) {
                    producer.send(new ProducerRecord<>(topic, partition, "k", "r" + round));
                }
                producer.flush();
                int expected = round == 0 ? 30 : round == 1 ? 15 : 10;
                for (var record : receive(consumer, expected)) {
                    assertEquals("r" + round, record.value());
                }
            }
        }
    }

    @Test
    void unknownTopic() {
        try (Kit kit = new Kit()) {
            var consumer = kit.consumer(null, "allow.auto.create.topics", false);
            String absent = Kit.fresh("absent");
            assertThrows(TimeoutException.class,
                () -> consumer.endOffsets(List.of(at(absent, 0)), Duration.ofSeconds(1)));
            assertTrue(!consumer.listTopics(SOON).containsKey(absent));
            var other = kit.consumer(Kit.fresh("g"));
            other.subscribe(List.of("bad/name"));
            assertThrows(InvalidTopicException.class, () -> receive(other, 1));
        }
    }

    @Test
    void topicsAreListed() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(4);
            var found = kit.consumer(null).listTopics(SOON).get(topic);
            assertEquals(4, found.size());
            assertEquals(Set.of(0, 1, 2, 3), Set.copyOf(found.stream().map(p -> p.partition()).toList()));
            assertTrue(found.stream().allMatch(p -> p.leader() != null && p.inSyncReplicas().length == 1));
        }
    }
}
