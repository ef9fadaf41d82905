package pluginsdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestGreeting(t *testing.T) {
	c, _ := start(t)
	hello := c.Hello()
	if hello.Protocol != Protocol || hello.Host.ID != "h1" || hello.Plugin.Name != "sample" || hello.Role != RoleService {
		t.Errorf("%+v", hello)
	}
	for name, tc := range map[string]struct {
		first string
		want  error
	}{
		"nothing":        {"", ErrHostGone},
		"half a line":    {`{"method":"hello"`, ErrHostGone},
		"no JSON":        {"hello\n", ErrProtocol},
		"something else": {`{"method":"events","params":{}}` + "\n", ErrProtocol},
		"a request":      {`{"id":1,"method":"hello","params":{"protocol":"mobileops.plugin/v1"}}` + "\n", ErrProtocol},
		"another one":    {strings.Replace(greeting, "/v1", "/v2", 1), ErrProtocol},
		"too long":       {strings.Repeat(" ", MaxLine+1) + "\n", ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := socketpair(t)
			go func() {
				theirs.Write([]byte(tc.first))
				theirs.Close()
			}()
			c, err := NewClient(ours)
			if !errors.Is(err, tc.want) || c != nil {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the connection is open: %v", err)
			}
		})
	}
}

func TestConnect(t *testing.T) {
	t.Setenv(EnvFD, "")
	if _, err := Connect(); !errors.Is(err, ErrNoHost) {
		t.Errorf("without a host: %v", err)
	}
	t.Setenv(EnvFD, "three")
	if _, err := Connect(); !errors.Is(err, ErrNoHost) {
		t.Errorf("no number: %v", err)
	}
	t.Setenv(EnvFD, "987654")
	if _, err := Connect(); !errors.Is(err, ErrNoHost) {
		t.Errorf("no descriptor: %v", err)
	}
	ours, theirs := socketpair(t)
	if _, err := theirs.Write([]byte(greeting)); err != nil {
		t.Fatal(err)
	}
	file, err := ours.File()
	if err != nil {
		t.Fatal(err)
	}
	fd := dup(t, int(file.Fd())) // Connect closes it
	file.Close()
	t.Setenv(EnvFD, fmt.Sprint(fd))
	c, err := Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Connect(); !errors.Is(err, ErrNoHost) {
		t.Errorf("a second one: %v", err)
	}
	if v, ok := os.LookupEnv(EnvFD); ok {
		t.Errorf("children inherit %s=%s", EnvFD, v)
	}
}

func TestReadyAndHealth(t *testing.T) {
	c, h := start(t)
	if err := c.Ready(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Health(Health{Status: StatusDegraded, Message: "slow", Metrics: map[string]float64{"queued": 12}}); err != nil {
		t.Fatal(err)
	}
	if m := h.expect("ready"); m.ID != 0 || string(m.Params) != "{}" {
		t.Errorf("%+v", m)
	}
	if m := h.expect("health"); string(m.Params) != `{"status":"degraded","message":"slow","metrics":{"queued":12}}` {
		t.Errorf("%s", m.Params)
	}
	if err := c.Health(Health{Status: "fine"}); !errors.Is(err, &Error{Code: CodeInvalid}) {
		t.Errorf("an unknown status: %v", err)
	}
}

// Answers come in any order, and each goes to the question of its number.
func TestAnswersInAnyOrder(t *testing.T) {
	c, h := start(t)
	const n = 200
	go func() {
		var held []heard
		for range n {
			held = append(held, h.hear())
			if len(held) == 10 {
				for i := len(held) - 1; i >= 0; i-- {
					var p struct{ Name string }
					json.Unmarshal(held[i].Params, &p)
					h.sendf(`{"id":%d,"result":{"value":"of %s"}}`, held[i].ID, p.Name)
				}
				held = nil
			}
		}
	}()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprintf("s%d", i)
			if v, err := c.Secret(within(t), name); err != nil || v != "of "+name {
				t.Errorf("%s: %q, %v", name, v, err)
			}
		})
	}
	wg.Wait()
}

