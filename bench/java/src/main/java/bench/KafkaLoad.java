package bench;

import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka load generator on Kafka's own Java client, with the client's defaults.
 *
 * <p>produce: so many producers, each on its own thread, send for --warm-up seconds (the JIT), then
 * for --seconds that count. consume: reads --warm-up-messages of --warm-up-topic for the JIT, then
 * --messages of --topic, from its first offset. The lines {@code begin} and {@code end} on stdout frame
 * what is measured, so that the driver can read the broker's CPU there; then comes one line of JSON.
 */
public final class KafkaLoad {
    private final Map<String, String> options = new HashMap<>();
    private final Map<String, Object> clientSettings = new HashMap<>();

    private KafkaLoad(String[] arguments) {
        for (int i = 1; i < arguments.length; i++) {
            String[] pair = arguments[i].split("=", 2);
            if (pair.length != 2) {
                throw new IllegalArgumentException("not --name=value or -Xname=value: " + arguments[i]);
            }
            if (pair[0].startsWith("-X")) {
                clientSettings.put(pair[0].substring(2), pair[1]);
            } else {
                options.put(pair[0].substring(2), pair[1]);
            }
        }
    }

    private String text(String name, String otherwise) {
        return options.getOrDefault(name, otherwise);
    }

    private double number(String name, double otherwise) {
        String value = options.get(name);
        return value == null ? otherwise : Double.parseDouble(value);
    }

