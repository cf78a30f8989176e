package weir.compat;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static weir.compat.Kit.consume;
import static weir.compat.Kit.fresh;
import static weir.compat.Kit.get;
import static weir.compat.Kit.isEmpty;
import static weir.compat.Kit.next;
import static weir.compat.Kit.publish;
import static weir.compat.Kit.queue;
import static weir.compat.Kit.quiet;
import static weir.compat.Kit.refused;
import static weir.compat.Kit.text;
import static weir.compat.Kit.until;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.client.RpcServer;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** RabbitMQ's Java client: a sample of what the pika suite asks in full. */
class ClientTest {
    private Connection connection;
    private Channel channel;

    @BeforeEach
    void open() throws Exception {
        connection = Kit.factory().newConnection();
        channel = connection.createChannel();
    }

    @AfterEach
    void close() throws Exception {
        connection.abort();
    }

    @Test
    void serverPropertiesAndTuning() throws Exception {
        assertFalse(connection.getServerProperties().get("product").toString().isEmpty());
        assertEquals(131072, connection.getFrameMax());
        assertEquals(2047, connection.getChannelMax());
        assertEquals(60, connection.getHeartbeat());
    }

    @Test
    void aWrongPasswordIsRefused() {
        ConnectionFactory factory = Kit.factory();
        factory.setPassword("wrong");
        AuthenticationFailureException failure =
            assertThrows(AuthenticationFailureException.class, factory::newConnection);
        assertEquals("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
            + "For details see the broker logfile.", failure.getMessage());
    }

    @Test
    void aMissingVhostIsRefused() {
        ConnectionFactory factory = Kit.factory();
        factory.setVirtualHost("no-such-vhost");
        IOException failure = assertThrows(IOException.class, factory::newConnection);
        refused(530, "NOT_ALLOWED - vhost no-such-vhost not found", (ShutdownSignalException) failure.getCause());
    }

    @Test
    void aSmallFrameMaxIsObeyed() throws Exception {
        ConnectionFactory factory = Kit.factory();
        factory.setRequestedFrameMax(4096);
        try (Connection small = factory.newConnection(); Channel ch = small.createChannel()) {
            String queue = queue(ch, null);
            publish(ch, "", queue, "x".repeat(30000));
            assertEquals(30000, get(ch, queue, true).getBody().length);
        }
    }

    @Test
    void propertiesAndHeadersArrive() throws Exception {
        String queue = queue(channel, null);
        Date moment = new Date(1709208000000L);
        Map<String, Object> headers = new HashMap<>();
        headers.put("text", "가입");
        headers.put("yes", true);
        headers.put("nothing", null);
        headers.put("byte", (byte) -3);
        headers.put("short", (short) -300);
        headers.put("int", -7);
        headers.put("long", -5000000000L);
        headers.put("float", 0.5f);
        headers.put("double", 2.25);
        headers.put("price", new BigDecimal("12.34"));
        headers.put("negative price", new BigDecimal("-0.05"));
        headers.put("moment", moment);
        headers.put("bytes", new byte[] {0, -1});
        headers.put("list", List.of(1, "two", Map.of("three", true)));
        headers.put("table", Map.of("a", Map.of("b", "deep")));
        AMQP.BasicProperties sent = new AMQP.BasicProperties("text/plain", "utf-8", headers, 2, 3, "c", "r", "60000",
            "m", moment, "t", "guest", "a", "cluster");
        channel.basicPublish("", queue, sent, "body".getBytes());
        GetResponse got = get(channel, queue, true);
        assertEquals("body", new String(got.getBody()));
        AMQP.BasicProperties properties = got.getProps();
        assertEquals(sent.builder().headers(null).build(), properties.builder().headers(null).build());
        Map<String, Object> received = new HashMap<>(properties.getHeaders());
        assertArrayEquals((byte[]) headers.remove("bytes"), (byte[]) received.remove("bytes"));
        assertEquals(plain(headers), plain(received));
    }

    /** The client hands strings over as LongString. */
    private static Object plain(Object value) {
        if (value instanceof LongString string) {
            return string.toString();
        } else if (value instanceof List<?> list) {
            return list.stream().map(ClientTest::plain).toList();
        } else if (value instanceof Map<?, ?> map) {
            Map<Object, Object> copy = new HashMap<>();
            map.forEach((key, item) -> copy.put(key, plain(item)));
            return copy;
        }
        return value;
    }

