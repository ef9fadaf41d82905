// Package deliver brings events from the queue to their destinations: syslog
// over TCP and TLS, Splunk's HTTP Event Collector, the bulk interface of
// OpenSearch and Elasticsearch, OTLP over HTTP, and webhooks.
//
// Each destination works on its own: a reader (batch.go) takes events from its
// cursor, leaves out those that its filter does not want, and encodes them; a
// sender brings them over, in order, and moves the cursor on when the receiver
// has them. What "has them" means differs:
//
//   - bulk (bulk.go): the answer has a result for every event. The id of the
//     event is that of the document, so what comes a second time is a conflict,
//     which counts as done: exactly once.
//   - hec (hec.go): the receiver acknowledges after it has indexed. What waits
//     for that is written down, so that a new process asks on (hecnote.go).
//   - otlp, webhook: the status of the answer.
//   - syslog (stream.go): the protocol has no answers. What the kernel of the
//     receiver has acknowledged counts as delivered; or, with confirm: close,
//     what the receiver had read when it closed the connection after we did.
//
// A destination that does not work is tried again after 1 to 60 seconds
// (backoff.go), for ever: nothing is dropped because of a receiver that is
// down or refuses everybody. What a receiver refuses for its content goes to
// the dead letters (dead.go) with the reason, and the rest goes on.
//
// Sources: RFC 5425, RFC 6587, tcp(7) SIOCOUTQ; Splunk "HTTP Event Collector
// indexer acknowledgment"; Elasticsearch "Bulk API"; OpenTelemetry "OTLP/HTTP
// Response"; RFC 9110 section 10.2.3 (Retry-After).
package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/format"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/queue"
)

// Dialer connects to an address: pluginsdk's Client.Dial.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Options are what a destination needs beside its configuration.
type Options struct {
	Dial    Dialer
	Dir     string         // where dead letters are
	Format  format.Options // host and version
	Secrets Secrets
}

// Secrets are the secret values of a destination.
type Secrets struct {
	Token      string // hec, bulk (API key), otlp and webhook (bearer)
	Password   string // of basic authentication
	HMACKey    string // webhook
	ClientKey  string // PEM
	ClientCert string // PEM
}

// Destination is one receiver of events.
type Destination struct {
	cfg    Config
	opts   Options
	filter filter
	enc    format.Encoder
	cursor *queue.Cursor
	dead   *deadLetters
	send   sender
	wait   backoff
	soft   context.Context // of Run
	sent   []span          // of the queue, that a former life sent and nobody confirmed, in order

	free    chan *batch
	batches chan *batch

	count counters
}

// sender brings batches over. run returns when soft is done and what was begun
// is finished, or hard is done.
type sender interface {
	run(soft, hard context.Context) error
	probe(ctx context.Context, b *batch) (string, error)
}

// counters are read while the destination runs.
type counters struct {
	delivered, filtered, dead, resent, rejected, doubles atomic.Uint64

	mu      sync.Mutex
	state   string
	lastErr string
	errAt   time.Time
	okAt    time.Time
	failing int // attempts in a row that failed
}

// Status is how a destination is.
type Status struct {
	Name        string    `json:"name"`
	Type        string    `json:"type"`
	State       string    `json:"state"`        // one line
	Queued      uint64    `json:"queued"`       // events that it has still to get
	Delivered   uint64    `json:"delivered"`    // since the service started, like all below
	Filtered    uint64    `json:"filtered"`     // not wanted by its filter
	DeadLetters uint64    `json:"dead_letters"` // in the file now
	Resent      uint64    `json:"resent"`       // sent again, for want of a confirmation
	Rejected    uint64    `json:"rejected"`     // otlp: refused, and the receiver did not say which
	Doubles     uint64    `json:"doubles"`      // bulk: were there already
	Failing     int       `json:"failing"`      // attempts in a row that failed
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	LastSuccess time.Time `json:"last_success_at,omitzero"`
}

// New makes a destination of its configuration, which has been checked.
// cursor is nil when only Probe will be called.
func New(cfg Config, opts Options, cursor *queue.Cursor) (*Destination, error) {
	d := &Destination{cfg: cfg, opts: opts, cursor: cursor, free: make(chan *batch, freeBatches), batches: make(chan *batch, 1)}
	var err error
	if d.filter, err = newFilter(cfg); err != nil {
		return nil, err
	}
	d.wait = newBackoff(cfg)
	opts.Format.Facility, opts.Format.Index, opts.Format.Header = cfg.Facility, cfg.Index, true
	opts.Format.Sourcetype = cfg.Sourcetype
	opts.Format.MaxMessage = int(cfg.MaxMessage)
	d.opts = opts
	if d.enc, err = format.New(cfg.encoder(), opts.Format); err != nil {
		return nil, fmt.Errorf("destination %s: %w", cfg.Name, err)
	}
	if cursor != nil {
		if d.dead, err = openDeadLetters(DeadLettersPath(opts.Dir, cfg.Name), int64(cfg.DeadLetters)); err != nil {
			return nil, err
		}
		d.count.dead.Store(d.dead.count)
	}
	switch cfg.Type {
	case TypeSyslogTCP, TypeSyslogTLS:
		d.send, err = newStream(d)
	case TypeHEC:
		d.send, err = newHEC(d)
	default:
		d.send, err = newRequests(d)
	}
	if err != nil {
		return nil, fmt.Errorf("destination %s: %w", cfg.Name, err)
	}
	for range freeBatches {
		d.free <- &batch{}
	}
	d.state("starting")
	return d, nil
}

