// sarama against the broker, at several of the protocol generations that it can be set to.
package sarama

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	kafka "github.com/IBM/sarama"
)

func text(s string) *string { return &s }

// The generations: message format 2 without headers' successors, the default, flexible, newest.
var versions = map[string]kafka.KafkaVersion{
	"1.0": kafka.V1_0_0_0, "2.1": kafka.V2_1_0_0, "2.8": kafka.DefaultVersion, "newest": kafka.MaxVersion}

func TestMessageComesBackWhole(t *testing.T) {
	for what, version := range versions {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			name := topic(t, 1, nil)
			p := producer(t, config(version))
			when := time.UnixMilli(1_600_000_000_123)
			send(t, p,
				&kafka.ProducerMessage{Topic: name, Key: kafka.StringEncoder("k"),
					Value: kafka.StringEncoder("v"), Timestamp: when,
					Headers: []kafka.RecordHeader{{Key: []byte("a"), Value: []byte("1")},
						{Key: []byte("a"), Value: []byte("2")}}},
				&kafka.ProducerMessage{Topic: name, Value: kafka.StringEncoder("no key")},
				&kafka.ProducerMessage{Topic: name, Key: kafka.StringEncoder("tombstone")})
			got := receive(t, partition(t, config(version), name, 0, kafka.OffsetOldest), 3)
			want(t, string(got[0].Key)+string(got[0].Value), "kv")
			want(t, got[0].Timestamp.UnixMilli(), when.UnixMilli())
			want(t, len(got[0].Headers), 2)
			want(t, string(got[0].Headers[1].Value), "2")
			want(t, got[1].Key == nil, true)
			want(t, got[2].Value == nil, true)
			want(t, got[2].Offset, 2)
		})
	}
}

func TestCodecs(t *testing.T) {
	for _, codec := range []kafka.CompressionCodec{kafka.CompressionNone, kafka.CompressionGZIP,
		kafka.CompressionSnappy, kafka.CompressionLZ4, kafka.CompressionZSTD} {
		t.Run(codec.String(), func(t *testing.T) {
			t.Parallel()
			name := topic(t, 1, nil)
			c := newest()
			c.Producer.Compression = codec
			c.Producer.Flush.Frequency = 20 * time.Millisecond
			var messages []*kafka.ProducerMessage
			for i := range 300 {
				value := bytes.Repeat(fmt.Appendf(nil, "%d-", i), 30)
				messages = append(messages, &kafka.ProducerMessage{Topic: name,
					Value: kafka.ByteEncoder(value)})
			}
			send(t, producer(t, c), messages...)
			got := receive(t, partition(t, newest(), name, 0, kafka.OffsetOldest), 300)
			for i, message := range got {
				value, _ := messages[i].Value.Encode()
				want(t, string(message.Value), string(value))
			}
		})
	}
}

func TestAcks(t *testing.T) {
	for what, acks := range map[string]kafka.RequiredAcks{
		"none": kafka.NoResponse, "leader": kafka.WaitForLocal, "all": kafka.WaitForAll} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			name := topic(t, 1, nil)
			c := newest()
			c.Producer.RequiredAcks = acks
			c.Net.MaxOpenRequests = 1
			send(t, producer(t, c), numbered(name, 0, 100)...)
			pc := partition(t, newest(), name, 0, kafka.OffsetOldest)
			want(t, values(receive(t, pc, 100)), names(0, 100))
		})
	}
}

func TestIdempotentProducer(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	c := newest()
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = kafka.WaitForAll
	c.Net.MaxOpenRequests = 1
	c.Producer.Flush.MaxMessages = 10
	send(t, producer(t, c), numbered(name, 0, 1000)...)
	pc := partition(t, newest(), name, 0, kafka.OffsetOldest)
	want(t, values(receive(t, pc, 1000)), names(0, 1000))
}

func TestMessageTooLarge(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	c := newest()
	c.Producer.MaxMessageBytes = 4_000_000
	p := producer(t, c)
	body := make([]byte, 1_000_000)
	_, _ = rand.Read(body)
	send(t, p, &kafka.ProducerMessage{Topic: name, Value: kafka.ByteEncoder(body)})
	_, _, err := p.SendMessage(&kafka.ProducerMessage{Topic: name,
		Value: kafka.ByteEncoder(make([]byte, 1_200_000))})
	wantErr(t, err, kafka.ErrMessageSizeTooLarge)
	got := receive(t, partition(t, newest(), name, 0, kafka.OffsetOldest), 1)
	want(t, bytes.Equal(got[0].Value, body), true)
}

