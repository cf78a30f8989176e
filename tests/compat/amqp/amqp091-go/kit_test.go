// What the amqp091-go tests share: connections and channels that close with their test.
package amqp091

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const patience = 10 * time.Second

func url() string {
	address := os.Getenv("WEIR_COMPAT_AMQP")
	if address == "" {
		panic("WEIR_COMPAT_AMQP is not set: run under tests/harness/with_weir.py")
	}
	return "amqp://guest:guest@" + address
}

func fresh(word string) string {
	var random [6]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic(err)
	}
	return word + "-" + hex.EncodeToString(random[:])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T) *amqp.Connection {
	t.Helper()
	connection, err := amqp.Dial(url())
	must(t, err)
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

func channel(t *testing.T, connection *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := connection.Channel()
	must(t, err)
	return ch
}

func open(t *testing.T) *amqp.Channel {
	t.Helper()
	return channel(t, connect(t))
}

// queue declares an exclusive one under a new name.
func queue(t *testing.T, ch *amqp.Channel, args amqp.Table) string {
	t.Helper()
	made, err := ch.QueueDeclare(fresh("go"), false, false, true, false, args)
	must(t, err)
	return made.Name
}

func publish(t *testing.T, ch *amqp.Channel, exchange, key, body string) {
	t.Helper()
	must(t, ch.PublishWithContext(context.Background(), exchange, key, false, false,
		amqp.Publishing{Body: []byte(body)}))
}

func consume(t *testing.T, ch *amqp.Channel, queue string, autoAck bool) <-chan amqp.Delivery {
	t.Helper()
	deliveries, err := ch.Consume(queue, "", autoAck, false, false, false, nil)
	must(t, err)
	return deliveries
}

func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value, ok := <-from:
		if !ok {
			t.Fatal("the channel was closed")
		}
		return value
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

func quiet[T any](t *testing.T, from <-chan T, wait time.Duration) {
	t.Helper()
	select {
	case value := <-from:
		t.Fatalf("received %v", value)
	case <-time.After(wait):
	}
}

// get waits for a message.
func get(t *testing.T, ch *amqp.Channel, queue string, autoAck bool) amqp.Delivery {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		message, ok, err := ch.Get(queue, autoAck)
		must(t, err)
		if ok {
			return message
		}
	}
	t.Fatalf("no message in %s", queue)
	panic("unreachable")
}

func isEmpty(t *testing.T, ch *amqp.Channel, queue string) {
	t.Helper()
	message, ok, err := ch.Get(queue, true)
	must(t, err)
	if ok {
		t.Fatalf("%s holds %q", queue, message.Body)
	}
}

func equal[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// refused checks the code and text of an error that the broker sent.
func refused(t *testing.T, err error, code int, text string) {
	t.Helper()
	var got *amqp.Error
	if !errors.As(err, &got) {
		t.Fatalf("got %v, want %d %s", err, code, text)
	}
	if got.Code != code || got.Reason != text {
		t.Fatalf("got  %d %s\nwant %d %s", got.Code, got.Reason, code, text)
	}
}

func restart(t *testing.T, how string) {
	t.Helper()
	command := os.Getenv("WEIR_COMPAT_RESTART")
	if command == "" {
		t.Skip("WEIR_COMPAT_RESTART is not set")
	}
	output, err := exec.Command("sh", "-c", command+" "+how).CombinedOutput()
	if err != nil {
		t.Fatalf("restart: %v\n%s", err, output)
	}
}
