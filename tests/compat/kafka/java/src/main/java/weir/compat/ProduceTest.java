package weir.compat;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static weir.compat.Kit.fresh;
import static weir.compat.Kit.names;
import static weir.compat.Kit.receive;
import static weir.compat.Kit.send;
import static weir.compat.Kit.values;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Producing: what goes in comes out, and refusals are Kafka's. */
class ProduceTest {
    private static <T> Throwable cause(Future<T> future) {
        return assertThrows(ExecutionException.class, () -> future.get(30, TimeUnit.SECONDS)).getCause();
    }

    @Test
    void recordComesBackWhole() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var record = new ProducerRecord<>(topic, 0, 1_600_000_000_123L, "k", "v");
            record.headers().add("a", "1".getBytes()).add("b", null).add("a", new byte[] {0, -1});
            RecordMetadata sent = kit.producer().send(record).get();
            assertEquals(0, sent.offset());
            var got = receive(kit.reader(topic, 0, 0), 1).get(0);
            assertEquals("k", got.key());
            assertEquals("v", got.value());
            assertEquals(1_600_000_000_123L, got.timestamp());
            assertEquals(TimestampType.CREATE_TIME, got.timestampType());
            var headers = got.headers().toArray();
            assertEquals(3, headers.length);
            assertNull(headers[1].value());
            assertArrayEquals(new byte[] {0, -1}, headers[2].value());
            assertEquals(0, got.leaderEpoch().orElse(-1));
        }
    }

    @Test
    void nullAndEmptyKeysAndValuesStayWhatTheyAre() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var producer = kit.producer();
            for (String[] pair : new String[][] {{null, "v"}, {"k", null}, {"", ""}, {null, null}}) {
                producer.send(new ProducerRecord<>(topic, 0, pair[0], pair[1])).get();
            }
            var got = receive(kit.reader(topic, 0, 0), 4);
            assertNull(got.get(0).key());
            assertNull(got.get(1).value());
            assertEquals("", got.get(2).key());
            assertEquals("", got.get(2).value());
            assertNull(got.get(3).key());
            assertNull(got.get(3).value());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"none", "gzip", "snappy", "lz4", "zstd"})
    void codec(String codec) throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var producer = kit.producer("compression.type", codec, "linger.ms", 50);
            List<String> sent = new ArrayList<>();
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (int i = 0; i < 500; i++) {
                sent.add((i + "-").repeat(40));
                futures.add(producer.send(new ProducerRecord<>(topic, sent.get(i))));
            }
            for (var future : futures) {
                future.get(30, TimeUnit.SECONDS);
            }
            assertEquals(sent, values(receive(kit.reader(topic, 0, 0), 500)));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"0", "1", "all"})
    void acks(String acks) throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var producer = kit.producer("acks", acks, "enable.idempotence", false,
                "max.in.flight.requests.per.connection", 1);
            List<RecordMetadata> sent = send(producer, topic, 0, 300);
            assertEquals(acks.equals("0") ? -1 : 299, sent.get(299).offset());
            assertEquals(names(0, 300), values(receive(kit.reader(topic, 0, 0), 300)));
        }
    }

    @Test
    void idempotentProducerKeepsOrderWithFiveInFlight() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var producer = kit.producer("enable.idempotence", true, "batch.size", 200, "linger.ms", 0);
            List<RecordMetadata> sent = send(producer, topic, 0, 5000);
            for (int i = 0; i < 5000; i++) {
                assertEquals(i, sent.get(i).offset());
            }
            assertEquals(names(0, 5000), values(receive(kit.reader(topic, 0, 0), 5000)));
        }
    }

    @Test
    void manyThreadsShareAnIdempotentProducer() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(3);
            var producer = kit.producer("batch.size", 500);
            List<Thread> threads = new ArrayList<>();
            List<Throwable> errors = new ArrayList<>();
            for (int t = 0; t < 6; t++) {
                int partition = t % 3;
                threads.add(new Thread(() -> {
                    try {
                        send(producer, topic, partition, 0, 500);
                    } catch (Throwable error) {
                        errors.add(error);
                    }
                }));
            }
            threads.forEach(Thread::start);
            for (Thread thread : threads) {
                thread.join();
            }
            assertEquals(List.of(), errors);
            for (int partition = 0; partition < 3; partition++) {
                assertEquals(1000, receive(kit.reader(topic, partition, 0), 1000).size());
            }
        }
    }

    @Test
    void largeRecordsUpToTheLimit() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var producer = kit.producerOf(new ByteArraySerializer(), new ByteArraySerializer(),
                "max.request.size", 8_000_000);
            byte[] body = new byte[1_000_000];
            new Random(7).nextBytes(body);
            producer.send(new ProducerRecord<>(topic, body)).get();
            assertInstanceOf(RecordTooLargeException.class,
                cause(producer.send(new ProducerRecord<>(topic, new byte[1_100_000]))));
            producer.send(new ProducerRecord<>(topic, new byte[] {1})).get();
            var consumer = kit.consumerOf(new ByteArrayDeserializer(), new ByteArrayDeserializer(), null);
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            consumer.seekToBeginning(consumer.assignment());
            var got = receive(consumer, 2);
            assertArrayEquals(body, got.get(0).value());
            assertEquals(1, got.get(1).offset());
        }
    }

    @Test
    void topicMayRaiseTheLimit() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1, "max.message.bytes", "3000000");
            var producer = kit.producerOf(new ByteArraySerializer(), new ByteArraySerializer(),
                "max.request.size", 8_000_000);
            producer.send(new ProducerRecord<>(topic, new byte[2_900_000])).get();
            assertInstanceOf(RecordTooLargeException.class,
                cause(producer.send(new ProducerRecord<>(topic, new byte[3_100_000]))));
        }
    }

    @Test
    void keysChooseThePartition() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(6);
            var producer = kit.producer();
            Map<String, Integer> where = new HashMap<>();
            for (int i = 0; i < 200; i++) {
                String key = "k" + i % 25;
                int partition = producer.send(new ProducerRecord<>(topic, key, "v")).get().partition();
                assertEquals(where.computeIfAbsent(key, k -> partition), partition);
            }
            assertTrue(where.values().stream().distinct().count() > 1);
        }
    }

    @Test
    void logAppendTimeIsTheBrokers() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1, "message.timestamp.type", "LogAppendTime");
            long before = System.currentTimeMillis();
            var sent = kit.producer().send(new ProducerRecord<>(topic, 0, 5L, "k", "v")).get();
            var got = receive(kit.reader(topic, 0, 0), 1).get(0);
            assertEquals(TimestampType.LOG_APPEND_TIME, got.timestampType());
            assertTrue(got.timestamp() >= before - 1000);
            assertEquals(got.timestamp(), sent.timestamp());
        }
    }

    @Test
    void producingCreatesTheTopic() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = fresh("auto");
            send(kit.producer(), topic, 0, 3);
            assertEquals(names(0, 3), values(receive(kit.reader(topic, 0, 0), 3)));
        }
    }

    @Test
    void invalidTopicName() {
        try (Kit kit = new Kit()) {
            assertInstanceOf(InvalidTopicException.class,
                cause(kit.producer().send(new ProducerRecord<>("bad/name", "v"))));
        }
    }

    @Test
    void unknownPartitionTimesOut() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            var producer = kit.producer("max.block.ms", 1500);
            assertInstanceOf(TimeoutException.class,
                cause(producer.send(new ProducerRecord<>(topic, 9, "k", "v"))));
            assertEquals(2, producer.partitionsFor(topic).size());
        }
    }
}
