package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"
)

// requests sends batches as HTTP requests whose answer says what became of
// them: bulk, otlp and webhook. There is one request at a time, so the order is
// kept, also of what has to be sent again.
type requests struct {
	d      *Destination
	client *http.Client
	target target
	limit  int // events of the next request
}

// target is what the types of destinations differ in.
type target interface {
	// most is how many events a request may have.
	most() int
	// request makes the request for some messages of a batch, in their order.
	request(ctx context.Context, b *batch, messages []int) (*http.Request, error)
	// answered says what became of n messages by an answer with status 2xx.
	answered(body io.Reader, n int) (verdict, error)
}

// verdict is what became of the messages of a request. What is in neither list
// was taken.
type verdict struct {
	again    []int          // to be sent again
	refused  map[int]string // for their content
	doubles  int            // were there before
	rejected int            // refused, and nobody knows which
	why      error          // of again and rejected
}

func newRequests(d *Destination) (*requests, error) {
	r := &requests{d: d}
	var err error
	if r.client, err = d.httpClient(); err != nil {
		return nil, err
	}
	switch d.cfg.Type {
	case TypeBulk:
		r.target, err = newBulk(d)
	case TypeOTLP:
		r.target, err = newOTLP(d)
	case TypeWebhook:
		r.target, err = newWebhook(d)
	default:
		err = fmt.Errorf("type %q is not known", d.cfg.Type)
	}
	if err == nil {
		r.limit = r.target.most()
	}
	return r, err
}

// httpClient makes a client that connects through the host, follows no
// redirect and uses no proxy.
func (d *Destination) httpClient() (*http.Client, error) {
	config, err := tlsConfig(d.cfg, d.opts.Secrets)
	if err != nil {
		return nil, err
	}
	// A balancer of load in front of the receiver may keep us at one of its
	// machines by a cookie; acknowledgements of HEC need that.
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Jar: jar,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, connectTimeout)
				defer cancel()
				conn, err := d.opts.Dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return newWire(conn), nil
			},
			TLSClientConfig:     config,
			TLSHandshakeTimeout: connectTimeout,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     50 * time.Second,
			WriteBufferSize:     64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// endpoint is the URL of a destination, with path where it has none of its own.
func endpoint(raw, path string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(u.Path, path) {
		u.Path = strings.TrimSuffix(u.Path, "/") + path
	}
	return u, nil
}

func (r *requests) run(soft, hard context.Context) error {
	r.d.state("idle")
	for {
		select {
		case b, ok := <-r.d.batches:
			if !ok {
				return nil
			}
			if err := r.deliver(soft, hard, b); err != nil {
				return err
			}
			r.d.give(b)
		case <-soft.Done():
			return nil
		}
	}
}

// deliver sends all messages of b. When it ends early, those that were
// delivered before the first that was not are committed.
func (r *requests) deliver(soft, hard context.Context, b *batch) error {
	todo := make([]int, len(b.ends))
	for i := range todo {
		todo[i] = i
	}
	for len(todo) > 0 {
		if r.target.most() == 1 && todo[0] > b.confirmed {
			if err := r.d.commit(b, todo[0]); err != nil {
				return err
			}
		}
		part := todo[:min(r.limit, len(todo))]
		v, f := r.once(hard, b, part)
		if f == nil {
			rest := make([]int, 0, len(todo))
			for _, i := range v.again {
				rest = append(rest, part[i])
			}
			for i, reason := range v.refused {
				b.refuse(part[i], reason)
			}
			r.d.count.doubles.Add(uint64(v.doubles))
			r.d.count.rejected.Add(uint64(v.rejected))
			b.dead += v.rejected
			todo = append(rest, todo[len(part):]...)
			r.limit = min(2*r.limit, r.target.most())
			switch {
			case v.why == nil:
				r.d.wait.reset()
				r.d.worked()
				continue
			case len(v.again) < len(part):
				r.d.wait.reset()
			}
			if r.d.failed(v.why); len(v.again) == 0 {
				continue
			}
			f = &failed{}
		} else if f.refused && len(part) == 1 {
			r.d.failed(f.err)
			b.refuse(part[0], f.err.Error())
			todo = todo[1:]
			continue
		} else if f.refused {
			// Smaller requests find the one that is meant.
			r.limit = max(1, len(part)/2)
			continue
		} else {
			r.d.failed(f.err)
		}
		if err := r.d.pause(soft, f.after); err != nil {
			if len(todo) > 0 && todo[0] > b.confirmed {
				return errors.Join(r.d.commit(b, todo[0]), err)
			}
			return err
		}
	}
	return r.d.commit(b, len(b.ends))
}

// failed is a request that brought nothing over.
type failed struct {
	err     error
	after   time.Duration // the receiver wants us to wait so long
	refused bool          // for its content: it makes no sense to send it again as it is
	unknown bool          // hec: it may have brought everything over
}

// once makes one request.
func (r *requests) once(ctx context.Context, b *batch, messages []int) (verdict, *failed) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.d.cfg.Timeout))
	defer cancel()
	req, err := r.target.request(ctx, b, messages)
	if err != nil {
		return verdict{}, &failed{err: err}
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return verdict{}, &failed{err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		v, err := r.target.answered(resp.Body, len(messages))
		if err != nil {
			return verdict{}, &failed{err: fmt.Errorf("%s answered %s, but: %w", req.URL.Host, resp.Status, err)}
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection can be used again
		return v, nil
	}
	f := statusFailure(resp)
	if resp.StatusCode == http.StatusConflict && r.d.cfg.Type == TypeWebhook {
		return verdict{doubles: 1}, nil
	}
	return verdict{}, f
}

// statusFailure says what an answer that is not 2xx means. What may be wrong
// with the configuration or the receiver, such as 401 or 404, is tried again:
// only a status that speaks of the content sends events to the dead letters.
func statusFailure(resp *http.Response) *failed {
	said := excerpt(resp.Body)
	f := &failed{err: fmt.Errorf("%s answered %s%s", resp.Request.URL.Host, resp.Status, said), after: retryAfter(resp.Header, time.Now())}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType, http.StatusRequestEntityTooLarge,
		http.StatusGone, http.StatusConflict:
		f.refused = true
	}
	return f
}

// excerpt is the beginning of an answer, as a part of one line.
func excerpt(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, 64<<10))
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return ""
	}
	return fmt.Sprintf(": %.300q", b)
}

func (r *requests) probe(ctx context.Context, b *batch) (string, error) {
	req, err := r.target.request(ctx, b, []int{0})
	if err != nil {
		return "", err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	said := fmt.Sprintf("%s answered %s%s", req.URL, resp.Status, excerpt(bytes.NewReader(body)))
	if resp.StatusCode/100 != 2 {
		return "", errors.New(said)
	}
	v, err := r.target.answered(bytes.NewReader(body), 1)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s, but: %w", said, err)
	case len(v.refused) > 0:
		return "", fmt.Errorf("%s; it refuses the event: %s", said, v.refused[0])
	case v.why != nil:
		return "", fmt.Errorf("%s; it did not take the event: %w", said, v.why)
	}
	return said, nil
}
