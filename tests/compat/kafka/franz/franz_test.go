// franz-go against the broker: the client that speaks the newest version of every request.
package franz

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func text(s string) *string { return &s }

func wantErr(t *testing.T, err, expected error) {
	t.Helper()
	if !errors.Is(err, expected) {
		t.Fatalf("got error %v, want %v", err, expected)
	}
}

func TestRecordComesBackWhole(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	when := time.UnixMilli(1_600_000_000_123)
	produce(t, client(t),
		&kgo.Record{Topic: name, Key: []byte("k"), Value: []byte("v"), Timestamp: when,
			Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}}},
		&kgo.Record{Topic: name, Value: []byte("no key")},
		&kgo.Record{Topic: name, Key: []byte("tombstone")},
		&kgo.Record{Topic: name, Key: []byte{}, Value: []byte{}})
	got := readAll(t, name, 4)
	want(t, string(got[0].Key)+string(got[0].Value), "kv")
	want(t, got[0].Timestamp.UnixMilli(), when.UnixMilli())
	want(t, got[0].Headers, []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a"}})
	want(t, got[1].Key == nil, true)
	want(t, got[2].Value == nil, true)
	want(t, got[3].Key != nil && got[3].Value != nil, true)
	want(t, got[3].Offset, 3)
}

func TestCodecs(t *testing.T) {
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := topic(t, 1, nil)
			var records []*kgo.Record
			for i := range 300 {
				value := bytes.Repeat(fmt.Appendf(nil, "%d-", i), 30)
				records = append(records, &kgo.Record{Topic: topic, Value: value})
			}
			produce(t, client(t, kgo.ProducerBatchCompression(codec)), records...)
			want(t, values(readAll(t, topic, 300)), values(records))
		})
	}
}

func TestAcks(t *testing.T) {
	for name, acks := range map[string]kgo.Acks{
		"none": kgo.NoAck(), "leader": kgo.LeaderAck(), "all": kgo.AllISRAcks()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := topic(t, 1, nil)
			cl := client(t, kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite(),
				kgo.MaxProduceRequestsInflightPerBroker(1))
			for i := range 10 {
				produce(t, cl, numbered(topic, 10*i, 10*i+10)...)
			}
			want(t, values(readAll(t, topic, 100)), names(0, 100))
		})
	}
}

func TestIdempotentProducerKeepsOrder(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	cl := client(t, kgo.ProducerBatchMaxBytes(1024))
	records := produce(t, cl, numbered(name, 0, 5000)...)
	for i, record := range records {
		want(t, record.Offset, i)
	}
	id, epoch, err := cl.ProducerID(context.Background())
	if err != nil || id < 0 || epoch < 0 {
		t.Fatalf("producer id %d/%d: %v", id, epoch, err)
	}
	want(t, values(readAll(t, name, 5000)), names(0, 5000))
}

func TestMessageTooLarge(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	cl := client(t, kgo.ProducerBatchMaxBytes(4<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	body := make([]byte, 1_000_000)
	_, _ = rand.Read(body)
	produce(t, cl, &kgo.Record{Topic: name, Value: body})
	tooLarge := &kgo.Record{Topic: name, Value: make([]byte, 1_200_000)}
	wantErr(t, cl.ProduceSync(context.Background(), tooLarge).FirstErr(), kerr.MessageTooLarge)
	want(t, bytes.Equal(readAll(t, name, 1)[0].Value, body), true)
}

func TestKeyedRecordsShareAPartition(t *testing.T) {
	t.Parallel()
	name := topic(t, 6, nil)
	cl := client(t)
	var records []*kgo.Record
	for i := range 300 {
		records = append(records, &kgo.Record{Topic: name, Key: fmt.Appendf(nil, "k%d", i%30),
			Value: fmt.Append(nil, i)})
	}
	produce(t, cl, records...)
	where := map[string]int32{}
	for _, record := range readAll(t, name, 300) {
		if known, ok := where[string(record.Key)]; ok {
			want(t, record.Partition, known)
		}
		where[string(record.Key)] = record.Partition
	}
}

func TestAutoCreation(t *testing.T) {
	t.Parallel()
	name := fresh("auto")
	produce(t, client(t, kgo.AllowAutoTopicCreation()), numbered(name, 0, 3)...)
	want(t, values(readAll(t, name, 3)), names(0, 3))
	refused := client(t, kgo.UnknownTopicRetries(1))
	err := refused.ProduceSync(context.Background(), numbered(fresh("absent"), 0, 1)...).FirstErr()
	wantErr(t, err, kerr.UnknownTopicOrPartition)
}

func TestDirectConsumingAtOffsets(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	produce(t, client(t), numbered(name, 0, 20)...)
	for what, offset := range map[string]kgo.Offset{
		"exact": kgo.NewOffset().At(15), "start plus": kgo.NewOffset().AtStart().Relative(15),
		"end minus": kgo.NewOffset().AtEnd().Relative(-5)} {
		t.Run(what, func(t *testing.T) {
			cl := client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {0: offset}}))
			want(t, values(receive(t, cl, 5)), names(15, 20))
		})
	}
}

