package weir.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static weir.compat.Kit.consume;
import static weir.compat.Kit.fresh;
import static weir.compat.Kit.next;
import static weir.compat.Kit.publish;
import static weir.compat.Kit.text;
import static weir.compat.Kit.until;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import com.rabbitmq.client.ShutdownSignalException;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The Java client over restarts of the broker, alone and with its own recovery. */
class RestartTest {
    @ParameterizedTest
    @ValueSource(strings = {"term", "kill"})
    void durableQueuesAndPersistentMessagesSurvive(String how) throws Exception {
        String queue = fresh("durable");
        BlockingQueue<ShutdownSignalException> signals = new LinkedBlockingQueue<>();
        Connection before = Kit.factory().newConnection();
        before.addShutdownListener(signals::add);
        Channel channel = before.createChannel();
        channel.queueDeclare(queue, true, false, false, null);
        channel.confirmSelect();
        for (int number = 0; number < 100; number++) {
            channel.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC, ("" + number).getBytes());
        }
        channel.waitForConfirmsOrDie(Kit.PATIENCE_MS);
        Kit.restart(how);
        ShutdownSignalException signal = next(signals);
        if (how.equals("term")) {
            assertEquals(320, ((AMQP.Connection.Close) signal.getReason()).getReplyCode());
        }
        try (Connection after = Kit.factory().newConnection()) {
            Channel ch = after.createChannel();
            assertEquals(100, ch.messageCount(queue));
            BlockingQueue<Delivery> deliveries = consume(ch, queue, true);
            for (int number = 0; number < 100; number++) {
                assertEquals("" + number, text(next(deliveries)));
            }
            ch.queueDelete(queue);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"term", "kill"})
    void aRecoveringConnectionGoesOnWithItsQueuesAndConsumers(String how) throws Exception {
        ConnectionFactory factory = Kit.factory();
        factory.setAutomaticRecoveryEnabled(true);
        factory.setNetworkRecoveryInterval(200);
        AtomicBoolean recovered = new AtomicBoolean();
        try (Connection connection = factory.newConnection()) {
            ((Recoverable) connection).addRecoveryListener(new RecoveryListener() {
                @Override
                public void handleRecovery(Recoverable recoverable) {
                    recovered.set(true);
                }

                @Override
                public void handleRecoveryStarted(Recoverable recoverable) { }
            });
            Channel channel = connection.createChannel();
            String x = fresh("x");
            channel.exchangeDeclare(x, "topic");
            String named = channel.queueDeclare().getQueue(); // gets another name by the recovery
            channel.queueBind(named, x, "a.#");
            BlockingQueue<Delivery> deliveries = consume(channel, named, true);
            publish(channel, x, "a.b", "before");
            assertEquals("before", text(next(deliveries)));
            Kit.restart(how);
            until(recovered::get, "the recovery");
            String got = null;
            while (got == null) {
                try {
                    publish(channel, x, "a.c", "after");
                } catch (AlreadyClosedException closed) {
                    // the broker was found, and lost once more
                }
                Delivery delivery = deliveries.poll(200, TimeUnit.MILLISECONDS);
                got = delivery == null ? null : text(delivery);
            }
            assertEquals("after", got);
            channel.exchangeDelete(x);
        }
    }
}
