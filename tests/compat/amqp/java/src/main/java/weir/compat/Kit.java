package weir.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.function.Executable;

/** What the tests share. */
final class Kit {
    static final long PATIENCE_MS = 10_000;

    static ConnectionFactory factory() {
        String address = System.getenv("WEIR_COMPAT_AMQP");
        assertNotNull(address, "WEIR_COMPAT_AMQP is not set: run under tests/harness/with_weir.py");
        int colon = address.lastIndexOf(':');
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(address.substring(0, colon));
        factory.setPort(Integer.parseInt(address.substring(colon + 1)));
        factory.setAutomaticRecoveryEnabled(false);
        factory.setMaxInboundMessageBodySize(64 << 20);
        return factory;
    }

    static String fresh(String word) {
        return word + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    static String queue(Channel channel, Map<String, Object> arguments) throws IOException {
        return channel.queueDeclare(fresh("java"), false, true, false, arguments).getQueue();
    }

    static void publish(Channel channel, String exchange, String key, String body) throws IOException {
        channel.basicPublish(exchange, key, null, body.getBytes());
    }

    /** The next message, waited for. */
    static GetResponse get(Channel channel, String queue, boolean autoAck) throws Exception {
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (true) {
            GetResponse response = channel.basicGet(queue, autoAck);
            if (response != null) {
                return response;
            }
            assertTrue(System.currentTimeMillis() < end, "no message in " + queue);
            Thread.sleep(5);
        }
    }

    static void isEmpty(Channel channel, String queue) throws IOException {
        GetResponse response = channel.basicGet(queue, true);
        assertNull(response, () -> queue + " holds " + new String(response.getBody()));
    }

    /** Deliveries of a new consumer, as a queue. */
    static BlockingQueue<Delivery> consume(Channel channel, String queue, boolean autoAck) throws IOException {
        BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, autoAck, (tag, delivery) -> deliveries.add(delivery), tag -> { });
        return deliveries;
    }

    static <T> T next(BlockingQueue<T> from) throws InterruptedException {
        T value = from.poll(PATIENCE_MS, TimeUnit.MILLISECONDS);
        assertNotNull(value, "nothing came");
        return value;
    }

    static <T> void quiet(BlockingQueue<T> from, long ms) throws InterruptedException {
        assertNull(from.poll(ms, TimeUnit.MILLISECONDS));
    }

    static String text(Delivery delivery) {
        return new String(delivery.getBody());
    }

    static void until(BooleanSupplier condition, String what) throws InterruptedException {
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (!condition.getAsBoolean()) {
            assertTrue(System.currentTimeMillis() < end, what + " did not come true");
            Thread.sleep(5);
        }
    }

    /** The action must fail with a channel.close of this code and text. */
    static void refused(int code, String text, Executable action) {
        IOException failure = assertThrows(IOException.class, action);
        refused(code, text, (ShutdownSignalException) failure.getCause());
    }

    static void refused(int code, String text, ShutdownSignalException signal) {
        Object reason = signal.getReason();
        if (reason instanceof AMQP.Channel.Close close) {
            assertEquals(code + " " + text, close.getReplyCode() + " " + close.getReplyText());
        } else {
            AMQP.Connection.Close close = (AMQP.Connection.Close) reason;
            assertEquals(code + " " + text, close.getReplyCode() + " " + close.getReplyText());
        }
    }

    static void restart(String how) throws Exception {
        String command = System.getenv("WEIR_COMPAT_RESTART");
        Assumptions.assumeTrue(command != null, "WEIR_COMPAT_RESTART is not set");
        Process process = new ProcessBuilder("sh", "-c", command + " " + how).inheritIO().start();
        assertTrue(process.waitFor(120, TimeUnit.SECONDS), "the restart took too long");
        assertEquals(0, process.exitValue());
    }

    private Kit() { }
}
