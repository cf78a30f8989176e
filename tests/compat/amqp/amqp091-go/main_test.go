// amqp091-go against the broker: a sample of what the pika suite asks in full.
package amqp091

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestBadLoginAndMissingVhostAreRefused(t *testing.T) {
	_, err := amqp.Dial(strings.Replace(url(), "guest:guest", "guest:wrong", 1))
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Fatalf("wrong password: %v", err)
	}
	_, err = amqp.Dial(url() + "/no-such-vhost")
	if err == nil || !strings.Contains(err.Error(), "vhost") {
		t.Fatalf("missing vhost: %v", err)
	}
}

func TestServerPropertiesAndTuning(t *testing.T) {
	connection, err := amqp.DialConfig(url(), amqp.Config{FrameSize: 8192, ChannelMax: 50, Heartbeat: 7 * time.Second})
	must(t, err)
	defer connection.Close()
	if connection.Properties["product"] == "" {
		t.Fatal("no product")
	}
	equal(t, connection.Config.FrameSize, 8192)
	equal(t, connection.Config.Heartbeat, 7*time.Second)
	ch := channel(t, connection)
	name := queue(t, ch, nil)
	publish(t, ch, "", name, strings.Repeat("x", 50000))
	equal(t, len(get(t, ch, name, true).Body), 50000)
}

func TestPropertiesAndHeadersArrive(t *testing.T) {
	ch := open(t)
	name := queue(t, ch, nil)
	moment := time.Unix(1709208000, 0)
	headers := amqp.Table{
		"text": "가입", "yes": true, "nothing": nil, "byte": int8(-3), "ubyte": byte(250), "short": int16(-300),
		"int": int32(-7), "long": int64(-5000000000), "float": float32(0.5), "double": 2.25,
		"bytes": []byte{0, 255}, "moment": moment, "price": amqp.Decimal{Scale: 2, Value: 1234},
		"list":  []interface{}{int32(1), "two", amqp.Table{"three": true}, []interface{}{int32(4)}},
		"table": amqp.Table{"a": amqp.Table{"b": "deep"}},
	}
	sent := amqp.Publishing{
		Headers: headers, ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent,
		Priority: 3, CorrelationId: "c", ReplyTo: "r", Expiration: "60000", MessageId: "m", Timestamp: moment,
		Type: "t", UserId: "guest", AppId: "a", Body: []byte("body"),
	}
	must(t, ch.PublishWithContext(context.Background(), "", name, false, false, sent))
	got := get(t, ch, name, true)
	equal(t, string(got.Body), "body")
	if !reflect.DeepEqual(got.Headers, headers) {
		t.Fatalf("got %#v", got.Headers)
	}
	received := amqp.Publishing{
		Headers: got.Headers, ContentType: got.ContentType, ContentEncoding: got.ContentEncoding,
		DeliveryMode: got.DeliveryMode, Priority: got.Priority, CorrelationId: got.CorrelationId,
		ReplyTo: got.ReplyTo, Expiration: got.Expiration, MessageId: got.MessageId, Timestamp: got.Timestamp,
		Type: got.Type, UserId: got.UserId, AppId: got.AppId, Body: got.Body,
	}
	if !reflect.DeepEqual(received, sent) {
		t.Fatalf("got %#v\nwant %#v", received, sent)
	}
}

func TestExchangesRoute(t *testing.T) {
	ch := open(t)
	red := amqp.Table{"x-match": "all", "colour": "red"}
	for _, c := range []struct {
		kind, pattern string
		args          amqp.Table
		hit, miss     string
	}{
		{"direct", "k", nil, "k", "l"}, {"fanout", "", nil, "any", ""}, {"topic", "a.*.#", nil, "a.b.c", "b.a"},
		{"headers", "", red, "", ""},
	} {
		x, name := fresh(c.kind), queue(t, ch, nil)
		must(t, ch.ExchangeDeclare(x, c.kind, false, true, false, false, nil))
		must(t, ch.QueueBind(name, c.pattern, x, false, c.args))
		if c.miss != "" || c.args != nil {
			must(t, ch.PublishWithContext(context.Background(), x, c.miss, false, false,
				amqp.Publishing{Headers: amqp.Table{"colour": "blue"}, Body: []byte("miss")}))
		}
		must(t, ch.PublishWithContext(context.Background(), x, c.hit, false, false,
			amqp.Publishing{Headers: amqp.Table{"colour": "red"}, Body: []byte("hit")}))
		equal(t, string(get(t, ch, name, true).Body), "hit")
		isEmpty(t, ch, name)
	}
}