func TestConsumingFromATime(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	base := int64(1_700_000_000_000)
	cl := client(t)
	for i, record := range numbered(name, 0, 10) {
		record.Timestamp = time.UnixMilli(base + int64(i)*1000)
		produce(t, cl, record)
	}
	reader := client(t, kgo.ConsumeTopics(name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(base+3500)))
	want(t, values(receive(t, reader, 6)), names(4, 10))
}

func TestOutOfRangeIsReset(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	produce(t, client(t), numbered(name, 0, 5)...)
	cl := client(t,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().At(900)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	want(t, values(receive(t, cl, 5)), names(0, 5))
}

func TestOutOfRangeWithoutReset(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	produce(t, client(t), numbered(name, 0, 5)...)
	cl := client(t,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().At(900)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	fetches := cl.PollFetches(withTimeout(t, 20*time.Second))
	wantErr(t, fetches.Err(), kerr.OffsetOutOfRange)
}

func TestUnknownTopicIsAnError(t *testing.T) {
	t.Parallel()
	cl := client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		fresh("absent"): {0: kgo.NewOffset().AtStart()}}), kgo.KeepRetryableFetchErrors())
	fetches := cl.PollFetches(withTimeout(t, 20*time.Second))
	wantErr(t, fetches.Err(), kerr.UnknownTopicOrPartition)
}

func TestWaitingFetchIsWoken(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	reader := client(t, kgo.ConsumeTopics(name), kgo.FetchMaxWait(8*time.Second),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	cl := client(t)
	produce(t, cl, numbered(name, 0, 1)...)
	receive(t, reader, 1)
	time.Sleep(300 * time.Millisecond)
	begin := time.Now()
	produce(t, cl, numbered(name, 1, 2)...)
	receive(t, reader, 1)
	if waited := time.Since(begin); waited > 2*time.Second {
		t.Fatalf("woken after %v", waited)
	}
}

func TestMinBytesAreWaitedFor(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, nil)
	produce(t, client(t), numbered(name, 0, 1)...)
	reader := client(t, kgo.FetchMaxWait(1500*time.Millisecond), kgo.FetchMinBytes(1<<20),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().At(0)}}))
	begin := time.Now()
	receive(t, reader, 1)
	if waited := time.Since(begin); waited < time.Second || waited > 6*time.Second {
		t.Fatalf("came after %v", waited)
	}
}

