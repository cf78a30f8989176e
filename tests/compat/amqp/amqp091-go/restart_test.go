// amqp091-go over restarts of the broker, alone and with its own recovery.
package amqp091

import (
	"context"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestRestartKeepsDurableQueuesAndPersistentMessages(t *testing.T) {
	for _, how := range []string{"term", "kill"} {
		connection := connect(t)
		closed := connection.NotifyClose(make(chan *amqp.Error, 1))
		ch := channel(t, connection)
		name := fresh("durable")
		_, err := ch.QueueDeclare(name, true, false, false, false, nil)
		must(t, err)
		must(t, ch.Confirm(false))
		for number := range 100 {
			confirm, err := ch.PublishWithDeferredConfirmWithContext(context.Background(), "", name, false, false,
				amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(number))})
			must(t, err)
			equal(t, confirm.Wait(), true)
		}
		restart(t, how)
		reason := next(t, closed)
		if how == "term" {
			equal(t, reason.Code, amqp.ConnectionForced)
		}
		ch = open(t)
		deliveries := consume(t, ch, name, false)
		for number := range 100 {
			equal(t, string(next(t, deliveries).Body), fmt.Sprint(number))
		}
		_, err = ch.QueueDelete(name, false, false, false)
		must(t, err)
	}
}

func TestARecoveringConnectionGoesOn(t *testing.T) {
	connection, err := amqp.DialConfig(url(), amqp.Config{Recovery: &amqp.Recovery{
		ReconnectionConfig: &amqp.ReconnectionConfig{MaxRetryCount: 100, RetryInterval: 200 * time.Millisecond}}})
	must(t, err)
	defer connection.Close()
	ch := channel(t, connection)
	name, x := fresh("durable"), fresh("x")
	_, err = ch.QueueDeclare(name, true, false, false, false, nil)
	must(t, err)
	must(t, ch.ExchangeDeclare(x, "fanout", false, false, false, false, nil))
	must(t, ch.QueueBind(name, "", x, false, nil))
	deliveries := consume(t, ch, name, true)
	publish(t, ch, x, "", "before")
	equal(t, string(next(t, deliveries).Body), "before")
	restart(t, "kill")
	for end := time.Now().Add(20 * time.Second); ; {
		if time.Now().After(end) {
			t.Fatal("nothing came after the recovery")
		}
		_ = ch.PublishWithContext(context.Background(), x, "", false, false, amqp.Publishing{Body: []byte("after")})
		select {
		case delivery := <-deliveries:
			equal(t, string(delivery.Body), "after")
			_, err = ch.QueueDelete(name, false, false, false)
			must(t, err)
			must(t, ch.ExchangeDelete(x, false, false))
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}
