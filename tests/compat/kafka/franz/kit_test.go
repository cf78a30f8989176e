// What the franz-go tests share: clients with short timeouts, closed with the test.
package franz

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
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

func withTimeout(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	base := []kgo.Opt{
		kgo.SeedBrokers(broker()),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.MetadataMaxAge(time.Second),
		kgo.FetchMaxWait(200 * time.Millisecond),
		kgo.SessionTimeout(6 * time.Second),
		kgo.HeartbeatInterval(300 * time.Millisecond),
		kgo.RebalanceTimeout(10 * time.Second),
		kgo.ProducerLinger(0),
	}
	cl, err := kgo.NewClient(append(base, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func admin(t *testing.T) *kadm.Client {
	t.Helper()
	return kadm.NewClient(client(t))
}

// topic creates one and waits until it is known.
func topic(t *testing.T, partitions int32, configs map[string]*string) string {
	t.Helper()
	name := fresh("t")
	adm := admin(t)
	ctx := withTimeout(t, 20*time.Second)
	if _, err := adm.CreateTopic(ctx, partitions, 1, configs, name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is known", func() bool {
		found, err := adm.ListTopics(ctx, name)
		return err == nil && len(found[name].Partitions) == int(partitions)
	})
	return name
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !check() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func produce(t *testing.T, cl *kgo.Client, records ...*kgo.Record) []*kgo.Record {
	t.Helper()
	results := cl.ProduceSync(withTimeout(t, 60*time.Second), records...)
	if err := results.FirstErr(); err != nil {
		t.Fatal(err)
	}
	return records
}

func numbered(topic string, from, to int) []*kgo.Record {
	var records []*kgo.Record
	for i := from; i < to; i++ {
		records = append(records, &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "m%d", i)})
	}
	return records
}

func values(records []*kgo.Record) []string {
	var all []string
	for _, record := range records {
		all = append(all, string(record.Value))
	}
	return all
}

func names(from, to int) []string {
	return values(numbered("", from, to))
}

func want(t *testing.T, got, expected any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Fatalf("got %v, want %v", got, expected)
	}
}

// receive polls until count records came.
func receive(t *testing.T, cl *kgo.Client, count int) []*kgo.Record {
	t.Helper()
	ctx := withTimeout(t, 40*time.Second)
	var got []*kgo.Record
	for len(got) < count {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("got %d of %d records", len(got), count)
		}
		for _, failed := range fetches.Errors() {
			t.Fatalf("fetch of %s/%d: %v", failed.Topic, failed.Partition, failed.Err)
		}
		got = append(got, fetches.Records()...)
	}
	return got
}

func readAll(t *testing.T, name string, count int) []*kgo.Record {
	t.Helper()
	cl := client(t, kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	return receive(t, cl, count)
}

// member is a group member that polls on a goroutine of its own and knows what it holds.
type member struct {
	cl      *kgo.Client
	mu      sync.Mutex
	held    map[string][]int32
	got     []*kgo.Record
	assigns int
	revoked int
	cancel  context.CancelFunc
	done    chan struct{}
}

func join(t *testing.T, group, name string, options ...kgo.Opt) *member {
	t.Helper()
	m := &member{held: map[string][]int32{}, done: make(chan struct{})}
	drop := func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for topic, partitions := range gone {
			m.revoked += len(partitions)
			m.held[topic] = slices.DeleteFunc(m.held[topic], func(p int32) bool {
				return slices.Contains(partitions, p)
			})
		}
	}
	m.cl = client(t, append([]kgo.Opt{
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.assigns++
			for topic, partitions := range added {
				m.held[topic] = append(m.held[topic], partitions...)
			}
		}),
		kgo.OnPartitionsRevoked(drop),
		kgo.OnPartitionsLost(drop),
	}, options...)...)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			records := m.cl.PollFetches(ctx).Records()
			m.mu.Lock()
			m.got = append(m.got, records...)
			m.mu.Unlock()
		}
	}()
	t.Cleanup(m.halt)
	return m
}

func (m *member) halt() {
	m.cancel()
	<-m.done
}

// leave commits nothing and leaves the group.
func (m *member) leave() {
	m.halt()
	m.cl.Close()
}

func (m *member) partitions(topic string) []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := slices.Clone(m.held[topic])
	slices.Sort(held)
	return held
}

func (m *member) records() []*kgo.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

// shared says whether the members hold all partitions once, each member `share` of them.
func shared(topic string, partitions, share int, members ...*member) bool {
	var all []int32
	for _, m := range members {
		held := m.partitions(topic)
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