func TestManyPartitionsInOneFetchSession(t *testing.T) {
	t.Parallel()
	name := topic(t, 40, nil)
	reader := client(t, kgo.ConsumeTopics(name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	cl := client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for round := range 3 {
		var records []*kgo.Record
		for partition := range 40 {
			records = append(records, &kgo.Record{Topic: name, Partition: int32(partition),
				Value: fmt.Append(nil, round)})
		}
		produce(t, cl, records...)
		seen := map[int32]bool{}
		for _, record := range receive(t, reader, 40) {
			want(t, record.Offset, round)
			seen[record.Partition] = true
		}
		want(t, len(seen), 40)
	}
}

func TestSmallFetchLimitsReadEverything(t *testing.T) {
	t.Parallel()
	name := topic(t, 2, nil)
	produce(t, client(t, kgo.ProducerBatchMaxBytes(2000)), numbered(name, 0, 2000)...)
	cl := client(t, kgo.ConsumeTopics(name), kgo.FetchMaxBytes(3000), kgo.FetchMaxPartitionBytes(1000),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	want(t, len(receive(t, cl, 2000)), 2000)
}

func TestGroupResumesAtItsCommit(t *testing.T) {
	t.Parallel()
	name, group := topic(t, 1, nil), fresh("g")
	produce(t, client(t), numbered(name, 0, 10)...)
	options := []kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics(name), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
	first := client(t, options...)
	got := receive(t, first, 10)
	if err := first.CommitRecords(withTimeout(t, 10*time.Second), got[5]); err != nil {
		t.Fatal(err)
	}
	first.Close()
	second := client(t, options...)
	want(t, values(receive(t, second, 4)), names(6, 10))
}

var balancers = map[string]kgo.GroupBalancer{
	"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(),
	"sticky": kgo.StickyBalancer(), "cooperative-sticky": kgo.CooperativeStickyBalancer()}

func TestMembersComeAndGo(t *testing.T) {
	for what, balancer := range balancers {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			name, group := topic(t, 6, nil), fresh("g")
			option := kgo.Balancers(balancer)
			one := join(t, group, name, option)
			eventually(t, "one holds all", func() bool { return shared(name, 6, 6, one) })
			two := join(t, group, name, option)
			three := join(t, group, name, option)
			eventually(t, "thirds", func() bool { return shared(name, 6, 2, one, two, three) })
			produce(t, client(t), numbered(name, 0, 300)...)
			eventually(t, "all records", func() bool {
				return len(one.records())+len(two.records())+len(three.records()) == 300
			})
			one.leave()
			eventually(t, "halves", func() bool { return shared(name, 6, 3, two, three) })
			two.leave()
			eventually(t, "all again", func() bool { return shared(name, 6, 6, three) })
		})
	}
}

func TestCooperativeMemberKeepsItsPartitions(t *testing.T) {
	t.Parallel()
	name, group := topic(t, 4, nil), fresh("g")
	one := join(t, group, name)
	eventually(t, "one holds all", func() bool { return shared(name, 4, 4, one) })
	two := join(t, group, name)
	eventually(t, "halves", func() bool { return shared(name, 4, 2, one, two) })
	want(t, one.revoked, 2)
}

func TestStaticMemberReturnsWithoutRebalance(t *testing.T) {
	t.Parallel()
	name, group := topic(t, 4, nil), fresh("g")
	options := func(id string) []kgo.Opt {
		return []kgo.Opt{kgo.InstanceID(id), kgo.SessionTimeout(30 * time.Second),
			kgo.Balancers(kgo.RangeBalancer())}
	}
	one := join(t, group, name, options("one")...)
	two := join(t, group, name, options("two")...)
	eventually(t, "halves", func() bool { return shared(name, 4, 2, one, two) })
	held, assigns := two.partitions(name), one.assigns
	two.leave()
	again := join(t, group, name, options("two")...)
	eventually(t, "the same half", func() bool {
		return slices.Equal(again.partitions(name), held)
	})
	want(t, one.assigns, assigns)
	adm := admin(t)
	left, err := adm.LeaveGroup(withTimeout(t, 10*time.Second),
		kadm.LeaveGroup(group).InstanceIDs("two"))
	if err != nil || !left.Ok() {
		t.Fatal(err, left.Error())
	}
	again.halt()
	eventually(t, "one holds all", func() bool { return shared(name, 4, 4, one) })
}

func TestAdminTopics(t *testing.T) {
	t.Parallel()
	adm, ctx, name := admin(t), withTimeout(t, 30*time.Second), topic(t, 3, nil)
	found, err := adm.ListTopics(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	want(t, len(found[name].Partitions), 3)
	want(t, found[name].ID == kadm.TopicID{}, false)
	create := func(partitions int32, replicas int16, configs map[string]*string, name string) error {
		_, err := adm.CreateTopic(ctx, partitions, replicas, configs, name)
		return err
	}
	wantErr(t, create(1, 1, nil, name), kerr.TopicAlreadyExists)
	wantErr(t, create(1, 1, nil, "bad/name"), kerr.InvalidTopicException)
	wantErr(t, create(1, 2, nil, fresh("t")), kerr.InvalidReplicationFactor)
	wantErr(t, create(0, 1, nil, fresh("t")), kerr.InvalidPartitions)
	wantErr(t, create(1, 1, map[string]*string{"no.such": text("1")}, fresh("t")), kerr.InvalidConfig)
	updated, err := adm.UpdatePartitions(ctx, 5, name)
	if err != nil || updated.Error() != nil {
		t.Fatal(err, updated.Error())
	}
	eventually(t, "five partitions", func() bool {
		found, err := adm.ListTopics(ctx, name)
		return err == nil && len(found[name].Partitions) == 5
	})
	updated, err = adm.UpdatePartitions(ctx, 2, name)
	if err == nil {
		err = updated.Error()
	}
	wantErr(t, err, kerr.InvalidPartitions)
	if _, err := adm.DeleteTopic(ctx, name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is gone", func() bool {
		_, err := adm.DeleteTopic(ctx, name)
		return errors.Is(err, kerr.UnknownTopicOrPartition)
	})
}

func TestAdminConfigs(t *testing.T) {
	t.Parallel()
	name := topic(t, 1, map[string]*string{"retention.ms": text("7200000")})
	found, err := admin(t).DescribeTopicConfigs(withTimeout(t, 20*time.Second), name)
	if err != nil || found[0].Err != nil {
		t.Fatal(err, found[0].Err)
	}
	for _, config := range found[0].Configs {
		if config.Key == "retention.ms" {
			want(t, config.MaybeValue(), "7200000")
			want(t, config.Source.String(), "DYNAMIC_TOPIC_CONFIG")
			return
		}
	}
	t.Fatal("no retention.ms")
}

func TestAdminOffsets(t *testing.T) {
	t.Parallel()
	name, adm, ctx := topic(t, 1, nil), admin(t), withTimeout(t, 20*time.Second)
	base := int64(1_700_000_000_000)
	for i, stamp := range []int64{base, base + 5000, base + 1000} {
		produce(t, client(t), &kgo.Record{Topic: name, Value: fmt.Append(nil, i),
			Timestamp: time.UnixMilli(stamp)})
	}
	offset := func(listed kadm.ListedOffsets, err error) kadm.ListedOffset {
		if err != nil || listed.Error() != nil {
			t.Fatal(err, listed.Error())
		}
		found, _ := listed.Lookup(name, 0)
		return found
	}
	want(t, offset(adm.ListStartOffsets(ctx, name)).Offset, 0)
	want(t, offset(adm.ListEndOffsets(ctx, name)).Offset, 3)
	want(t, offset(adm.ListCommittedOffsets(ctx, name)).Offset, 3)
	want(t, offset(adm.ListOffsetsAfterMilli(ctx, base+1, name)).Offset, 1)
	latest := offset(adm.ListMaxTimestampOffsets(ctx, name))
	want(t, []int64{latest.Offset, latest.Timestamp}, []int64{1, base + 5000})
}

func TestAdminGroups(t *testing.T) {
	t.Parallel()
	name, group, adm := topic(t, 2, nil), fresh("g"), admin(t)
	ctx := withTimeout(t, 30*time.Second)
	produce(t, client(t, kgo.RecordPartitioner(kgo.ManualPartitioner())), numbered(name, 0, 10)...)
	offsets := kadm.Offsets{}
	offsets.AddOffset(name, 0, 4, -1)
	if err := adm.CommitAllOffsets(ctx, group, offsets); err != nil {
		t.Fatal(err)
	}
	fetched, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	found, _ := fetched.Lookup(name, 0)
	want(t, found.At, 4)
	lag, err := adm.Lag(ctx, group)
	if err != nil || lag.Error() != nil {
		t.Fatal(err, lag.Error())
	}
	want(t, lag[group].Lag.Total(), 6)

	m := join(t, group, name, kgo.DisableAutoCommit())
	eventually(t, "the member holds both", func() bool { return shared(name, 2, 2, m) })
	described, err := adm.DescribeGroups(ctx, group)
	if err != nil || described.Error() != nil {
		t.Fatal(err, described.Error())
	}
	state := described[group]
	want(t, state.State, "Stable")
	want(t, len(state.Members), 1)
	want(t, state.AssignedPartitions().Sorted(),
		[]kadm.TopicPartitions{{Topic: name, Partitions: []int32{0, 1}}})
	listed, err := adm.ListGroups(ctx, "Stable")
	if err != nil {
		t.Fatal(err)
	}
	want(t, slices.Contains(listed.Groups(), group), true)
	_, err = adm.DeleteGroup(ctx, group)
	wantErr(t, err, kerr.NonEmptyGroup)
	m.leave()
	eventually(t, "the group is deleted", func() bool {
		_, err := adm.DeleteGroup(ctx, group)
		return err == nil
	})
	_, err = adm.DeleteGroup(ctx, group)
	wantErr(t, err, kerr.GroupIDNotFound)
}

func TestClusterAndVersions(t *testing.T) {
	t.Parallel()
	adm, ctx := admin(t), withTimeout(t, 20*time.Second)
	metadata, err := adm.BrokerMetadata(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want(t, len(metadata.Brokers), 1)
	want(t, fmt.Sprintf("%s:%d", metadata.Brokers[0].Host, metadata.Brokers[0].Port), broker())
	want(t, metadata.Controller, metadata.Brokers[0].NodeID)
	versions, err := adm.ApiVersions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range versions {
		lowest, highest, exists := of.KeyVersions(0)
		want(t, exists && lowest == 0 && highest >= 11, true)
	}
}

func TestLeaderEpochOfAPartition(t *testing.T) {
	t.Parallel()
	name, adm := topic(t, 1, nil), admin(t)
	produce(t, client(t), numbered(name, 0, 3)...)
	var ask kadm.OffsetForLeaderEpochRequest
	ask.Add(name, 0, 0)
	found, err := adm.OffsetForLeaderEpoch(withTimeout(t, 20*time.Second), ask)
	if err != nil {
		t.Fatal(err)
	}
	want(t, found[name][0].Err, error(nil))
	want(t, found[name][0].EndOffset, 3)
}

// Tests that restart the broker: without t.Parallel() they run before the others, one by one.

func TestRestartKeepsDataAndOffsets(t *testing.T) {
	needsRestart(t)
	for _, how := range []string{"term", "kill"} {
		name, group := topic(t, 2, nil), fresh("g")
		produce(t, client(t, kgo.RecordPartitioner(kgo.ManualPartitioner())),
			numbered(name, 0, 100)...)
		options := []kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics(name),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit()}
		first := client(t, options...)
		got := receive(t, first, 100)
		if err := first.CommitRecords(withTimeout(t, 10*time.Second), got[69]); err != nil {
			t.Fatal(err)
		}
		first.Close()
		restart(t, how)
		second := client(t, options...)
		want(t, values(receive(t, second, 30)), names(70, 100))
	}
}

func TestRestartUnderARunningProducerAndMember(t *testing.T) {
	needsRestart(t)
	name := topic(t, 1, nil)
	m := join(t, fresh("g"), name)
	cl := client(t)
	produce(t, cl, numbered(name, 0, 100)...)
	eventually(t, "the first hundred", func() bool { return len(m.records()) == 100 })
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 100; i < 1000 && err == nil; i++ {
			err = cl.ProduceSync(context.Background(), numbered(name, i, i+1)...).FirstErr()
			time.Sleep(time.Millisecond)
		}
		done <- err
	}()
	restart(t, "term")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want(t, values(readAll(t, name, 1000)), names(0, 1000))
	eventually(t, "the member has all", func() bool {
		seen := map[string]bool{}
		for _, value := range values(m.records()) {
			seen[value] = true
		}
		return len(seen) == 1000
	})
}
