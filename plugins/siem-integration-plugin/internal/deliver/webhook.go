package deliver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The headers of a webhook. The signature is "v1=" and HMAC-SHA256, in
// hexadecimal, of the timestamp, a full stop and the body; the receiver also
// checks that the timestamp is not old.
const (
	HeaderDelivery  = "X-Mobileops-Delivery"  // the id of the event: the same when it is sent again
	HeaderTimestamp = "X-Mobileops-Timestamp" // seconds since 1970
	HeaderSignature = "X-Mobileops-Signature"
)

// webhook posts each event on its own.
type webhook struct{ d *Destination }

func newWebhook(d *Destination) (*webhook, error) { return &webhook{d}, nil }

func (w *webhook) most() int { return 1 }

func (w *webhook) request(ctx context.Context, b *batch, messages []int) (*http.Request, error) {
	from, to := b.span(messages[0])
	body := b.body[from:to]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.d.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", w.d.enc.ContentType())
	req.Header.Set("User-Agent", "mobileops")
	req.Header.Set(HeaderDelivery, b.ids[messages[0]])
	now := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set(HeaderTimestamp, now)
	if key := w.d.opts.Secrets.HMACKey; key != "" {
		req.Header.Set(HeaderSignature, Sign(key, now, body))
	}
	w.d.authorize(req, "Bearer ")
	return req, nil
}

// Sign is the signature of a webhook.
func Sign(key, timestamp string, body []byte) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(timestamp + "."))
	m.Write(body)
	return "v1=" + hex.EncodeToString(m.Sum(nil))
}

func (w *webhook) answered(io.Reader, int) (verdict, error) { return verdict{}, nil }