func TestKeysAndPartitions(t *testing.T) {
	t.Parallel()
	name := topic(t, 4, nil)
	p := producer(t, newest())
	where := map[int]int32{}
	for i := range 120 {
		partition, _, err := p.SendMessage(&kafka.ProducerMessage{Topic: name,
			Key: kafka.StringEncoder(fmt.Sprintf("k%d", i%20)), Value: kafka.StringEncoder("v")})
		if err != nil {
			t.Fatal(err)
		}
		if known, ok := where[i%20]; ok {
			want(t, partition, known)
		}
		where[i%20] = partition
	}
	total := int64(0)
	cl := client(t, newest())
	for number := range int32(4) {
		total += must[int64](t)(cl.GetOffset(name, number, kafka.OffsetNewest))
	}
	want(t, total, 120)
}

func TestAutoCreationAndRefusal(t *testing.T) {
	t.Parallel()
	name := fresh("auto")
	send(t, producer(t, newest()), numbered(name, 0, 3)...)
	receive(t, partition(t, newest(), name, 0, kafka.OffsetOldest), 3)
	c := newest()
	c.Metadata.AllowAutoTopicCreation = false
	c.Metadata.Retry.Max = 1
	c.Producer.Retry.Max = 1
	_, _, err := producer(t, c).SendMessage(numbered(fresh("absent"), 0, 1)[0])
	wantErr(t, err, kafka.ErrUnknownTopicOrPartition)
	_, _, err = producer(t, c).SendMessage(numbered("bad/name", 0, 1)[0])
	wantErr(t, err, kafka.ErrInvalidTopic)
}

func TestOffsets(t *testing.T) {
	for what, version := range versions {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			name := topic(t, 1, nil)
			base := int64(1_700_000_000_000)
			p := producer(t, newest())
			for i, message := range numbered(name, 0, 10) {
				message.Timestamp = time.UnixMilli(base + 1000*int64(i))
				send(t, p, message)
			}
			cl := client(t, config(version))
			at := func(when int64) int64 { return must[int64](t)(cl.GetOffset(name, 0, when)) }
			want(t, []int64{at(kafka.OffsetOldest), at(kafka.OffsetNewest)}, []int64{0, 10})
			want(t, []int64{at(base), at(base + 3500), at(base + 99_000)}, []int64{0, 4, -1})
			pc := partition(t, config(version), name, 0, 7)
			want(t, values(receive(t, pc, 3)), names(7, 10))
			want(t, pc.HighWaterMarkOffset(), 10)
		})
	}
}

func TestOffsetOutOfRange(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	send(t, producer(t, newest()), numbered(name, 0, 3)...)
	consumer := must[kafka.Consumer](t)(kafka.NewConsumer([]string{broker()}, newest()))
	t.Cleanup(func() { _ = consumer.Close() })
	_, err := consumer.ConsumePartition(name, 0, 999)
	wantErr(t, err, kafka.ErrOffsetOutOfRange)
	_, err = consumer.ConsumePartition(name, 5, 0)
	wantErr(t, err, kafka.ErrUnknownTopicOrPartition)
}

func TestWaitingFetchIsWoken(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	c := newest()
	c.Consumer.MaxWaitTime = 8 * time.Second
	pc := partition(t, c, name, 0, kafka.OffsetOldest)
	p := producer(t, newest())
	send(t, p, numbered(name, 0, 1)...)
	receive(t, pc, 1)
	time.Sleep(300 * time.Millisecond)
	begin := time.Now()
	send(t, p, numbered(name, 1, 2)...)
	receive(t, pc, 1)
	if waited := time.Since(begin); waited > 2*time.Second {
		t.Fatalf("woken after %v", waited)
	}
}