// Name is the name of the destination.
func (d *Destination) Name() string { return d.cfg.Name }

// Run delivers until soft is done; then it finishes what it has begun, until
// hard is done at the latest. It fails only when the queue or the disk does.
func (d *Destination) Run(soft, hard context.Context) error {
	soft, stop := context.WithCancel(soft)
	defer stop()
	d.soft = soft
	read := make(chan error, 1)
	go func() {
		read <- d.read(soft)
		close(d.batches)
	}()
	err := d.send.run(soft, hard)
	stop()
	for range d.batches { // so that the reader is not stuck
	}
	if rerr := <-read; !errors.Is(rerr, context.Canceled) {
		err = errors.Join(err, rerr)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// commit says that the receiver has the first n messages of the batch, those
// that it refused included.
func (d *Destination) commit(b *batch, n int) error {
	if err := d.bury(b); err != nil {
		return err
	}
	d.count.delivered.Add(uint64(max(0, n-b.confirmed-b.dead)))
	b.confirmed, b.dead = n, 0
	if n == len(b.ends) {
		d.count.filtered.Add(b.filtered)
		b.filtered = 0
		if b.done != nil {
			return b.done()
		}
	}
	if b.again { // dead letters are not in the queue
		return nil
	}
	next := b.next
	if n < len(b.ends) {
		next = b.nexts[n]
	}
	return d.cursor.Commit(next)
}

// bury writes the dead letters of b down. When there is no room for them the
// destination stands still until somebody made some: nothing is thrown away.
func (d *Destination) bury(b *batch) error {
	for len(b.refused) > 0 {
		reason := b.refused[0].Reason
		took, err := d.dead.append(b.refused)
		if err != nil {
			return err
		}
		b.refused = b.refused[took:]
		d.count.dead.Add(uint64(took))
		if len(b.refused) == 0 {
			d.count.mu.Lock()
			d.count.lastErr, d.count.errAt = "dead letter: "+reason, time.Now()
			d.count.mu.Unlock()
			return nil
		}
		d.failed(fmt.Errorf("the dead letters have no room for more (%w); look, then send them again or drop them: mobileops siem-integration-plugin dead-letters list %s", errNoRoom, d.cfg.Name))
		if err := d.pause(d.soft, 0); err != nil {
			return err
		}
		if n, err := d.dead.recount(); err == nil {
			d.count.dead.Store(n)
		}
	}
	return nil
}

var errNoRoom = errors.New("see dead_letters in the configuration")

// refuse notes that message i of b can never be delivered.
func (b *batch) refuse(i int, reason string) {
	b.refused = append(b.refused, letter{Time: time.Now(), Reason: reason, packed: append([]byte(nil), b.raw(i)...)})
	b.dead++
}

func (d *Destination) state(s string) {
	d.count.mu.Lock()
	defer d.count.mu.Unlock()
	d.count.state = s
}

func (d *Destination) failed(err error) {
	d.count.mu.Lock()
	defer d.count.mu.Unlock()
	d.count.failing++
	d.count.lastErr, d.count.errAt = err.Error(), time.Now()
}

func (d *Destination) worked() {
	d.count.mu.Lock()
	defer d.count.mu.Unlock()
	d.count.failing, d.count.okAt, d.count.state = 0, time.Now(), "delivering"
}

// pause waits before the next attempt, and says why.
func (d *Destination) pause(ctx context.Context, after time.Duration) error {
	wait := max(d.wait.next(), min(after, maxRetryAfter))
	d.state(fmt.Sprintf("waiting until %s to try again", time.Now().Add(wait).Format(time.TimeOnly)))
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		d.state("trying again")
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status returns how the destination is; behind is what the queue says.
func (d *Destination) Status(behind uint64) Status {
	c := &d.count
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{
		Name: d.cfg.Name, Type: d.cfg.Type, State: c.state, Queued: behind, Delivered: c.delivered.Load(), Filtered: c.filtered.Load(),
		DeadLetters: c.dead.Load(), Resent: c.resent.Load(), Rejected: c.rejected.Load(), Doubles: c.doubles.Load(),
		Failing: c.failing, LastError: c.lastErr, LastErrorAt: c.errAt, LastSuccess: c.okAt,
	}
}

// Probe sends one event that is marked as a test, and returns what the
// receiver answered.
func (d *Destination) Probe(ctx context.Context) (string, error) {
	e := testEvent()
	b := &batch{}
	if err := d.encode(b, e, nil, queue.Position{}); err != nil {
		return "", err
	}
	return d.send.probe(ctx, b)
}

// DeadLettersPath is the file with the dead letters of a destination.
func DeadLettersPath(dir, name string) string { return filepath.Join(dir, "dead", name+".jsonl") }