func TestExchangeToExchangeAndAlternateExchange(t *testing.T) {
	ch := open(t)
	alternate, source, target := fresh("alternate"), fresh("source"), fresh("target")
	must(t, ch.ExchangeDeclare(alternate, "fanout", false, true, false, false, nil))
	must(t, ch.ExchangeDeclare(source, "direct", false, true, false, false, amqp.Table{"alternate-exchange": alternate}))
	must(t, ch.ExchangeDeclare(target, "fanout", false, true, false, false, nil))
	must(t, ch.ExchangeBind(target, "go", source, false, nil))
	through, rest := queue(t, ch, nil), queue(t, ch, nil)
	must(t, ch.QueueBind(through, "", target, false, nil))
	must(t, ch.QueueBind(rest, "", alternate, false, nil))
	publish(t, ch, source, "go", "1")
	publish(t, ch, source, "stay", "2")
	equal(t, string(get(t, ch, through, true).Body), "1")
	equal(t, string(get(t, ch, rest, true).Body), "2")
}

func TestAckNackRejectAndRedelivery(t *testing.T) {
	ch := open(t)
	name := queue(t, ch, nil)
	for _, body := range []string{"ack", "requeue", "drop"} {
		publish(t, ch, "", name, body)
	}
	deliveries := consume(t, ch, name, false)
	first, second, third := next(t, deliveries), next(t, deliveries), next(t, deliveries)
	must(t, first.Ack(false))
	must(t, second.Nack(false, true))
	must(t, third.Reject(false))
	again := next(t, deliveries)
	equal(t, string(again.Body), "requeue")
	equal(t, again.Redelivered, true)
	equal(t, again.DeliveryTag, uint64(4))
	must(t, again.Ack(true))
	quiet(t, deliveries, 100*time.Millisecond)
}

func TestPrefetchPerConsumerAndPerChannel(t *testing.T) {
	connection := connect(t)
	for _, c := range []struct {
		global bool
		held   int
	}{{false, 4}, {true, 2}} {
		ch := channel(t, connection)
		name := queue(t, ch, nil)
		must(t, ch.Qos(2, 0, c.global))
		got := make(chan amqp.Delivery, 100)
		for range 2 {
			deliveries := consume(t, ch, name, false)
			go func() {
				for delivery := range deliveries {
					got <- delivery
				}
			}()
		}
		for number := range 8 {
			publish(t, ch, "", name, fmt.Sprint(number))
		}
		for range c.held {
			next(t, got)
		}
		quiet(t, got, 100*time.Millisecond)
		must(t, ch.Ack(0, true))
		for range c.held {
			next(t, got)
		}
	}
}

func TestMessagesGoRoundAmongConsumers(t *testing.T) {
	ch := open(t)
	name := queue(t, ch, nil)
	var consumers []<-chan amqp.Delivery
	for range 3 {
		consumers = append(consumers, consume(t, ch, name, true))
	}
	for number := range 30 {
		publish(t, ch, "", name, fmt.Sprint(number))
	}
	for _, consumer := range consumers {
		for range 10 {
			next(t, consumer)
		}
		quiet(t, consumer, 20*time.Millisecond)
	}
}

func TestConsumerEndsWhenItsQueueIsDeleted(t *testing.T) {
	ch := open(t)
	name := queue(t, ch, nil)
	cancelled := ch.NotifyCancel(make(chan string, 1))
	_, err := ch.Consume(name, "watcher", false, false, false, false, nil)
	must(t, err)
	_, err = ch.QueueDelete(name, false, false, false)
	must(t, err)
	equal(t, next(t, cancelled), "watcher")
	queue(t, ch, nil)
}

