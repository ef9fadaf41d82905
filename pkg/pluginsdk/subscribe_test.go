package pluginsdk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const batchLine = `{"method":"events","params":{"events":[{"id":"e%[1]d","type":"gap","lost":%[1]d}],"cursor":"c%[1]d"}}`

func TestSubscribe(t *testing.T) {
	c, h := start(t)
	h.sendf(batchLine, 99) // of no subscription: not delivered
	ctx, cancel := context.WithCancel(context.Background())
	var got []string
	result := make(chan error, 1)
	go func() {
		result <- c.Subscribe(ctx, Subscription{Types: []string{TypeFinding}, Batch: 10}, func(_ context.Context, b Batch) error {
			if err := c.Subscribe(ctx, Subscription{}, nil); err != ErrSubscribed {
				t.Errorf("a second subscription: %v", err)
			}
			got = append(got, fmt.Sprintf("%s:%s:%d", b.Cursor, b.Events[0].ID, b.Events[0].Lost))
			if b.Cursor == "c5" {
				cancel() // c5 is acknowledged all the same
			}
			return nil
		})
	}()
	m := h.expect("events.subscribe")
	if want := `{"types":["finding"],"from":"saved","batch":10}`; string(m.Params) != want {
		t.Errorf("%s, want %s", m.Params, want)
	}
	h.sendf(batchLine, 98) // before the answer: of an earlier subscription
	h.send(fmt.Sprintf(`{"id":%d,"result":{"cursor":"c0"}}`+"\n", m.ID) + fmt.Sprintf(batchLine, 1) + "\n" + fmt.Sprintf(batchLine, 2) + "\n")
	for i := 1; i <= 5; i++ {
		a := h.expect("events.ack")
		if want := fmt.Sprintf(`{"cursor":"c%d"}`, i); string(a.Params) != want {
			t.Fatalf("%s, want %s", a.Params, want)
		}
		h.sendf(`{"id":%d,"result":{}}`, a.ID)
		if i <= 3 {
			h.sendf(batchLine, i+2)
		}
	}
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if want := "c1:e1:1 c2:e2:2 c3:e3:3 c4:e4:4 c5:e5:5"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What handle did not take is not acknowledged, and comes again.
func TestRefusedBatchIsNotAcknowledged(t *testing.T) {
	c, h := start(t)
	full := errors.New("disk full")
	for _, refuse := range []error{full, nil} {
		ctx, cancel := context.WithCancel(context.Background())
		result := make(chan error, 1)
		go func() {
			result <- c.Subscribe(ctx, Subscription{}, func(_ context.Context, b Batch) error {
				if b.Cursor != "c1" {
					t.Errorf("%s first", b.Cursor)
				}
				return refuse
			})
		}()
		m := h.expect("events.subscribe")
		h.sendf(`{"id":%d,"result":{"cursor":"c0"}}`, m.ID)
		h.sendf(batchLine, 1)
		if refuse == nil {
			a := h.expect("events.ack") // and nothing before it
			h.sendf(`{"id":%d,"result":{}}`, a.ID)
			cancel()
		}
		err := <-result
		if refuse != nil && err != full || refuse == nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		cancel()
	}
}

func TestUnreadableBatch(t *testing.T) {
	c, h := start(t)
	result := make(chan error, 1)
	go func() {
		result <- c.Subscribe(within(t), Subscription{}, func(context.Context, Batch) error { t.Error("handled"); return nil })
	}()
	m := h.expect("events.subscribe")
	h.sendf(`{"id":%d,"result":{"cursor":"c0"}}`, m.ID)
	h.sendf(`{"method":"events","params":{"events":[{"id":7}],"cursor":"c1"}}`)
	if err := <-result; !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

func TestRefusedSubscription(t *testing.T) {
	c, h := start(t)
	h.serve(func(heard) (string, *Error) { return "", &Error{CodeDenied, "no"} })
	err := c.Subscribe(within(t), Subscription{}, nil)
	if !errors.Is(err, &Error{Code: CodeDenied}) {
		t.Error(err)
	}
	h.sendf(batchLine, 1)
	h.sendf(`{"method":"noise"}`)
}
