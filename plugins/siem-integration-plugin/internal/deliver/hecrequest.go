package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync/atomic"
	"time"
)

// hecAnswer is the answer to a request. Code: Splunk, "Troubleshoot HTTP Event
// Collector", table of possible error codes.
type hecAnswer struct {
	Text    string `json:"text"`
	Code    int    `json:"code"`
	AckID   *int64 `json:"ackId"`
	Invalid *int   `json:"invalid-event-number"`
}

// speaksOfContent says whether a code is about an event, and not about the
// token, the channel or the index.
func speaksOfContent(code int) bool { return slices.Contains([]int{6, 12, 13, 15}, code) }

// post makes one request of what is kept of a flight. Events that the receiver
// refuses are taken out, and the rest is sent again at once.
func (h *hec) post(ctx context.Context, f *hecFlight) (*failed, error) {
	for len(f.keep) > 0 {
		if err := h.write(f); err != nil {
			return nil, err
		}
		answer, resp, fail := h.once(ctx, f)
		if fail != nil {
			return fail, nil
		}
		if resp.StatusCode/100 == 2 && answer.Code == 0 {
			f.posted, f.sent = true, time.Now()
			switch {
			case !*h.d.cfg.Acknowledge:
				f.acked = true
			case answer.AckID == nil:
				f.posted = false
				return &failed{err: fmt.Errorf("%s took events without an ackId: switch indexer acknowledgement on for the token, or set acknowledge: false", h.url.Host)}, nil
			default:
				f.id = *answer.AckID
			}
			h.d.wait.reset()
			h.d.worked()
			return nil, nil
		}
		reason := fmt.Sprintf("%s answered %s, code %d: %.300q", h.url.Host, resp.Status, answer.Code, answer.Text)
		if resp.StatusCode != http.StatusBadRequest || !speaksOfContent(answer.Code) {
			return &failed{err: errors.New(reason), after: retryAfter(resp.Header, time.Now()), unknown: unknown(resp.StatusCode)}, nil
		}
		i := 0
		if answer.Invalid != nil && *answer.Invalid >= 0 && *answer.Invalid < len(f.keep) {
			i = *answer.Invalid
		} else if len(f.keep) > 1 {
			return &failed{err: errors.New(reason + "; it does not say which event it means")}, nil
		}
		f.b.refuse(f.keep[i], reason)
		f.keep = slices.Delete(f.keep, i, i+1)
		// Events before the one that it names were taken by some versions, with
		// no acknowledgement; sent again they are doubles, which is better than
		// none.
	}
	f.acked = true
	return nil, nil
}

func (h *hec) once(ctx context.Context, f *hecFlight) (hecAnswer, *http.Response, *failed) {
	h.body = h.body[:0]
	body := some(h.body, f.b, f.keep)
	if len(f.keep) != len(f.b.ends) {
		h.body = body
	}
	return h.exchange(ctx, h.url, body)
}

// exchange posts a body and reads the answer, which the documents say is JSON
// with every status.
func (h *hec) exchange(ctx context.Context, u *url.URL, body []byte) (hecAnswer, *http.Response, *failed) {
	var answer hecAnswer
	var begun atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { begun.Store(true) }})
	resp, b, err := h.do(ctx, u, body)
	if err != nil {
		return answer, nil, &failed{err: err, unknown: begun.Load()}
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return answer, nil, &failed{err: fmt.Errorf("%s answered %s%s", u.Host, resp.Status, excerpt(bytes.NewReader(b))),
			after: retryAfter(resp.Header, time.Now()), unknown: resp.StatusCode/100 == 2 || unknown(resp.StatusCode)}
	}
	return answer, resp, nil
}

// unknown says whether a status leaves open if the events were taken: those
// with which a balancer says that it does not know, either, and an error inside
// of the receiver.
func unknown(status int) bool { return status >= 500 && status != http.StatusServiceUnavailable }

func (h *hec) do(ctx context.Context, u *url.URL, body []byte) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(h.d.cfg.Timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", "Splunk "+h.d.opts.Secrets.Token)
	req.Header.Set("X-Splunk-Request-Channel", h.channel)
	req.Header.Set("Content-Type", h.d.enc.ContentType())
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp, b, err
}

// pollAcks asks which of some flights are indexed. A receiver that does not
// answer is asked again later.
func (h *hec) pollAcks(ctx context.Context, flights []*hecFlight) (answered bool, err error) {
	var ask struct {
		Acks []int64 `json:"acks"`
	}
	for _, f := range flights {
		if f.waits() {
			ask.Acks = append(ask.Acks, f.id)
		}
	}
	if len(ask.Acks) == 0 {
		return false, nil
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return false, err
	}
	u := *h.ack
	q := u.Query()
	q.Set("channel", h.channel)
	u.RawQuery = q.Encode()
	resp, b, err := h.do(ctx, &u, body)
	answered = err == nil && resp.StatusCode < 500
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s%s", h.ack.Host, resp.Status, excerpt(bytes.NewReader(b)))
	}
	var answer struct {
		Acks map[int64]bool `json:"acks"`
	}
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err != nil {
		if ctx.Err() == nil {
			h.d.failed(fmt.Errorf("asking for acknowledgements: %w", err))
		}
		return answered, nil
	}
	for _, f := range flights {
		if f.waits() && answer.Acks[f.id] {
			f.acked, h.proven = true, true
			if f.guess {
				h.last = max(h.last, f.id)
			}
			h.d.worked()
		}
	}
	return answered, nil
}
