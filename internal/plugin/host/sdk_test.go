package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// TestSDK holds both ends of the protocol against each other.
func TestSDK(t *testing.T) {
	store := newStore(t)
	grow(t, store, 0, 3000)
	address := echo(t, "tcp4", "127.0.0.1:0").Addr().String()
	perms := readAll()
	perms.Network = []string{address}
	health := make(chan Health, 1)
	connect := func() (*pluginsdk.Client, func()) {
		ours, theirs := pair(t)
		result := make(chan error, 1)
		go func() {
			result <- Serve(context.Background(), ours, Options{
				Name: "probe", Version: "1.0.0", Role: RoleService, HostVersion: "0.9", HostID: "id", Store: store, Permissions: perms,
				Config: secrets{"token": "s3cret"}, Watchdog: patience, OnHealth: func(h Health) { health <- h },
			})
		}()
		c, err := pluginsdk.NewClient(theirs)
		if err != nil {
			t.Fatal(err)
		}
		return c, func() {
			t.Helper()
			c.Close()
			select {
			case err := <-result:
				if err != nil {
					t.Errorf("Serve: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("Serve does not end")
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	c, end := connect()
	if h := c.Hello(); h.Plugin.Name != "probe" || h.Host.ID != "id" || h.Role != pluginsdk.RoleService {
		t.Errorf("hello %+v", h)
	}
	if err := errors.Join(c.Ready(ctx), c.Health(pluginsdk.Health{Status: pluginsdk.StatusOK, Metrics: map[string]float64{"queued": 3}})); err != nil {
		t.Error(err)
	}
	if h := <-health; h.Metrics["queued"] != 3 {
		t.Errorf("health %+v", h)
	}
	var config struct{ Queue int }
	if err := c.Config(ctx, &config); err != nil || config.Queue != 7 {
		t.Errorf("configuration %+v, %v", config, err)
	}
	if v, err := c.Secret(ctx, "token"); err != nil || v != "s3cret" {
		t.Errorf("secret %q, %v", v, err)
	}
	if _, err := c.Secret(ctx, "other"); !errors.Is(err, &pluginsdk.Error{Code: pluginsdk.CodeNotFound}) {
		t.Errorf("no secret: %v", err)
	}
	n := 0
	for f, err := range c.Findings(ctx, pluginsdk.Filter{Source: "integrity"}) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Source != "integrity" || f.ID == "" {
			t.Fatalf("finding %+v", f)
		}
		n++
	}
	if n != 3000 {
		t.Errorf("%d findings", n)
	}
	var found []pluginsdk.Finding
	for i := range 2500 {
		found = append(found, pluginsdk.Finding{Rule: "cve", Severity: pluginsdk.High, Title: "x", Subject: fmt.Sprintf("p\xff%d", i)})
	}
	if sum, err := c.Report(ctx, "s", true, found); err != nil || sum.New != 2500 {
		t.Errorf("report: %+v, %v", sum, err)
	}
	if sum, err := c.Report(ctx, "s", true, found[:1200]); err != nil || sum.Seen != 1200 || sum.Resolved != 1300 {
		t.Errorf("second report: %+v, %v", sum, err)
	}
	conn, err := c.Dial(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := conn.(*net.TCPConn); !ok {
		t.Errorf("connection %T", conn)
	}
	got := make([]byte, 4)
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
		t.Errorf("echo %q, %v", got, err)
	}
	conn.Close()
	if _, err := c.Dial(ctx, "tcp", "127.0.0.1:1"); !errors.Is(err, &pluginsdk.Error{Code: pluginsdk.CodeDenied}) {
		t.Errorf("dial: %v", err)
	}

	// 3000 opened, 2500 opened, 1300 resolved: in order, none twice, over two
	// processes of which the first fails amid a batch.
	const total = 3000 + 2500 + 1300
	seen := map[string]bool{}
	full := errors.New("the queue is full")
	take := func(limit int) func(context.Context, pluginsdk.Batch) error {
		return func(_ context.Context, b pluginsdk.Batch) error {
			if len(seen) >= limit {
				return full
			}
			for _, e := range b.Events {
				if want := fmt.Sprintf("f%d-", len(seen)+1); e.ID[:min(len(want), len(e.ID))] != want || seen[e.ID] {
					t.Fatalf("event %s, want %s", e.ID, want)
				}
				if e.Finding.Source == "plugin/probe" && e.Finding.Subject[1] != 0xff {
					t.Fatalf("subject %q", e.Finding.Subject)
				}
				seen[e.ID] = true
			}
			if len(seen) == total {
				return io.EOF
			}
			return nil
		}
	}
	if err := c.Subscribe(ctx, pluginsdk.Subscription{From: pluginsdk.FromOldest, Types: []string{pluginsdk.TypeFinding}, Batch: 300}, take(2000)); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if err := c.Subscribe(ctx, pluginsdk.Subscription{Types: []string{pluginsdk.TypeFinding}}, take(4000)); !errors.Is(err, full) {
		t.Fatal(err)
	}
	end()
	c, end = connect()
	defer end()
	if err := c.Subscribe(ctx, pluginsdk.Subscription{Types: []string{pluginsdk.TypeFinding}}, take(total)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if last := saved(t, store, "probe"); last.findings > total || last.findings < 4000 {
		t.Errorf("saved %v", last)
	}
}