func TestGroupResumesAtItsCommit(t *testing.T) {
	for what, version := range versions {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			name, group := topic(t, 2, nil), fresh("g")
			p := producer(t, newest())
			send(t, p, numbered(name, 0, 20)...)
			first := join(t, group, name, config(version))
			eventually(t, "the first twenty", func() bool { return len(first.messages()) == 20 })
			first.leave()
			send(t, p, numbered(name, 20, 25)...)
			second := join(t, group, name, config(version))
			eventually(t, "the last five", func() bool { return len(second.messages()) >= 5 })
			got := values(second.messages())
			slices.Sort(got)
			want(t, got, names(20, 25))
		})
	}
}

func TestMembersComeAndGo(t *testing.T) {
	for what, strategy := range map[string]func() kafka.BalanceStrategy{
		"range":              kafka.NewBalanceStrategyRange,
		"roundrobin":         kafka.NewBalanceStrategyRoundRobin,
		"sticky":             kafka.NewBalanceStrategySticky,
		"cooperative-sticky": kafka.NewBalanceStrategyCooperativeSticky} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			name, group := topic(t, 6, nil), fresh("g")
			joined := func() *member {
				c := newest()
				c.Consumer.Group.Rebalance.GroupStrategies = []kafka.BalanceStrategy{strategy()}
				return join(t, group, name, c)
			}
			one := joined()
			eventually(t, "one holds all", func() bool { return shared(6, 6, one) })
			two, three := joined(), joined()
			eventually(t, "thirds", func() bool { return shared(6, 2, one, two, three) })
			send(t, producer(t, newest()), numbered(name, 0, 300)...)
			eventually(t, "all messages", func() bool {
				return len(one.messages())+len(two.messages())+len(three.messages()) >= 300
			})
			one.leave()
			eventually(t, "halves", func() bool { return shared(6, 3, two, three) })
			two.leave()
			eventually(t, "all again", func() bool { return shared(6, 6, three) })
		})
	}
}

func TestStaticMemberReturnsWithoutRebalance(t *testing.T) {
	t.Parallel()
	name, group := topic(t, 4, nil), fresh("g")
	static := func(id string) *kafka.Config {
		c := newest()
		c.Consumer.Group.InstanceId = id
		c.Consumer.Group.Session.Timeout = 30 * time.Second
		return c
	}
	one := join(t, group, name, static("one"))
	two := join(t, group, name, static("two"))
	eventually(t, "halves", func() bool { return shared(4, 2, one, two) })
	held, claims := two.partitions(), one.claims
	two.leave()
	again := join(t, group, name, static("two"))
	eventually(t, "the same half", func() bool { return slices.Equal(again.partitions(), held) })
	want(t, one.claims, claims)
}

func TestOffsetManagerKeepsMetadata(t *testing.T) {
	t.Parallel()
	name, group := topic(t, 1, nil), fresh("g")
	for _, step := range []struct {
		next int64
		note string
	}{{5, "five"}, {9, "nine"}} {
		cl := client(t, newest())
		manager := must[kafka.OffsetManager](t)(kafka.NewOffsetManagerFromClient(group, cl))
		pom := must[kafka.PartitionOffsetManager](t)(manager.ManagePartition(name, 0))
		pom.MarkOffset(step.next, step.note)
		manager.Commit()
		_ = pom.Close()
		_ = manager.Close()
		fetched := must[*kafka.OffsetFetchResponse](t)(
			admin(t).ListConsumerGroupOffsets(group, map[string][]int32{name: {0}}))
		block := fetched.GetBlock(name, 0)
		want(t, []any{block.Offset, block.Metadata}, []any{step.next, step.note})
	}
}