    @Test
    void exchangesRoute() throws Exception {
        Object[][] cases = {
            {BuiltinExchangeType.DIRECT, "k", "k", "l"}, {BuiltinExchangeType.FANOUT, "", "any", null},
            {BuiltinExchangeType.TOPIC, "a.*.#", "a.b.c", "b.a"}, {BuiltinExchangeType.HEADERS, "", "", ""},
        };
        for (Object[] c : cases) {
            String x = fresh("x");
            String queue = queue(channel, null);
            channel.exchangeDeclare(x, (BuiltinExchangeType) c[0], false, true, null);
            channel.queueBind(queue, x, (String) c[1], Map.of("x-match", "all", "colour", "red"));
            if (c[3] != null) {
                channel.basicPublish(x, (String) c[3], coloured("blue"), "miss".getBytes());
            }
            channel.basicPublish(x, (String) c[2], coloured("red"), "hit".getBytes());
            assertEquals("hit", new String(get(channel, queue, true).getBody()));
            isEmpty(channel, queue);
        }
    }

    private static AMQP.BasicProperties coloured(String colour) {
        return new AMQP.BasicProperties.Builder().headers(Map.of("colour", colour)).build();
    }

    @Test
    void exchangesFeedExchangesAndAlternates() throws Exception {
        String alternate = fresh("alternate");
        String source = fresh("source");
        String target = fresh("target");
        channel.exchangeDeclare(alternate, "fanout", false, true, null);
        channel.exchangeDeclare(source, "direct", false, true, Map.of("alternate-exchange", alternate));
        channel.exchangeDeclare(target, "fanout", false, true, null);
        channel.exchangeBind(target, source, "go");
        String through = queue(channel, null);
        String rest = queue(channel, null);
        channel.queueBind(through, target, "");
        channel.queueBind(rest, alternate, "");
        publish(channel, source, "go", "1");
        publish(channel, source, "stay", "2");
        assertEquals("1", new String(get(channel, through, true).getBody()));
        assertEquals("2", new String(get(channel, rest, true).getBody()));
    }

    @Test
    void acksNacksAndRejectsSettle() throws Exception {
        String queue = queue(channel, null);
        for (String body : List.of("ack", "requeue", "drop")) {
            publish(channel, "", queue, body);
        }
        BlockingQueue<Delivery> deliveries = consume(channel, queue, false);
        Delivery first = next(deliveries);
        Delivery second = next(deliveries);
        Delivery third = next(deliveries);
        channel.basicAck(first.getEnvelope().getDeliveryTag(), false);
        channel.basicNack(second.getEnvelope().getDeliveryTag(), false, true);
        channel.basicReject(third.getEnvelope().getDeliveryTag(), false);
        Delivery again = next(deliveries);
        assertEquals("requeue", text(again));
        assertTrue(again.getEnvelope().isRedeliver());
        assertEquals(4, again.getEnvelope().getDeliveryTag());
        channel.basicRecover(true);
        assertTrue(next(deliveries).getEnvelope().isRedeliver());
        quiet(deliveries, 100);
    }

    @Test
    void prefetchHoldsDeliveriesBack() throws Exception {
        for (boolean global : new boolean[] {false, true}) {
            Channel ch = connection.createChannel();
            String queue = queue(ch, null);
            ch.basicQos(2, global);
            BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
            for (int number = 0; number < 2; number++) {
                ch.basicConsume(queue, false, (tag, delivery) -> deliveries.add(delivery), tag -> { });
            }
            for (int number = 0; number < 8; number++) {
                publish(ch, "", queue, "" + number);
            }
            int held = global ? 2 : 4;
            until(() -> deliveries.size() == held, held + " deliveries");
            Thread.sleep(100);
            assertEquals(held, deliveries.size());
            ch.basicAck(0, true);
            until(() -> deliveries.size() == 2 * held, "deliveries after the ack");
        }
    }

