package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/format"
)

// otlp is OTLP/HTTP with JSON. The records of a batch stand in one request,
// between its head and its tail, which are the same for all.
type otlp struct {
	d          *Destination
	url        *url.URL
	head, tail []byte
	body       []byte
}

func newOTLP(d *Destination) (*otlp, error) {
	u, err := url.Parse(d.cfg.URL)
	if err != nil {
		return nil, err
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/logs"
	}
	empty, err := format.OTLPBatch(nil, nil, d.opts.Format)
	if err != nil {
		return nil, err
	}
	const records = `"logRecords":[`
	i := bytes.LastIndex(empty, []byte(records))
	if i < 0 {
		return nil, errors.New("a request without events has no place for them")
	}
	i += len(records)
	return &otlp{d: d, url: u, head: empty[:i], tail: empty[i:]}, nil
}

func (o *otlp) most() int { return o.d.cfg.BatchEvents }

func (o *otlp) request(ctx context.Context, b *batch, messages []int) (*http.Request, error) {
	o.body = append(o.body[:0], o.head...)
	for k, i := range messages {
		if k > 0 {
			o.body = append(o.body, ',')
		}
		from, to := b.span(i) // each is a request of its own, of which the record is taken
		o.body = append(o.body, b.body[from+len(o.head):to-len(o.tail)]...)
	}
	o.body = append(o.body, o.tail...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url.String(), bytes.NewReader(o.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", o.d.enc.ContentType())
	o.d.authorize(req, "Bearer ")
	return req, nil
}

// answered reads partialSuccess. It says how many records were refused, not
// which; the protocol forbids sending them again.
func (o *otlp) answered(body io.Reader, n int) (verdict, error) {
	b, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err != nil {
		return verdict{}, err
	}
	var answer struct {
		Partial struct {
			Rejected json.RawMessage `json:"rejectedLogRecords"` // a number of 64 bits may be a string
			Message  string          `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if len(bytes.TrimSpace(b)) > 0 {
		if err := json.Unmarshal(b, &answer); err != nil {
			return verdict{}, fmt.Errorf("the answer is no JSON (is this OTLP/HTTP?): %w", err)
		}
	}
	rejected, _ := strconv.Atoi(string(bytes.Trim(answer.Partial.Rejected, `"`)))
	if rejected <= 0 {
		return verdict{}, nil
	}
	return verdict{rejected: min(rejected, n), why: fmt.Errorf("it refused %d of %d events, without saying which: %.300q", rejected, n, answer.Partial.Message)}, nil
}