func TestAdminTopics(t *testing.T) {
	t.Parallel()
	adm, name := admin(t), topic(t, 2, map[string]*string{"retention.ms": text("7200000")})
	topics := must[map[string]kafka.TopicDetail](t)(adm.ListTopics())
	want(t, topics[name].NumPartitions, 2)
	want(t, *topics[name].ConfigEntries["retention.ms"], "7200000")
	create := func(name string, partitions int32, replicas int16, entries map[string]*string) error {
		return adm.CreateTopic(name, &kafka.TopicDetail{NumPartitions: partitions,
			ReplicationFactor: replicas, ConfigEntries: entries}, false)
	}
	wantErr(t, create(name, 1, 1, nil), kafka.ErrTopicAlreadyExists)
	wantErr(t, create("bad/name", 1, 1, nil), kafka.ErrInvalidTopic)
	wantErr(t, create(fresh("t"), 1, 2, nil), kafka.ErrInvalidReplicationFactor)
	wantErr(t, create(fresh("t"), 0, 1, nil), kafka.ErrInvalidPartitions)
	wantErr(t, create(fresh("t"), 1, 1, map[string]*string{"no.such": text("1")}),
		kafka.ErrInvalidConfig)
	if err := adm.CreatePartitions(name, 5, nil, false); err != nil {
		t.Fatal(err)
	}
	wantErr(t, adm.CreatePartitions(name, 2, nil, false), kafka.ErrInvalidPartitions)
	eventually(t, "five partitions", func() bool {
		found, err := adm.DescribeTopics([]string{name})
		return err == nil && len(found[0].Partitions) == 5
	})
	if err := adm.DeleteTopic(name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is gone", func() bool {
		return errors.Is(adm.DeleteTopic(name), kafka.ErrUnknownTopicOrPartition)
	})
}

func TestAdminConfigs(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	entries := must[[]kafka.ConfigEntry](t)(admin(t).DescribeConfig(kafka.ConfigResource{
		Type: kafka.TopicResource, Name: name, ConfigNames: []string{"retention.ms"}}))
	want(t, len(entries), 1)
	want(t, []any{entries[0].Value, entries[0].Default}, []any{"604800000", true})
}

func TestAdminGroups(t *testing.T) {
	t.Parallel()
	adm, name, group := admin(t), topic(t, 2, nil), fresh("g")
	m := join(t, group, name, newest())
	eventually(t, "the member holds both", func() bool { return shared(2, 2, m) })
	groups := must[map[string]string](t)(adm.ListConsumerGroups())
	want(t, groups[group], "consumer")
	described := must[[]*kafka.GroupDescription](t)(adm.DescribeConsumerGroups([]string{group}))
	want(t, described[0].State, "Stable")
	for _, one := range described[0].Members {
		assignment := must[*kafka.ConsumerGroupMemberAssignment](t)(one.GetMemberAssignment())
		want(t, assignment.Topics, map[string][]int32{name: {0, 1}})
		want(t, one.ClientId, "weir-compat")
	}
	wantErr(t, adm.DeleteConsumerGroup(group), kafka.ErrNonEmptyGroup)
	m.leave()
	eventually(t, "the group is deleted", func() bool {
		return adm.DeleteConsumerGroup(group) == nil
	})
	wantErr(t, adm.DeleteConsumerGroup(group), kafka.ErrGroupIDNotFound)
}

func TestAdminCluster(t *testing.T) {
	t.Parallel()
	brokers, controller, err := admin(t).DescribeCluster()
	if err != nil {
		t.Fatal(err)
	}
	want(t, len(brokers), 1)
	want(t, brokers[0].Addr(), broker())
	want(t, controller, brokers[0].ID())
}

// Tests that restart the broker: without t.Parallel() they run before the others, one by one.

func TestRestartKeepsDataAndOffsets(t *testing.T) {
	needsRestart(t)
	for _, how := range []string{"term", "kill"} {
		name, group := topic(t, 1, nil), fresh("g")
		send(t, producer(t, newest()), numbered(name, 0, 50)...)
		first := join(t, group, name, newest())
		eventually(t, "the first fifty", func() bool { return len(first.messages()) == 50 })
		first.leave()
		restart(t, how)
		send(t, producer(t, newest()), numbered(name, 50, 60)...)
		second := join(t, group, name, newest())
		eventually(t, "the last ten", func() bool { return len(second.messages()) >= 10 })
		want(t, values(second.messages()), names(50, 60))
		second.leave()
	}
}

func TestRestartUnderARunningProducerAndMember(t *testing.T) {
	needsRestart(t)
	name, group := topic(t, 1, nil), fresh("g")
	m := join(t, group, name, newest())
	p := producer(t, newest())
	send(t, p, numbered(name, 0, 50)...)
	eventually(t, "the first fifty", func() bool { return len(m.messages()) == 50 })
	restart(t, "term")
	for _, message := range numbered(name, 50, 100) {
		send(t, p, message)
	}
	eventually(t, "the member has all", func() bool {
		seen := values(m.messages())
		slices.Sort(seen)
		return len(slices.Compact(seen)) == 100
	})
}
