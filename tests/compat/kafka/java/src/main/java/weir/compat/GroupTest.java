package weir.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static weir.compat.Kit.eventually;
import static weir.compat.Kit.fresh;
import static weir.compat.Kit.names;
import static weir.compat.Kit.receive;
import static weir.compat.Kit.send;
import static weir.compat.Kit.values;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.InconsistentGroupProtocolException;
import org.apache.kafka.common.errors.InvalidSessionTimeoutException;
import org.apache.kafka.common.errors.WakeupException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Consumer groups: commits, rebalances, static members, refusals. */
class GroupTest {
    /** A subscribed consumer polled by a thread of its own. */
    static final class Member implements ConsumerRebalanceListener, AutoCloseable {
        final Consumer<String, String> consumer;
        final Set<TopicPartition> held = Collections.synchronizedSet(new HashSet<>());
        final List<ConsumerRecord<String, String>> got = Collections.synchronizedList(new ArrayList<>());
        volatile int assignments;
        volatile int revoked;
        volatile RuntimeException error;
        private final Thread thread;

        Member(Kit kit, String group, String topic, Object... pairs) {
            consumer = kit.consumer(group, pairs);
            consumer.subscribe(List.of(topic), this);
            thread = new Thread(this::run);
            thread.start();
            kit.closeLater(this);
        }

        private void run() {
            try {
                while (true) {
                    consumer.poll(Duration.ofMillis(100)).forEach(got::add);
                }
            } catch (WakeupException stop) {
                // close() asked for it.
            } catch (RuntimeException unexpected) {
                error = unexpected;
            } finally {
                consumer.close(Duration.ofSeconds(5));
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            held.addAll(partitions);
            assignments++;
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            held.removeAll(partitions);
            revoked += partitions.size();
        }

        @Override
        public void close() throws InterruptedException {
            consumer.wakeup();
            thread.join();
        }
    }

    private static boolean shared(int partitions, int share, Member... members) {
        Set<TopicPartition> all = new HashSet<>();
        for (Member member : members) {
            if (member.held.size() != share) {
                return false;
            }
            synchronized (member.held) {
                all.addAll(member.held);
            }
        }
        return all.size() == partitions;
    }

    private static Object[] strategy(String name) {
        return new Object[] {"partition.assignment.strategy", "org.apache.kafka.clients.consumer." + name};
    }