func TestConfirms(t *testing.T) {
	ch := open(t)
	name := fresh("durable")
	_, err := ch.QueueDeclare(name, true, false, false, false, nil)
	must(t, err)
	defer ch.QueueDelete(name, false, false, false)
	must(t, ch.Confirm(false))
	var pending []*amqp.DeferredConfirmation
	for number := range 1000 {
		confirm, err := ch.PublishWithDeferredConfirmWithContext(context.Background(), "", name, false, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(number))})
		must(t, err)
		pending = append(pending, confirm)
	}
	for number, confirm := range pending {
		equal(t, confirm.DeliveryTag, uint64(number+1))
		equal(t, confirm.Wait(), true)
	}
	declared, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	must(t, err)
	equal(t, declared.Messages, 1000)
}

func TestReturnComesBeforeItsConfirm(t *testing.T) {
	ch := open(t)
	must(t, ch.Confirm(false))
	events := make(chan string, 2)
	returns, confirms := ch.NotifyReturn(make(chan amqp.Return)), ch.NotifyPublish(make(chan amqp.Confirmation))
	go func() {
		for range 2 {
			select {
			case r := <-returns:
				events <- fmt.Sprint("return ", r.ReplyCode, " ", r.ReplyText, " ", string(r.Body))
			case c := <-confirms:
				events <- fmt.Sprint("confirm ", c.DeliveryTag, " ", c.Ack)
			}
		}
	}()
	must(t, ch.PublishWithContext(context.Background(), "amq.direct", fresh("nowhere"), true, false,
		amqp.Publishing{Body: []byte("back")}))
	equal(t, next(t, events), "return 312 NO_ROUTE back")
	equal(t, next(t, events), "confirm 1 true")
}

func TestAFullQueueThatRejectsNacks(t *testing.T) {
	ch := open(t)
	name := queue(t, ch, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	must(t, ch.Confirm(false))
	for _, acked := range []bool{true, false} {
		confirm, err := ch.PublishWithDeferredConfirmWithContext(context.Background(), "", name, false, false,
			amqp.Publishing{Body: []byte("m")})
		must(t, err)
		equal(t, confirm.Wait(), acked)
	}
}

func TestTransaction(t *testing.T) {
	ch := open(t)
	name := queue(t, ch, nil)
	must(t, ch.Tx())
	publish(t, ch, "", name, "rolled back")
	must(t, ch.TxRollback())
	publish(t, ch, "", name, "committed")
	must(t, ch.TxCommit())
	equal(t, string(get(t, ch, name, true).Body), "committed")
	isEmpty(t, ch, name)
}

func TestErrorsNameCodeAndText(t *testing.T) {
	connection := connect(t)
	owner := channel(t, connection)
	name, missing := queue(t, owner, amqp.Table{"x-max-length": int32(5)}), fresh("missing")
	other := connect(t)
	cases := []struct {
		code int
		text string
		act  func(ch *amqp.Channel) error
	}{
		{404, "NOT_FOUND - no queue '" + missing + "' in vhost '/'", func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(missing, false, false, false, false, nil)
			return err
		}},
		{404, "NOT_FOUND - no exchange '" + missing + "' in vhost '/'", func(ch *amqp.Channel) error {
			return ch.QueueBind(name, "k", missing, false, nil)
		}},
		{406, "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '" + name +
			"' in vhost '/': received none but current is the value '5' of type 'signedint'", func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(name, false, false, true, false, nil)
			return err
		}},
		{406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.topic' in vhost '/': " +
			"received 'direct' but current is 'topic'", func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare("amq.topic", "direct", true, false, false, false, nil)
		}},
		{403, "ACCESS_REFUSED - operation not permitted on the default exchange", func(ch *amqp.Channel) error {
			return ch.ExchangeDelete("", false, false)
		}},
	}
	for _, c := range cases {
		refused(t, c.act(channel(t, connection)), c.code, c.text)
	}
	_, err := channel(t, other).QueueDeclare(name, false, false, true, false, nil)
	refused(t, err, 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '"+name+"' in vhost '/'. "+
		"It could be originally declared on another connection or the exclusive property value does not match "+
		"that of the original declaration.")
	equal(t, connection.IsClosed(), false)
}

