package host

import (
	"encoding/json"
)

// Limits of what a plugin says of itself.
const (
	maxHealthMessage = 1 << 10
	maxMetrics       = 64
	maxMetricName    = 64
)

func parseHealth(params []byte) (h Health, err error) {
	if err := decode(params, &h); err != nil {
		return h, err
	}
	switch h.Status {
	case "ok", "degraded", "failing":
	default:
		return h, refuse(Invalid, "the status is %s; it is ok, degraded or failing", quoted(h.Status))
	}
	if len(h.Metrics) > maxMetrics {
		return h, refuse(TooLarge, "%d metrics are more than %d", len(h.Metrics), maxMetrics)
	}
	for name := range h.Metrics { // JSON has neither infinity nor NaN
		if name == "" || len(name) > maxMetricName || hasHidden(name) {
			return h, refuse(Invalid, "%s is no name of a metric", quoted(name))
		}
	}
	h.Message = clean(h.Message, maxHealthMessage)
	return h, nil
}

// tellHealth tells how the plugin is, and not more often than those follow who
// are told of every plugin: of what comes faster, the last.
func (s *session) tellHealth() {
	tell := func(h Health) {
		s.calling.Lock()
		defer s.calling.Unlock()
		s.opts.OnHealth(h)
	}
	rate := newAllowance(healthBurst, 1/healthEvery.Seconds(), s.opts.now)
	for {
		select {
		case h := <-s.healths:
			tell(h)
			if !rate.take(1) {
				sleep(s.ctx, healthEvery)
			}
			continue
		case <-s.ctx.Done():
		}
		select { // its last word
		case h := <-s.healths:
			tell(h)
		default:
		}
		return
	}
}

// decode reads the parameters of a message; none are an empty object. Fields
// that are not known are those of a later version.
func decode(params []byte, into any) error {
	if len(params) == 0 || string(params) == "null" {
		return nil
	}
	if err := json.Unmarshal(params, into); err != nil {
		return refuse(Invalid, "parameters: %s", notJSON(err))
	}
	return nil
}

// config answers config.get.
func (s *session) config() (any, error) {
	result := struct {
		Values  json.RawMessage `json:"values"`
		Secrets []string        `json:"secrets"`
	}{json.RawMessage("{}"), []string{}}
	if s.opts.Config == nil {
		return result, nil
	}
	values, err := s.opts.Config.JSON()
	if err != nil {
		return nil, err
	}
	if len(values) > 0 {
		result.Values = values
	}
	if names := s.opts.Config.SecretNames(); names != nil {
		result.Secrets = names
	}
	return result, nil
}

// secret answers secret.get. A plugin has the secrets of its own configuration
// and no others.
func (s *session) secret(params []byte) (any, error) {
	var p struct {
		Name string `json:"name"`
	}
	if err := decode(params, &p); err != nil {
		return nil, err
	}
	if s.opts.Config != nil {
		if value, ok := s.opts.Config.Secret(p.Name); ok {
			return struct {
				Value string `json:"value"`
			}{value}, nil
		}
	}
	return nil, refuse(NotFound, "no secret %s is set", quoted(p.Name))
}
