package weir.compat;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Makes clients with short timeouts and closes them when the test is over. */
final class Kit implements AutoCloseable {
    static final String BROKER = System.getenv().getOrDefault("WEIR_COMPAT_KAFKA", "127.0.0.1:9092");
    static final String RESTART = System.getenv("WEIR_COMPAT_RESTART");
    private static final Duration CLOSE = Duration.ofSeconds(5);

    private final List<AutoCloseable> open = new ArrayList<>();
    private Admin admin;

    static String fresh(String prefix) {
        return prefix + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    private static Map<String, Object> settings(Object... pairs) {
        Map<String, Object> all = new HashMap<>(Map.of(
            "bootstrap.servers", BROKER, "reconnect.backoff.ms", 20, "reconnect.backoff.max.ms", 200,
            "retry.backoff.ms", 20, "retry.backoff.max.ms", 200, "metadata.max.age.ms", 1000,
            "enable.metrics.push", false));
        for (int i = 0; i < pairs.length; i += 2) {
            all.put((String) pairs[i], pairs[i + 1]);
        }
        return all;
    }

    Producer<String, String> producer(Object... pairs) {
        var producer = new KafkaProducer<>(settings(pairs), new StringSerializer(), new StringSerializer());
        open.add(() -> producer.close(CLOSE));
        return producer;
    }

    <K, V> Producer<K, V> producerOf(org.apache.kafka.common.serialization.Serializer<K> keys,
        org.apache.kafka.common.serialization.Serializer<V> values, Object... pairs) {
        var producer = new KafkaProducer<>(settings(pairs), keys, values);
        open.add(() -> producer.close(CLOSE));
        return producer;
    }

    private static Map<String, Object> consumerSettings(String group, Object... pairs) {
        Map<String, Object> base = settings("auto.offset.reset", "earliest", "enable.auto.commit", false,
            "session.timeout.ms", 6000, "heartbeat.interval.ms", 300, "fetch.max.wait.ms", 100);
        if (group != null) {
            base.put("group.id", group);
        }
        for (int i = 0; i < pairs.length; i += 2) {
            base.put((String) pairs[i], pairs[i + 1]);
        }
        return base;
    }

    Consumer<String, String> consumer(String group, Object... pairs) {
        return consumerOf(new StringDeserializer(), new StringDeserializer(), group, pairs);
    }

    <K, V> Consumer<K, V> consumerOf(org.apache.kafka.common.serialization.Deserializer<K> keys,
        org.apache.kafka.common.serialization.Deserializer<V> values, String group, Object... pairs) {
        var consumer = new KafkaConsumer<>(consumerSettings(group, pairs), keys, values);
        open.add(consumer::close);
        return consumer;
    }

    Admin admin() {
        if (admin == null) {
            admin = Admin.create(settings());
            open.add(admin);
        }
        return admin;
    }

    void closeLater(AutoCloseable thing) {
        open.add(thing);
    }

    String topic(int partitions, String... configs) throws Exception {
        Map<String, String> map = new HashMap<>();
        for (int i = 0; i < configs.length; i += 2) {
            map.put(configs[i], configs[i + 1]);
        }
        String name = fresh("t");
        var request = new NewTopic(name, partitions, (short) 1).configs(map);
        admin().createTopics(List.of(request)).all().get(20, TimeUnit.SECONDS);
        eventually("the topic is known", () -> partitionsOf(name) == partitions);
        return name;
    }

    int partitionsOf(String topic) throws Exception {
        try {
            return admin().describeTopics(List.of(topic)).allTopicNames().get(10, TimeUnit.SECONDS)
                .get(topic).partitions().size();
        } catch (ExecutionException error) {
            return 0;
        }
    }

    static void eventually(String what, Callable<Boolean> check) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(25);
        while (!check.call()) {
            if (System.nanoTime() > deadline) {
                fail("not within 25 s: " + what);
            }
            Thread.sleep(20);
        }
    }

    static List<String> names(int from, int to) {
        return IntStream.range(from, to).mapToObj(i -> "m" + i).collect(Collectors.toList());
    }

    static List<RecordMetadata> send(Producer<String, String> producer, String topic, int from, int to)
        throws Exception {
        return send(producer, topic, null, from, to);
    }

    static List<RecordMetadata> send(Producer<String, String> producer, String topic, Integer partition,
        int from, int to) throws Exception {
        var futures = names(from, to).stream()
            .map(value -> producer.send(new ProducerRecord<>(topic, partition, null, value))).toList();
        List<RecordMetadata> sent = new ArrayList<>();
        for (var future : futures) {
            sent.add(future.get(60, TimeUnit.SECONDS));
        }
        return sent;
    }

    static <K, V> List<ConsumerRecord<K, V>> receive(Consumer<K, V> consumer, int count) {
        List<ConsumerRecord<K, V>> got = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (got.size() < count) {
            assertTrue(System.nanoTime() < deadline, "got " + got.size() + " of " + count);
            consumer.poll(Duration.ofMillis(100)).forEach(got::add);
        }
        return got;
    }

    static List<String> values(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).collect(Collectors.toList());
    }

    /** A consumer assigned to one partition, at an offset. */
    Consumer<String, String> reader(String topic, int partition, long offset, Object... pairs) {
        var consumer = consumer(null, pairs);
        var at = new TopicPartition(topic, partition);
        consumer.assign(List.of(at));
        consumer.seek(at, offset);
        return consumer;
    }

    static void restart(String how) throws Exception {
        List<String> words = new ArrayList<>(List.of(RESTART.split(" ")));
        words.add(how);
        Process process = new ProcessBuilder(words).inheritIO().start();
        assertTrue(process.waitFor(120, TimeUnit.SECONDS) && process.exitValue() == 0, "restart");
    }

    @Override
    public void close() {
        for (int i = open.size() - 1; i >= 0; i--) {
            try {
                open.get(i).close();
            } catch (Exception error) {
                // The test closed it already, or the broker is gone: neither is what is tested.
            }
        }
    }
}
