package pluginsdk

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// BenchmarkSubscribe delivers batches of 500 findings of a usual size, from
// the line on the socket to the handler and back to the acknowledgement.
func BenchmarkSubscribe(b *testing.B) {
	const events = 500
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	batch := Batch{Cursor: "c"}
	for i := range events {
		batch.Events = append(batch.Events, Event{ID: fmt.Sprintf("f-%d", i), Type: TypeFinding, Time: at, Change: ChangeOpened, Finding: &Finding{
			ID: "0123456789", Fingerprint: "0123456789abcdef0123456789abcdef", State: Open, Source: "integrity", Rule: "file-changed",
			Severity: High, Title: "A file changed", Subject: fmt.Sprintf("/usr/lib/file-%d", i), Evidence: map[string]string{"size": "1 → 2", "mode": "0644 → 0755"},
			Observed: at, FirstSeen: at, LastSeen: at, TimesSeen: 1, Scopes: []string{"default"},
		}})
	}
	params, err := json.Marshal(batch)
	if err != nil {
		b.Fatal(err)
	}
	line := []byte(`{"method":"events","params":` + string(params) + "}\n")
	ours, theirs := socketpair(b)
	theirs.Write([]byte(greeting))
	c, err := NewClient(ours)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	handled := 0
	go func() {
		dec := json.NewDecoder(theirs)
		sent, acked := 0, 0
		for acked < b.N {
			for ; sent < b.N && sent-acked < outstanding; sent++ {
				if sent == 0 {
					var m heard
					dec.Decode(&m)
					fmt.Fprintf(theirs, `{"id":%d,"result":{}}`+"\n", m.ID)
				}
				theirs.Write(line)
			}
			var m heard
			if dec.Decode(&m) != nil {
				return
			}
			acked++
			fmt.Fprintf(theirs, `{"id":%d,"result":{}}`+"\n", m.ID)
		}
		cancel()
	}()
	c.Subscribe(ctx, Subscription{}, func(_ context.Context, batch Batch) error { handled += len(batch.Events); return nil })
	b.ReportMetric(float64(handled)/b.Elapsed().Seconds(), "events/s")
}