    @Test
    void nextMemberBeginsAtTheCommit() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            String group = fresh("g");
            send(kit.producer(), topic, 0, 10);
            var first = kit.consumer(group);
            first.subscribe(List.of(topic));
            receive(first, 10);
            first.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(4, "note")));
            first.close();
            var second = kit.consumer(group);
            second.subscribe(List.of(topic));
            assertEquals(names(4, 10), values(receive(second, 6)));
            var committed = second.committed(Set.of(new TopicPartition(topic, 0)));
            assertEquals(new OffsetAndMetadata(4, "note").metadata(),
                committed.get(new TopicPartition(topic, 0)).metadata());
        }
    }

    @Test
    void autoCommitOnClose() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            String group = fresh("g");
            send(kit.producer(), topic, 0, 10);
            var first = kit.consumer(group, "enable.auto.commit", true);
            first.subscribe(List.of(topic));
            receive(first, 10);
            first.close();
            var committed = kit.consumer(group).committed(Set.of(new TopicPartition(topic, 0)));
            assertEquals(10, committed.get(new TopicPartition(topic, 0)).offset());
        }
    }

    @Test
    void asynchronousCommitIsAnswered() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            send(kit.producer(), topic, 0, 3);
            var consumer = kit.consumer(fresh("g"));
            consumer.subscribe(List.of(topic));
            receive(consumer, 3);
            List<Exception> answers = Collections.synchronizedList(new ArrayList<>());
            consumer.commitAsync((offsets, error) -> answers.add(error));
            eventually("the answer", () -> {
                consumer.poll(Duration.ofMillis(50));
                return answers.size() == 1;
            });
            assertNull(answers.get(0));
        }
    }

    @Test
    void uncommittedPartitionHasNoOffset() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            var consumer = kit.consumer(fresh("g"));
            var one = new TopicPartition(topic, 0);
            var two = new TopicPartition(topic, 1);
            consumer.commitSync(Map.of(one, new OffsetAndMetadata(3)));
            var committed = consumer.committed(Set.of(one, two));
            assertEquals(3, committed.get(one).offset());
            assertNull(committed.get(two));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"RangeAssignor", "RoundRobinAssignor", "StickyAssignor",
        "CooperativeStickyAssignor"})
    void membersComeAndGo(String assignor) throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(6);
            String group = fresh("g");
            Member one = new Member(kit, group, topic, strategy(assignor));
            eventually("one holds all", () -> shared(6, 6, one));
            Member two = new Member(kit, group, topic, strategy(assignor));
            Member three = new Member(kit, group, topic, strategy(assignor));
            eventually("thirds", () -> shared(6, 2, one, two, three));
            send(kit.producer(), topic, 0, 300);
            eventually("all records",
                () -> one.got.size() + two.got.size() + three.got.size() == 300);
            one.close();
            eventually("halves", () -> shared(6, 3, two, three));
            two.close();
            eventually("all again", () -> shared(6, 6, three));
        }
    }

    @Test
    void cooperativeMemberKeepsWhatItMayKeep() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(4);
            String group = fresh("g");
            Member one = new Member(kit, group, topic, strategy("CooperativeStickyAssignor"));
            eventually("one holds all", () -> shared(4, 4, one));
            Member two = new Member(kit, group, topic, strategy("CooperativeStickyAssignor"));
            eventually("halves", () -> shared(4, 2, one, two));
            assertEquals(2, one.revoked);
        }
    }

    @Test
    void commitsOnRevokeLoseAndDoubleNothing() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(4);
            String group = fresh("g");
            var producer = kit.producer();
            send(producer, topic, 0, 500);
            Object[] auto = {"enable.auto.commit", true, "auto.commit.interval.ms", 100};
            Member one = new Member(kit, group, topic, auto);
            eventually("some", () -> one.got.size() > 100);
            Member two = new Member(kit, group, topic, auto);
            eventually("halves", () -> shared(4, 2, one, two));
            send(producer, topic, 500, 1000);
            eventually("all", () -> one.got.size() + two.got.size() >= 1000);
            var got = Stream.concat(values(List.copyOf(one.got)).stream(), values(List.copyOf(two.got)).stream())
                .sorted().collect(Collectors.toList());
            assertEquals(names(0, 1000).stream().sorted().collect(Collectors.toList()), got);
        }
    }

    @Test
    void staticMemberReturnsWithoutRebalance() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(4);
            String group = fresh("g");
            Member one = new Member(kit, group, topic, "group.instance.id", "one",
                "session.timeout.ms", 30_000);
            Member two = new Member(kit, group, topic, "group.instance.id", "two",
                "session.timeout.ms", 30_000);
            eventually("halves", () -> shared(4, 2, one, two));
            Set<TopicPartition> held = Set.copyOf(two.held);
            int assignments = one.assignments;
            two.close();
            Member again = new Member(kit, group, topic, "group.instance.id", "two",
                "session.timeout.ms", 30_000);
            eventually("the same half", () -> again.held.equals(held));
            assertEquals(assignments, one.assignments);
        }
    }

    @Test
    void secondHolderOfAnInstanceIdFencesTheFirst() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            String group = fresh("g");
            Member one = new Member(kit, group, topic, "group.instance.id", "same",
                "session.timeout.ms", 30_000);
            eventually("one holds both", () -> shared(2, 2, one));
            Member two = new Member(kit, group, topic, "group.instance.id", "same",
                "session.timeout.ms", 30_000);
            eventually("two holds both", () -> shared(2, 2, two));
            eventually("one is fenced", () -> one.error instanceof FencedInstanceIdException);
        }
    }

    @Test
    void membersWithoutACommonStrategyAreRefused() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            String group = fresh("g");
            Member one = new Member(kit, group, topic, strategy("RangeAssignor"));
            eventually("one holds both", () -> shared(2, 2, one));
            var two = kit.consumer(group, strategy("RoundRobinAssignor"));
            two.subscribe(List.of(topic));
            assertThrows(InconsistentGroupProtocolException.class, () -> receive(two, 1));
        }
    }

    @Test
    void tooShortASessionIsRefused() throws Exception {
        try (Kit kit = new Kit()) {
            var consumer = kit.consumer(fresh("g"), "session.timeout.ms", 1000);
            consumer.subscribe(List.of(kit.topic(1)));
            assertThrows(InvalidSessionTimeoutException.class, () -> receive(consumer, 1));
        }
    }

    @Test
    void memberThatStoppedPollingCannotCommit() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            String group = fresh("g");
            send(kit.producer(), topic, 0, 2);
            var slow = kit.consumer(group, "max.poll.interval.ms", 1000);
            slow.subscribe(List.of(topic));
            receive(slow, 2);
            Member other = new Member(kit, group, topic);
            eventually("the other took over", () -> shared(2, 2, other));
            assertThrows(CommitFailedException.class, () -> slow.commitSync(
                Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1))));
        }
    }

    @Test
    void patternSubscription() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            send(kit.producer(), topic, 0, 3);
            var consumer = kit.consumer(fresh("g"));
            consumer.subscribe(Pattern.compile(topic.substring(0, topic.length() - 2) + ".*"));
            assertEquals(names(0, 3), values(receive(consumer, 3)));
        }
    }

    @Test
    void newPartitionsAreAssigned() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(1);
            Member one = new Member(kit, fresh("g"), topic);
            eventually("one", () -> shared(1, 1, one));
            kit.admin().createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
            eventually("three", () -> shared(3, 3, one));
        }
    }

    @Test
    void rebalanceIsAskedFor() throws Exception {
        try (Kit kit = new Kit()) {
            String topic = kit.topic(2);
            var consumer = kit.consumer(fresh("g"));
            consumer.subscribe(List.of(topic));
            eventually("assigned", () -> {
                consumer.poll(Duration.ofMillis(50));
                return consumer.assignment().size() == 2;
            });
            int generation = consumer.groupMetadata().generationId();
            consumer.enforceRebalance();
            eventually("a new generation", () -> {
                consumer.poll(Duration.ofMillis(50));
                return consumer.groupMetadata().generationId() > generation;
            });
            assertTrue(consumer.groupMetadata().memberId().length() > 0);
        }
    }
}
