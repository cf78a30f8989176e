package weir.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static weir.compat.Kit.eventually;
import static weir.compat.Kit.fresh;
import static weir.compat.Kit.names;
import static weir.compat.Kit.receive;
import static weir.compat.Kit.send;
import static weir.compat.Kit.values;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;
import org.junit.jupiter.api.parallel.Isolated;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Over restarts of the broker: these tests run alone, one after the other. */
@Isolated
@Execution(ExecutionMode.SAME_THREAD)
@EnabledIfEnvironmentVariable(named = "WEIR_COMPAT_RESTART", matches = ".+")
class RestartTest {
    @ParameterizedTest
    @ValueSource(strings = {"term", "kill"})
    void dataAndOffsetsSurvive(String how) throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2, "retention.ms", "7200000");
            String group = fresh("g");
            send(kit.producer("compression.type", "zstd"), topic, 1, 0, 200);
            var at = new TopicPartition(topic, 1);
            var first = kit.consumer(group);
            first.commitSync(Map.of(at, new OffsetAndMetadata(150, "here")));
            first.close();
            Kit.restart(how);
            var second = kit.consumer(group);
            second.assign(List.of(at));
            assertEquals(names(150, 200), values(receive(second, 50)));
            assertEquals("here", second.committed(Set.of(at)).get(at).metadata());
            second.seekToBeginning(List.of(at));
            assertEquals(names(0, 200), values(receive(second, 200)));
            assertEquals(200, send(kit.producer(), topic, 1, 200, 201).get(0).offset());
        }
    }

    @Test
    void idempotentProducerGoesOn() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            var producer = kit.producer("linger.ms", 0, "batch.size", 200);
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            Thread restart = new Thread(() -> {
                try {
                    Kit.restart("term");
                } catch (Exception error) {
                    throw new IllegalStateException(error);
                }
            });
            for (int i = 0; i < 3000; i++) {
                futures.add(producer.send(new ProducerRecord<>(topic, "m" + i)));
                if (i == 500) {
                    restart.start();
                }
                if (i % 4 == 0) {
                    Thread.sleep(1);
                }
            }
            restart.join();
            for (var future : futures) {
                future.get(60, TimeUnit.SECONDS);
            }
            var consumer = kit.reader(topic, 0, 0);
            assertEquals(names(0, 3000), values(receive(consumer, 3000)));
            assertTrue(consumer.poll(Duration.ofMillis(300)).isEmpty());
        }
    }

    @Test
    void groupMemberReadsOn() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            var producer = kit.producer();
            var member = new GroupTest.Member(kit, fresh("g"), topic, "enable.auto.commit", true,
                "auto.commit.interval.ms", 100);
            send(producer, topic, 0, 50);
            eventually("the first fifty", () -> member.got.size() == 50);
            Kit.restart("term");
            send(producer, topic, 50, 100);
            eventually("all", () -> new HashSet<>(values(List.copyOf(member.got))).size() == 100);
        }
    }
}