    private static double cpuSeconds() {
        var system =
                (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return system.getProcessCpuTime() / 1e9;
    }

    /** Latencies in nanoseconds: 64 steps an octave, written by one thread. */
    private static final class Histogram {
        final long[] counts = new long[64 * 64];
        long total;
        long max;

        void add(long value) {
            int top = 63 - Long.numberOfLeadingZeros(Math.max(value, 64));
            long step = (Math.max(value, 64) >>> (top - 6)) & 63;
            counts[(top - 5) * 64 + (int) step]++;
            total++;
            max = Math.max(max, value);
        }

        void merge(Histogram other) {
            for (int i = 0; i < counts.length; i++) {
                counts[i] += other.counts[i];
            }
            total += other.total;
            max = Math.max(max, other.max);
        }

        double quantileMicros(double quantile) {
            long seen = 0;
            for (int i = 64; i < counts.length; i++) {
                seen += counts[i];
                if (seen > quantile * total) {
                    return ((64L + i % 64) << (i / 64 - 1)) / 1e3;
                }
            }
            return max / 1e3;
        }

        String json() {
            return String.format(
                    "{\"n\":%d,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}",
                    total, quantileMicros(0.5), quantileMicros(0.99), quantileMicros(0.999), max / 1e3);
        }
    }

    private final class Producer extends Thread {
        final KafkaProducer<byte[], byte[]> client;
        final Histogram confirm = new Histogram(); // written by the client's own I/O thread only
        final CountDownLatch warm = new CountDownLatch(1);
        final CountDownLatch go;
        final LongAdder acked = new LongAdder();
        final AtomicLong failed = new AtomicLong();
        volatile boolean counting;
        volatile long endNanos;
        volatile Exception error;

        Producer(CountDownLatch go) {
            this.go = go;
            Map<String, Object> settings = new HashMap<>();
            settings.put("bootstrap.servers", text("broker", "127.0.0.1:9092"));
            settings.put("acks", "all");
            settings.putAll(clientSettings);
            client = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
        }

        private void sendUntil(long end, byte[] body, String topic) {
            long sent = 0;
            while (true) {
                long sample = 0;
                if (sent++ % 64 == 0) {
                    sample = System.nanoTime();
                    if (sample > end) {
                        return;
                    }
                }
                final long began = sample;
                client.send(new ProducerRecord<>(topic, body), (metadata, problem) -> {
                    if (problem != null) {
                        failed.incrementAndGet();
                    } else if (counting) {
                        acked.increment();
                        if (began != 0) {
                            confirm.add(System.nanoTime() - began);
                        }
                    }
                });
            }
        }

        @Override
        public void run() {
            try {
                byte[] body = new byte[(int) number("size", 100)];
                Arrays.fill(body, (byte) 'x');
                String topic = text("topic", "bench");
                client.partitionsFor(topic);
                sendUntil(System.nanoTime() + (long) (number("warm-up", 3) * 1e9), body, topic);
                client.flush();
                warm.countDown();
                go.await();
                counting = true;
                sendUntil(System.nanoTime() + (long) (number("seconds", 5) * 1e9), body, topic);
                client.flush();
                endNanos = System.nanoTime();
            } catch (Exception problem) {
                error = problem;
                warm.countDown();
            }
        }
    }

    private void produce() throws Exception {
        CountDownLatch go = new CountDownLatch(1);
        List<Producer> producers = new ArrayList<>();
        for (int i = 0; i < (int) number("producers", 1); i++) {
            producers.add(new Producer(go));
            producers.get(i).start();
        }
        for (Producer producer : producers) {
            producer.warm.await();
        }
        double cpu = cpuSeconds();
        mark("begin");
        long began = System.nanoTime();
        go.countDown();
        for (Producer producer : producers) {
            producer.join();
            if (producer.error != null) {
                throw producer.error;
            }
        }
        mark("end");
        cpu = cpuSeconds() - cpu;
        long acked = 0;
        long failed = 0;
        long ended = began;
        Histogram confirm = new Histogram();
        for (Producer producer : producers) {
            acked += producer.acked.sum();
            failed += producer.failed.get();
            ended = Math.max(ended, producer.endNanos);
            confirm.merge(producer.confirm);
        }
        print("produce", acked, failed, (ended - began) / 1e9, cpu, confirm);
        Runtime.getRuntime().halt(failed == 0 ? 0 : 2);
    }

    private long consume(String topic, long messages) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", text("broker", "127.0.0.1:9092"));
        settings.put("enable.auto.commit", "false");
        settings.putAll(clientSettings);
        long received = 0;
        try (var client = new KafkaConsumer<>(
                settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (var partition : client.partitionsFor(topic)) {
                partitions.add(new TopicPartition(partition.topic(), partition.partition()));
            }
            client.assign(partitions);
            client.seekToBeginning(partitions);
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(120);
            while (received < messages && System.nanoTime() < deadline) {
                received += client.poll(Duration.ofMillis(100)).count();
            }
        }
        return received;
    }

    private void consume() throws Exception {
        String topic = text("topic", "bench");
        consume(text("warm-up-topic", topic), (long) number("warm-up-messages", 1));
        double cpu = cpuSeconds();
        mark("begin");
        long began = System.nanoTime();
        long received = consume(topic, (long) number("messages", 1));
        double seconds = (System.nanoTime() - began) / 1e9;
        mark("end");
        print("consume", received, 0, seconds, cpuSeconds() - cpu, new Histogram());
        Runtime.getRuntime().halt(0);
    }

    private static void mark(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private void print(String mode, long messages, long failed, double seconds, double cpu,
            Histogram confirm) {
        mark(String.format(
                "{\"tool\":\"java\",\"library\":\"kafka-clients %s\",\"mode\":\"%s\",\"size\":%d,"
                        + "\"messages\":%d,\"failed\":%d,\"rate\":%.0f,\"seconds\":%.3f,"
                        + "\"client_cpu_us\":%.4f,\"client_cores\":%.3f,\"confirm_us\":%s}",
                org.apache.kafka.common.utils.AppInfoParser.getVersion(), mode, (int) number("size", 100),
                messages, failed, messages / seconds, seconds, cpu * 1e6 / Math.max(messages, 1),
                cpu / seconds, confirm.json()));
    }

    public static void main(String[] arguments) throws Exception {
        String mode = arguments.length == 0 ? "" : arguments[0];
        KafkaLoad load = new KafkaLoad(arguments);
        switch (mode) {
            case "produce" -> load.produce();
            case "consume" -> load.consume();
            default -> {
                System.err.println("usage: KafkaLoad produce|consume [--name=value] [-Xkey=value]");
                System.exit(1);
            }
        }
    }
}