    @Test
    void messagesGoRoundAmongConsumers() throws Exception {
        String queue = queue(channel, null);
        List<BlockingQueue<Delivery>> consumers = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            consumers.add(consume(connection.createChannel(), queue, true));
        }
        for (int number = 0; number < 30; number++) {
            publish(channel, "", queue, "" + number);
        }
        for (BlockingQueue<Delivery> consumer : consumers) {
            until(() -> consumer.size() == 10, "ten deliveries");
        }
    }

    @Test
    void aConsumerIsToldThatItsQueueWasDeleted() throws Exception {
        String queue = queue(channel, null);
        BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, false, "watcher", (tag, delivery) -> { }, cancelled::add);
        channel.queueDelete(queue);
        assertEquals("watcher", next(cancelled));
        assertTrue(channel.isOpen());
    }

    @Test
    void cancelStopsDeliveriesAndLeavesWhatIsUnacked() throws Exception {
        String queue = queue(channel, null);
        BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
        String tag = channel.basicConsume(queue, false, (t, delivery) -> deliveries.add(delivery), t -> { });
        publish(channel, "", queue, "held");
        Delivery held = next(deliveries);
        channel.basicCancel(tag);
        publish(channel, "", queue, "waits");
        assertEquals("waits", new String(get(channel, queue, true).getBody()));
        channel.basicNack(held.getEnvelope().getDeliveryTag(), false, true);
        assertEquals("held", new String(get(channel, queue, true).getBody()));
    }

    @Test
    void everyPublishIsConfirmed() throws Exception {
        String queue = fresh("durable");
        channel.queueDeclare(queue, true, false, false, null);
        channel.confirmSelect();
        for (int number = 0; number < 2000; number++) {
            channel.basicPublish("", queue, com.rabbitmq.client.MessageProperties.PERSISTENT_BASIC, ("" + number).getBytes());
        }
        channel.waitForConfirmsOrDie(Kit.PATIENCE_MS);
        assertEquals(2001, channel.getNextPublishSeqNo());
        assertEquals(2000, channel.messageCount(queue));
        channel.queueDelete(queue);
    }

    @Test
    void aReturnComesBeforeItsConfirm() throws Exception {
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        channel.addReturnListener(r -> events.add("return " + r.getReplyCode() + " " + r.getReplyText() + " "
            + new String(r.getBody())));
        channel.confirmSelect();
        channel.addConfirmListener((tag, multiple) -> events.add("ack " + tag), (tag, multiple) -> events.add("nack"));
        channel.basicPublish("amq.direct", fresh("nowhere"), true, null, "back".getBytes());
        assertEquals("return 312 NO_ROUTE back", next(events));
        assertEquals("ack 1", next(events));
    }

    @Test
    void aFullQueueThatRejectsNacks() throws Exception {
        String queue = queue(channel, Map.of("x-max-length", 1, "x-overflow", "reject-publish"));
        channel.confirmSelect();
        publish(channel, "", queue, "fits");
        assertTrue(channel.waitForConfirms());
        publish(channel, "", queue, "does not");
        assertFalse(channel.waitForConfirms());
    }

    @Test
    void aTransactionCommitsAndRollsBack() throws Exception {
        String queue = queue(channel, null);
        channel.txSelect();
        publish(channel, "", queue, "rolled back");
        channel.txRollback();
        publish(channel, "", queue, "committed");
        channel.txCommit();
        assertEquals("committed", new String(get(channel, queue, true).getBody()));
        isEmpty(channel, queue);
    }

    @Test
    void errorsNameCodeAndText() throws Exception {
        String queue = queue(channel, Map.of("x-message-ttl", 60000));
        String missing = fresh("missing");
        refused(404, "NOT_FOUND - no queue '" + missing + "' in vhost '/'",
            () -> connection.createChannel().queueDeclarePassive(missing));
        refused(404, "NOT_FOUND - no exchange '" + missing + "' in vhost '/'",
            () -> connection.createChannel().exchangeDeclarePassive(missing));
        refused(406, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '" + queue
            + "' in vhost '/': received '70000' but current is '60000'",
            () -> connection.createChannel().queueDeclare(queue, false, true, false, Map.of("x-message-ttl", 70000L)));
        refused(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.fanout' in vhost '/': "
            + "received 'direct' but current is 'fanout'",
            () -> connection.createChannel().exchangeDeclare("amq.fanout", "direct", true));
        refused(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
            () -> connection.createChannel().queueDeclare("amq.mine", false, false, false, null));
        try (Connection other = Kit.factory().newConnection()) {
            refused(405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + queue
                + "' in vhost '/'. It could be originally declared on another connection or the exclusive property "
                + "value does not match that of the original declaration.",
                () -> other.createChannel().queueDeclarePassive(queue));
        }
        assertTrue(channel.isOpen());
    }

    @Test
    void errorsThatNobodyWaitsForCloseTheChannel() throws Exception {
        BlockingQueue<ShutdownSignalException> signals = new LinkedBlockingQueue<>();
        channel.addShutdownListener(signals::add);
        channel.basicAck(7, false);
        refused(406, "PRECONDITION_FAILED - unknown delivery tag 7", next(signals));
        Channel publishing = connection.createChannel();
        publishing.addShutdownListener(signals::add);
        String missing = fresh("x");
        publish(publishing, missing, "k", "m");
        refused(404, "NOT_FOUND - no exchange '" + missing + "' in vhost '/'", next(signals));
        assertTrue(connection.isOpen());
    }

    @Test
    void aConsumerTagUsedTwiceEndsTheConnection() throws Exception {
        String queue = queue(channel, null);
        channel.basicConsume(queue, true, "same", (tag, delivery) -> { }, tag -> { });
        refused(530, "NOT_ALLOWED - attempt to reuse consumer tag 'same'",
            () -> channel.basicConsume(queue, true, "same", (tag, delivery) -> { }, tag -> { }));
    }

    @Test
    void largeBodiesArriveAndOneOverTheLimitIsRefused() throws Exception {
        String queue = queue(channel, null);
        Random random = new Random(1);
        for (int size : new int[] {0, 131064, 131065, 1 << 20, 15 << 20}) {
            byte[] body = new byte[size];
            random.nextBytes(body);
            channel.basicPublish("", queue, null, body);
            assertTrue(Arrays.equals(body, get(channel, queue, true).getBody()), size + " bytes");
        }
        BlockingQueue<ShutdownSignalException> signals = new LinkedBlockingQueue<>();
        channel.addShutdownListener(signals::add);
        channel.basicPublish("", queue, null, new byte[(16 << 20) + 1]);
        refused(406, "PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216",
            next(signals));
    }

    @Test
    void expiredAndRejectedMessagesAreDeadLettered() throws Exception {
        String dead = queue(channel, null);
        String queue = queue(channel, Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
        channel.basicPublish("", queue, new AMQP.BasicProperties.Builder().expiration("50").build(), "m".getBytes());
        AMQP.BasicProperties expired = get(channel, dead, true).getProps();
        assertNull(expired.getExpiration());
        assertEquals("expired", death(expired).get("reason").toString());
        assertEquals("50", death(expired).get("original-expiration").toString());
        publish(channel, "", queue, "rejected");
        channel.basicReject(get(channel, queue, false).getEnvelope().getDeliveryTag(), false);
        Map<String, Object> death = death(get(channel, dead, true).getProps());
        assertEquals("rejected", death.get("reason").toString());
        assertEquals(queue, death.get("queue").toString());
        assertEquals(1L, death.get("count"));
        assertEquals(List.of(queue), plain(death.get("routing-keys")));
        assertTrue(death.get("time") instanceof Date);
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> death(AMQP.BasicProperties properties) {
        return ((List<Map<String, Object>>) properties.getHeaders().get("x-death")).get(0);
    }

    @Test
    void countsPurgeAndServerNames() throws Exception {
        String queue = channel.queueDeclare().getQueue();
        assertTrue(queue.startsWith("amq.gen-"), queue);
        for (int number = 0; number < 3; number++) {
            publish(channel, "", queue, "m");
        }
        get(channel, queue, true);
        assertEquals(2, channel.queuePurge(queue).getMessageCount());
        consume(channel, queue, true);
        assertEquals(1, channel.consumerCount(queue));
        refused(406, "PRECONDITION_FAILED - queue '" + queue + "' in vhost '/' in use",
            () -> connection.createChannel().queueDelete(queue, true, false));
        assertEquals(0, channel.queueDelete(queue).getMessageCount());
    }

    @Test
    void remoteCallsAreAnswered() throws Exception {
        String queue = queue(channel, null);
        RpcServer server = new RpcServer(connection.createChannel(), queue) {
            @Override
            public byte[] handleCall(byte[] body, AMQP.BasicProperties properties) {
                return new String(body).toUpperCase().getBytes();
            }
        };
        Thread thread = new Thread(() -> {
            try {
                server.mainloop();
            } catch (IOException | ShutdownSignalException closed) {
                // the connection ends with the test
            }
        });
        thread.setDaemon(true);
        thread.start();
        String replies = queue(channel, null);
        RpcClient client = new RpcClient(new RpcClientParams().channel(channel).exchange("").routingKey(queue)
            .replyTo(replies).timeout((int) Kit.PATIENCE_MS));
        for (int number = 0; number < 20; number++) {
            assertEquals("CALL " + number, client.stringCall("call " + number));
        }
        client.close();
    }

    @Test
    void tenChannelsKeepTheirOrder() throws Exception {
        for (int number = 0; number < 10; number++) {
            Channel ch = connection.createChannel();
            String queue = queue(ch, null);
            BlockingQueue<Delivery> deliveries = consume(ch, queue, true);
            for (int word = 0; word < 200; word++) {
                publish(ch, "", queue, "" + word);
            }
            for (int word = 0; word < 200; word++) {
                assertEquals("" + word, text(next(deliveries)));
            }
        }
    }

    @Test
    void heartbeatsKeepAnIdleConnection() throws Exception {
        ConnectionFactory factory = Kit.factory();
        factory.setRequestedHeartbeat(1);
        try (Connection idle = factory.newConnection()) {
            assertEquals(1, idle.getHeartbeat());
            Thread.sleep(4000);
            assertTrue(idle.isOpen());
            idle.createChannel();
        }
    }
}