func TestErrorsThatNobodyWaitsForCloseTheChannel(t *testing.T) {
	connection := connect(t)
	missing := fresh("x")
	acking, publishing := channel(t, connection), channel(t, connection)
	ackClosed := acking.NotifyClose(make(chan *amqp.Error, 1))
	must(t, acking.Ack(7, false))
	refused(t, next(t, ackClosed), 406, "PRECONDITION_FAILED - unknown delivery tag 7")
	publishClosed := publishing.NotifyClose(make(chan *amqp.Error, 1))
	publish(t, publishing, missing, "k", "m")
	refused(t, next(t, publishClosed), 404, "NOT_FOUND - no exchange '"+missing+"' in vhost '/'")
}

func TestLargeBodies(t *testing.T) {
	ch := open(t)
	name := queue(t, ch, nil)
	for _, size := range []int{0, 131064, 131065, 1 << 20, 15 << 20} {
		body := make([]byte, size)
		_, _ = rand.Read(body)
		publish(t, ch, "", name, string(body))
		if !bytes.Equal(get(t, ch, name, true).Body, body) {
			t.Fatalf("a body of %d bytes changed", size)
		}
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	publish(t, ch, "", name, strings.Repeat("x", 16<<20+1))
	refused(t, next(t, closed), 406,
		"PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216")
}

func TestDeadLetters(t *testing.T) {
	ch := open(t)
	dead := queue(t, ch, nil)
	name := queue(t, ch, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	must(t, ch.PublishWithContext(context.Background(), "", name, false, false,
		amqp.Publishing{Expiration: "50", Body: []byte("expires")}))
	got := get(t, ch, dead, true)
	equal(t, got.Expiration, "")
	death := got.Headers["x-death"].([]interface{})[0].(amqp.Table)
	equal(t, death["reason"].(string), "expired")
	equal(t, death["original-expiration"].(string), "50")
	publish(t, ch, "", name, "rejected")
	rejected := get(t, ch, name, false)
	must(t, rejected.Reject(false))
	death = get(t, ch, dead, true).Headers["x-death"].([]interface{})[0].(amqp.Table)
	equal(t, death["reason"].(string), "rejected")
	equal(t, death["queue"].(string), name)
	equal(t, death["count"].(int64), 1)
	if _, ok := death["time"].(time.Time); !ok {
		t.Fatalf("time is %T", death["time"])
	}
	equal(t, death["routing-keys"].([]interface{})[0].(string), name)
}

func TestPurgeDeleteAndServerNames(t *testing.T) {
	ch := open(t)
	made, err := ch.QueueDeclare("", false, true, true, false, nil)
	must(t, err)
	if !strings.HasPrefix(made.Name, "amq.gen-") {
		t.Fatalf("the broker named it %s", made.Name)
	}
	for range 3 {
		publish(t, ch, "", made.Name, "m")
	}
	get(t, ch, made.Name, true)
	purged, err := ch.QueuePurge(made.Name, false)
	must(t, err)
	equal(t, purged, 2)
	left, err := ch.QueueDelete(made.Name, false, true, false)
	must(t, err)
	equal(t, left, 0)
}

func TestTenChannelsKeepTheirOrder(t *testing.T) {
	connection := connect(t)
	for range 10 {
		ch := channel(t, connection)
		name := queue(t, ch, nil)
		deliveries := consume(t, ch, name, false)
		for number := range 200 {
			publish(t, ch, "", name, fmt.Sprint(number))
		}
		for number := range 200 {
			delivery := next(t, deliveries)
			equal(t, string(delivery.Body), fmt.Sprint(number))
			equal(t, delivery.DeliveryTag, uint64(number+1))
			must(t, delivery.Ack(false))
		}
	}
}

func TestHeartbeatKeepsAnIdleConnection(t *testing.T) {
	t.Parallel()
	connection, err := amqp.DialConfig(url(), amqp.Config{Heartbeat: time.Second})
	must(t, err)
	defer connection.Close()
	time.Sleep(4 * time.Second)
	equal(t, connection.IsClosed(), false)
	channel(t, connection)
}