func TestRefusal(t *testing.T) {
	c, h := start(t)
	h.serve(func(m heard) (string, *Error) { return "", &Error{CodeDenied, "not listed"} })
	_, err := c.Secret(within(t), "x")
	var refused *Error
	if !errors.As(err, &refused) || refused.Code != CodeDenied || !errors.Is(err, &Error{Code: CodeDenied}) ||
		errors.Is(err, &Error{Code: CodeBusy}) || errors.Is(err, &Error{Code: CodeDenied, Message: "another"}) {
		t.Errorf("%v", err)
	}
	if want := "secret.get: not listed (denied)"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

func TestConfig(t *testing.T) {
	c, h := start(t)
	h.serve(func(m heard) (string, *Error) {
		return `{"values":{"queue":1073741824,"every":"1m30s","new":true},"secrets":["d[0].token"],"later":1}`, nil
	})
	var got struct {
		Queue int64
		Every Duration
	}
	if err := c.Config(within(t), &got); err != nil || got.Queue != 1<<30 || time.Duration(got.Every) != 90*time.Second {
		t.Errorf("%+v, %v", got, err)
	}
	names, err := c.SecretNames(within(t))
	if err != nil || len(names) != 1 || names[0] != "d[0].token" {
		t.Errorf("%q, %v", names, err)
	}
}

// What this version does not know is ignored, and what the host asks that it
// does not know is refused.
func TestUnknown(t *testing.T) {
	c, h := start(t)
	h.sendf(`{"method":"weather","params":{"rain":true}}`)
	h.sendf(`{"id":7,"result":{}}`) // an answer to nothing
	h.sendf(`{}`)
	h.sendf(`{"id":9007199254740993,"method":"dance","params":[1],"extra":{"a":1}}`)
	if m := h.hear(); m.ID != 9007199254740993 || m.Error == nil || m.Error.Code != CodeUnknown {
		t.Errorf("%+v", m)
	}
	h.sendf(`{"id":8,"method":"ping","params":{},"extra":1}`)
	if m := h.hear(); m.ID != 8 || string(m.Result) != "{}" {
		t.Errorf("%+v", m)
	}
	if c.Err() != nil {
		t.Error(c.Err())
	}
}

func TestBrokenLinesEndTheConnection(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":       "nonsense\n",
		"no object":     "[]\n",
		"a bad number":  `{"id":-1,"result":{}}` + "\n",
		"too long":      `{"x":"` + strings.Repeat("a", MaxLine) + `"}` + "\n",
		"never ending":  strings.Repeat("a", MaxLine+10),
		"too far ahead": `{"id":1,"result":{}}` + "\n" + strings.Repeat(`{"method":"events","params":{"events":[],"cursor":"a"}}`+"\n", 4),
	} {
		t.Run(name, func(t *testing.T) {
			c, h := start(t)
			block := make(chan struct{})
			defer close(block)
			result := make(chan error, 1)
			go func() {
				result <- c.Subscribe(context.Background(), Subscription{}, func(context.Context, Batch) error { <-block; return nil })
			}()
			h.expect("events.subscribe")
			go h.conn.Write([]byte(text))
			select {
			case <-c.Done():
			case <-time.After(patience):
				t.Fatal("it goes on")
			}
			if !errors.Is(c.Err(), ErrProtocol) {
				t.Error(c.Err())
			}
		})
	}
}

func TestDeadHostEndsEverything(t *testing.T) {
	c, h := start(t)
	results := make(chan error, 4)
	ctx := within(t)
	go func() { _, err := c.Secret(ctx, "x"); results <- err }()
	go func() { _, err := c.Dial(ctx, "tcp", "localhost:1"); results <- err }()
	go func() {
		for _, err := range c.Findings(ctx, Filter{}) {
			results <- err
		}
	}()
	go func() {
		results <- c.Subscribe(ctx, Subscription{}, func(context.Context, Batch) error { return nil })
	}()
	for range 4 {
		h.hear()
	}
	h.conn.Close()
	for range 4 {
		if err := <-results; !errors.Is(err, ErrHostGone) {
			t.Errorf("%v", err)
		}
	}
	<-c.Done()
	if _, err := c.Secret(ctx, "x"); !errors.Is(err, ErrHostGone) {
		t.Errorf("afterwards: %v", err)
	}
	if err := c.Health(Health{Status: StatusOK}); !errors.Is(err, ErrHostGone) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestClose(t *testing.T) {
	c, h := start(t)
	result := make(chan error, 1)
	go func() { _, err := c.Secret(within(t), "x"); result <- err }()
	h.expect("secret.get")
	c.Close()
	c.Close()
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := h.in.ReadByte(); err == nil {
		t.Error("the host hears more")
	}
}

// A context ends a call whatever it waits for: an answer, a host that does not
// read, a place among the calls that may be open.
func TestContextEndsCalls(t *testing.T) {
	c, h := start(t)
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan error)
	const n = maxCalls + 10
	for range n {
		go func() { _, err := c.Secret(ctx, strings.Repeat("x", 64<<10)); results <- err }()
	}
	h.expect("secret.get") // then the host reads no more
	cancel()
	for range n {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	// Nothing was cut in two: the host reads whole lines, and the next call works.
	answered := make(chan error, 1)
	go func() { _, err := c.Secret(within(t), "last"); answered <- err }()
	for {
		m := h.expect("secret.get")
		if strings.Contains(string(m.Params), "last") {
			h.sendf(`{"id":%d,"result":{"value":"v"}}`, m.ID)
			break
		}
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) != 0 {
		t.Errorf("%d calls are still remembered", len(c.pending))
	}
}

// A host that floods pings and reads nothing has to wait; nothing is lost and
// nothing grows.
func TestFloodOfPings(t *testing.T) {
	c, h := start(t)
	const n = 50_000 // more than the buffers of both sockets have room for
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		var batch strings.Builder
		for i := 1; i <= n; i++ {
			fmt.Fprintf(&batch, `{"id":%d,"method":"ping"}`+"\n", i)
			if batch.Len() > 32<<10 || i == n {
				if _, err := h.conn.Write([]byte(batch.String())); err != nil {
					return
				}
				batch.Reset()
			}
		}
	}()
	eventually(t, "the plugin reads no more", func() bool { return len(c.pongs) == maxPongs })
	select {
	case <-sent:
		t.Fatal("all pings fit: this shows nothing")
	default:
	}
	h.conn.SetReadDeadline(time.Now().Add(patience))
	for i := 1; i <= n; i++ {
		line, err := h.in.ReadString('\n')
		if want := fmt.Sprintf(`{"id":%d,"result":{}}`+"\n", i); err != nil || line != want {
			t.Fatalf("%q, %v; want %q", line, err, want)
		}
	}
	<-sent
}
