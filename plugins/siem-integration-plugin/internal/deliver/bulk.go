package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// bulk is the bulk interface of OpenSearch and Elasticsearch.
type bulk struct {
	d    *Destination
	url  *url.URL
	body []byte
}

// maxAnswer bounds what is read of an answer with a result for every event.
const maxAnswer = 64 << 20

func newBulk(d *Destination) (*bulk, error) {
	u, err := endpoint(d.cfg.URL, "/_bulk")
	if err != nil {
		return nil, err
	}
	q := u.Query()
	q.Set("filter_path", "took,errors,items.*.status,items.*.error.type,items.*.error.reason")
	u.RawQuery = q.Encode()
	return &bulk{d: d, url: u}, nil
}

func (k *bulk) most() int { return k.d.cfg.BatchEvents }

// some returns the messages of b, without copying when they are all of it.
func some(buf []byte, b *batch, messages []int) []byte {
	if len(messages) == len(b.ends) {
		return b.body
	}
	for _, i := range messages {
		from, to := b.span(i)
		buf = append(buf, b.body[from:to]...)
	}
	return buf
}

func (k *bulk) request(ctx context.Context, b *batch, messages []int) (*http.Request, error) {
	k.body = k.body[:0]
	body := some(k.body, b, messages)
	if len(messages) != len(b.ends) {
		k.body = body
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", k.d.enc.ContentType())
	k.d.authorize(req, "ApiKey ")
	return req, nil
}

// authorize adds user and password or the token.
func (d *Destination) authorize(req *http.Request, scheme string) {
	switch {
	case d.cfg.User != "":
		req.SetBasicAuth(d.cfg.User, d.opts.Secrets.Password)
	case d.opts.Secrets.Token != "":
		req.Header.Set("Authorization", scheme+d.opts.Secrets.Token)
	}
}

// bulkItem is the result of one event. The name of its member is the action.
type bulkItem map[string]struct {
	Status int `json:"status"`
	Error  struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
	} `json:"error"`
}

// answered reads the answer member by member: when it says that there were no
// errors, there is nothing to learn from the items.
func (k *bulk) answered(body io.Reader, n int) (verdict, error) {
	var v verdict
	dec := json.NewDecoder(io.LimitReader(body, maxAnswer))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return v, fmt.Errorf("the answer is no object of JSON (is this the bulk interface?)")
	}
	found := -1
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return v, err
		}
		switch name {
		case "errors":
			var errs bool
			if err := dec.Decode(&errs); err != nil {
				return v, err
			}
			if !errs {
				return v, nil
			}
		case "items":
			if t, err := dec.Token(); err != nil || t != json.Delim('[') {
				return v, fmt.Errorf("the items of the answer are no list")
			}
			for found = 0; dec.More(); found++ {
				var item bulkItem
				if err := dec.Decode(&item); err != nil {
					return v, err
				}
				if found < n {
					v.take(found, item)
				}
			}
			if _, err := dec.Token(); err != nil {
				return v, err
			}
		default:
			var skip json.RawMessage
			if err := dec.Decode(&skip); err != nil {
				return v, err
			}
		}
	}
	if found != n {
		return verdict{}, fmt.Errorf("the answer has %d results for %d events", max(0, found), n)
	}
	return v, nil
}

func (v *verdict) take(i int, item bulkItem) {
	for _, r := range item {
		switch {
		case r.Status/100 == 2:
		case r.Status == http.StatusConflict:
			v.doubles++
		case transient(r.Status, r.Error.Type):
			v.again = append(v.again, i)
			v.why = fmt.Errorf("it will take some events later: status %d, %s: %.200s", r.Status, r.Error.Type, r.Error.Reason)
		default:
			if v.refused == nil {
				v.refused = map[int]string{}
			}
			v.refused[i] = fmt.Sprintf("status %d, %s: %.500s", r.Status, r.Error.Type, r.Error.Reason)
		}
		return
	}
	v.again = append(v.again, i)
	v.why = fmt.Errorf("the answer has an empty result")
}

// transient says whether an item can be taken later as it is: the receiver is
// busy, or it is about rights, a full disk or an index that has to be made,
// and not about the event.
func transient(status int, kind string) bool {
	switch kind {
	case "cluster_block_exception", "security_exception", "index_not_found_exception", "index_closed_exception":
		return true
	}
	return status == http.StatusTooManyRequests || status >= 500
}
