package pluginsdk

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Config decodes the plugin's configuration into the struct or map that into
// points to: what the admin set, and the defaults of plugin.yaml. Secrets are
// not in it; see Secret. Durations are strings such as "1m30s" (Duration reads
// them), sizes are numbers of bytes.
func (c *Client) Config(ctx context.Context, into any) error {
	var got struct {
		Values json.RawMessage `json:"values"`
	}
	if err := c.ask(ctx, "config.get", struct{}{}, &got); err != nil {
		return err
	}
	if len(got.Values) == 0 {
		return nil
	}
	if err := json.Unmarshal(got.Values, into); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// SecretNames returns the names of the secrets that are set, such as
// "destinations[0].token".
func (c *Client) SecretNames(ctx context.Context) ([]string, error) {
	var got struct {
		Secrets []string `json:"secrets"`
	}
	err := c.ask(ctx, "config.get", struct{}{}, &got)
	return got.Secrets, err
}

// Secret returns the value of a secret, by its path in the configuration. One
// that is not set is an *Error with CodeNotFound.
func (c *Client) Secret(ctx context.Context, name string) (string, error) {
	var got struct {
		Value string `json:"value"`
	}
	err := c.ask(ctx, "secret.get", struct {
		Name string `json:"name"`
	}{name}, &got)
	return got.Value, err
}

// Duration is a time.Duration that reads itself from configuration: "1m30s".
type Duration time.Duration

// MarshalJSON writes the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads a string such as "1m30s".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("a duration is a string such as \"1m30s\": %w", err)
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}
