// What the sarama tests share: clients with short timeouts, closed with the test.
package sarama

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kafka "github.com/IBM/sarama"
)

func broker() string {
	if address := os.Getenv("WEIR_COMPAT_KAFKA"); address != "" {
		return address
	}
	return "127.0.0.1:9092"
}

func fresh(prefix string) string {
	var random [6]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic(err)
	}
	return prefix + "-" + hex.EncodeToString(random[:])
}

// config is sarama's for one version of Kafka, with short waits.
func config(version kafka.KafkaVersion) *kafka.Config {
	c := kafka.NewConfig()
	c.Version = version
	c.ClientID = "weir-compat"
	c.Metadata.Retry.Backoff = 50 * time.Millisecond
	c.Metadata.Retry.Max = 100
	c.Metadata.RefreshFrequency = time.Second
	c.Producer.Return.Successes = true
	c.Producer.Retry.Backoff = 50 * time.Millisecond
	c.Producer.Retry.Max = 200
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = kafka.OffsetOldest
	c.Consumer.MaxWaitTime = 100 * time.Millisecond
	c.Consumer.Retry.Backoff = 50 * time.Millisecond
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	c.Consumer.Group.Rebalance.Timeout = 10 * time.Second
	c.Consumer.Group.Rebalance.Retry.Backoff = 100 * time.Millisecond
	return c
}

func newest() *kafka.Config { return config(kafka.MaxVersion) }

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func client(t *testing.T, c *kafka.Config) kafka.Client {
	t.Helper()
	cl := must[kafka.Client](t)(kafka.NewClient([]string{broker()}, c))
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func admin(t *testing.T) kafka.ClusterAdmin {
	t.Helper()
	adm := must[kafka.ClusterAdmin](t)(kafka.NewClusterAdmin([]string{broker()}, newest()))
	t.Cleanup(func() { _ = adm.Close() })
	return adm
}

func topic(t *testing.T, partitions int32, entries map[string]*string) string {
	t.Helper()
	name := fresh("t")
	adm := admin(t)
	detail := &kafka.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries}
	if err := adm.CreateTopic(name, detail, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is known", func() bool {
		found, err := adm.DescribeTopics([]string{name})
		return err == nil && len(found) == 1 && len(found[0].Partitions) == int(partitions)
	})
	return name
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !check() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func want(t *testing.T, got, expected any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Fatalf("got %v, want %v", got, expected)
	}
}

func wantErr(t *testing.T, err, expected error) {
	t.Helper()
	if !errors.Is(err, expected) {
		t.Fatalf("got error %v, want %v", err, expected)
	}
}

func producer(t *testing.T, c *kafka.Config) kafka.SyncProducer {
	t.Helper()
	p := must[kafka.SyncProducer](t)(kafka.NewSyncProducer([]string{broker()}, c))
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func send(t *testing.T, p kafka.SyncProducer, messages ...*kafka.ProducerMessage) {
	t.Helper()
	if err := p.SendMessages(messages); err != nil {
		t.Fatal(err)
	}
}

func numbered(topic string, from, to int) []*kafka.ProducerMessage {
	var messages []*kafka.ProducerMessage
	for i := from; i < to; i++ {
		value := kafka.StringEncoder(fmt.Sprintf("m%d", i))
		messages = append(messages, &kafka.ProducerMessage{Topic: topic, Value: value})
	}
	return messages
}

func names(from, to int) []string {
	var all []string
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprintf("m%d", i))
	}
	return all
}

func values(messages []*kafka.ConsumerMessage) []string {
	var all []string
	for _, message := range messages {
		all = append(all, string(message.Value))
	}
	return all
}

func partition(t *testing.T, c *kafka.Config, name string, number int32, offset int64) kafka.PartitionConsumer {
	t.Helper()
	consumer := must[kafka.Consumer](t)(kafka.NewConsumer([]string{broker()}, c))
	t.Cleanup(func() { _ = consumer.Close() })
	pc := must[kafka.PartitionConsumer](t)(consumer.ConsumePartition(name, number, offset))
	t.Cleanup(func() { _ = pc.Close() })
	return pc
}

func receive(t *testing.T, pc kafka.PartitionConsumer, count int) []*kafka.ConsumerMessage {
	t.Helper()
	var got []*kafka.ConsumerMessage
	limit := time.After(30 * time.Second)
	for len(got) < count {
		select {
		case message := <-pc.Messages():
			got = append(got, message)
		case err := <-pc.Errors():
			t.Fatal(err)
		case <-limit:
			t.Fatalf("got %d of %d messages", len(got), count)
		}
	}
	return got
}

// member is a group member: it marks what it gets and knows what it holds.
type member struct {
	group  kafka.ConsumerGroup
	mu     sync.Mutex
	held   []int32
	got    []*kafka.ConsumerMessage
	errs   []error
	claims int
	cancel context.CancelFunc
	done   chan struct{}
}

func (m *member) Setup(kafka.ConsumerGroupSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims++
	return nil
}

func (m *member) Cleanup(kafka.ConsumerGroupSession) error { return nil }

// hold notes that a partition is ours, and the function it returns that it no longer is. A
// cooperative rebalance starts and ends claims within one session.
func (m *member) hold(partition int32) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = append(m.held, partition)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.held = slices.DeleteFunc(m.held, func(p int32) bool { return p == partition })
	}
}

func (m *member) ConsumeClaim(session kafka.ConsumerGroupSession, claim kafka.ConsumerGroupClaim) error {
	defer m.hold(claim.Partition())()
	for {
		select {
		case message, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			m.mu.Lock()
			m.got = append(m.got, message)
			m.mu.Unlock()
			session.MarkMessage(message, "seen")
		case <-session.Context().Done():
			return nil
		}
	}
}

func join(t *testing.T, group, name string, c *kafka.Config) *member {
	t.Helper()
	m := &member{done: make(chan struct{})}
	m.group = must[kafka.ConsumerGroup](t)(kafka.NewConsumerGroup([]string{broker()}, group, c))
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		for err := range m.group.Errors() {
			m.failed(err)
		}
	}()
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			if err := m.group.Consume(ctx, []string{name}, m); err != nil {
				if errors.Is(err, kafka.ErrClosedConsumerGroup) {
					return
				}
				m.failed(err)
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m)
		}
		m.leave()
	})
	return m
}

func (m *member) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errs = append(m.errs, err)
}

// String is what a failed test says of the member: its share, its errors, what it got.
func (m *member) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var got []string
	for _, message := range m.got {
		got = append(got, fmt.Sprintf("%d:%d", message.Partition, message.Offset))
	}
	return fmt.Sprintf("member: holds %v in session %d, errors %v, got %v", m.held, m.claims, m.errs, got)
}

func (m *member) leave() {
	m.cancel()
	<-m.done
	_ = m.group.Close()
}

func (m *member) partitions() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := slices.Clone(m.held)
	slices.Sort(held)
	return held
}

func (m *member) messages() []*kafka.ConsumerMessage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

func shared(partitions, share int, members ...*member) bool {
	var all []int32
	for _, m := range members {
		held := m.partitions()
		if len(held) != share {
			return false
		}
		all = append(all, held...)
	}
	slices.Sort(all)
	return len(slices.Compact(all)) == partitions
}

func restart(t *testing.T, how string) {
	t.Helper()
	words := append(strings.Fields(os.Getenv("WEIR_COMPAT_RESTART")), how)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("restart: %v: %s", err, out)
	}
}

func needsRestart(t *testing.T) {
	if os.Getenv("WEIR_COMPAT_RESTART") == "" {
		t.Skip("the broker is not ours to restart")
	}
}
